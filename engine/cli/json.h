/* SPDX-License-Identifier: Apache-2.0 */
/* Writing JSON (RFC 8259): one object's members, one behind the other. The caller opens and closes objects and arrays
 * itself; what needs care, the strings, is done here. Writing errors are left to the stream's own error flag. */
#ifndef ENGINE_CLI_JSON_H
#define ENGINE_CLI_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A string in quotes. The bytes must be UTF-8; what is not becomes U+FFFD, a byte at a time. */
void json_string(FILE *to, const void *text, size_t size);
/* Bytes in base64 (RFC 4648, with padding), in quotes. */
void json_base64(FILE *to, const void *bytes, size_t size);

/* "name": value, with ", " before it unless *first, which is then false. */
void json_member_string(FILE *to, bool *first, const char *name, const void *text, size_t size);
void json_member_number(FILE *to, bool *first, const char *name, uint64_t number);
void json_member_signed(FILE *to, bool *first, const char *name, int64_t number);
/* "name": "text" where the bytes are UTF-8, else "name_base64": "..." */
void json_member_bytes(FILE *to, bool *first, const char *name, const void *bytes, size_t size);
/* A duration of nanoseconds as protobuf's JSON writes it: seconds with as many decimals as it needs and an s:
 * "4.5s". */
void json_member_duration(FILE *to, bool *first, const char *name, int64_t nanoseconds);

#endif
