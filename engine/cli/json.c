/* SPDX-License-Identifier: Apache-2.0 */
/* Writing JSON: see json.h. */
#include "engine/cli/json.h"

#include "proto/reader.h"

#include <millrace/limits.h>

#include <inttypes.h>

/* The size of the UTF-8 character that starts at `text`; 0 if none does. */
static size_t character(const uint8_t *text, size_t size)
{
    for (size_t length = 1; length <= 4 && length <= size; length++)
        if (utf8_valid((struct slice){.data = text, .size = length}))
            return length;
    return 0;
}

void json_string(FILE *to, const void *text, size_t size)
{
    const uint8_t *at = text;

    putc('"', to);
    while (size > 0) {
        size_t length = character(at, size);
        if (length == 0) {
            fputs("\\ufffd", to);
            length = 1;
        } else if (*at == '"' || *at == '\\') {
            putc('\\', to);
            putc(*at, to);
        } else if (*at == '\n') {
            fputs("\\n", to);
        } else if (*at == '\t') {
            fputs("\\t", to);
        } else if (*at < 0x20 || *at == 0x7f) {
            fprintf(to, "\\u%04x", *at);
        } else if (*at == 0xc2 && at[1] < 0xa0) { /* control characters, too */
            fprintf(to, "\\u%04x", at[1]);
        } else {
            fwrite(at, 1, length, to);
        }
        at += length;
        size -= length;
    }
    putc('"', to);
}

void json_base64(FILE *to, const void *bytes, size_t size)
{
    static const char digits[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *at = bytes;

    putc('"', to);
    for (; size > 0; at += 3) {
        size_t taken = size < 3 ? size : 3;
        uint32_t bits = (uint32_t)at[0] << 16 | (taken > 1 ? (uint32_t)at[1] << 8 : 0) | (taken > 2 ? at[2] : 0);
        putc(digits[bits >> 18], to);
        putc(digits[bits >> 12 & 63], to);
        putc(taken > 1 ? digits[bits >> 6 & 63] : '=', to);
        putc(taken > 2 ? digits[bits & 63] : '=', to);
        size -= taken;
    }
    putc('"', to);
}

static void member(FILE *to, bool *first, const char *name, const char *suffix)
{
    fprintf(to, "%s\"%s%s\": ", *first ? "" : ", ", name, suffix);
    *first = false;
}

void json_member_string(FILE *to, bool *first, const char *name, const void *text, size_t size)
{
    member(to, first, name, "");
    json_string(to, text, size);
}

void json_member_number(FILE *to, bool *first, const char *name, uint64_t number)
{
    member(to, first, name, "");
    fprintf(to, "%" PRIu64, number);
}

void json_member_signed(FILE *to, bool *first, const char *name, int64_t number)
{
    member(to, first, name, "");
    fprintf(to, "%" PRId64, number);
}

void json_member_bytes(FILE *to, bool *first, const char *name, const void *bytes, size_t size)
{
    bool text = utf8_valid((struct slice){.data = bytes, .size = size});

    member(to, first, name, text ? "" : "_base64");
    if (text)
        json_string(to, bytes, size);
    else
        json_base64(to, bytes, size);
}

void json_member_duration(FILE *to, bool *first, const char *name, int64_t nanoseconds)
{
    const int64_t second = (int64_t)MR_SECOND;
    int64_t fraction = nanoseconds % second;
    int digits = 9;

    member(to, first, name, "");
    fprintf(to, "\"%" PRId64, nanoseconds / second);
    if (fraction != 0) {
        for (; fraction % 10 == 0; digits--)
            fraction /= 10;
        fprintf(to, ".%0*" PRId64, digits, fraction);
    }
    fputs("s\"", to);
}
