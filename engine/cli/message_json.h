/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of atomix.multiraft.v1 in protobuf's JSON mapping, from their encoding, in place: nothing is unpacked, so a
 * snapshot of any size can be printed. 64-bit numbers are strings, bytes base64, enums names, times RFC 3339, durations
 * seconds with an s; names are in lowerCamelCase; defaults are left out.
 *
 * The bytes are read by protobuf's rules: of a scalar the last counts, a message in pieces is merged, what is unknown
 * is left out. What cannot be written as the mapping asks (a string that is not UTF-8) is written as near as can be. */
#ifndef ENGINE_CLI_MESSAGE_JSON_H
#define ENGINE_CLI_MESSAGE_JSON_H

#include "proto/messages.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdio.h>

/* One message as an object. False: its bytes are malformed, or there is no memory to merge what comes in pieces; what
 * has been printed is then worth nothing. */
bool message_json(FILE *to, const ProtobufCMessageDescriptor *type, struct slice bytes);
/* The same without its braces, and without the fields numbered below `from`; *first as for json.h. */
bool message_json_members(FILE *to, bool *first, const ProtobufCMessageDescriptor *type, struct slice bytes,
                          unsigned from);

/* Is every message in it well-formed, every string UTF-8? Prints nothing. */
bool message_sound(const ProtobufCMessageDescriptor *type, struct slice bytes);

/* A field's message, its pieces put together where there are several: then *made is to be freed, else it is NULL.
 * False: there is no such field, the bytes are malformed, or there is no memory. */
bool message_field(struct slice bytes, unsigned number, struct slice *field, uint8_t **made);

/* Times as the mapping writes them, without quotes. */
void message_json_time(FILE *to, int64_t seconds, int64_t nanoseconds);
void message_json_duration(FILE *to, int64_t seconds, int64_t nanoseconds);

#endif
