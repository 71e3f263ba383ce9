/* SPDX-License-Identifier: Apache-2.0 */
/* Is a text well-formed UTF-8? Knows nothing else.
 *
 * A character is one of (hexadecimal, ranges of bytes; Unicode's table 3-7):
 *   00-7F
 *   C2-DF 80-BF
 *   E0    A0-BF 80-BF          not the over-long forms
 *   E1-EC 80-BF 80-BF
 *   ED    80-9F 80-BF          not the surrogates
 *   EE-EF 80-BF 80-BF
 *   F0    90-BF 80-BF 80-BF    not the over-long forms
 *   F1-F3 80-BF 80-BF 80-BF
 *   F4    80-8F 80-BF 80-BF    nothing above U+10FFFF
 * NUL is a character like others. */
#include "proto/reader.h"

static inline bool is_continuation(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* The length of the character at `at`, of which `left` bytes are there; 0 if it is not well-formed. */
static size_t character_length(const uint8_t *at, size_t left)
{
    uint8_t first = at[0];
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (left < length)
        return 0;
    /* The second byte's range is narrower behind some first bytes. */
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if (!is_continuation(at[i]))
            return 0;
    return length;
}

bool utf8_valid(struct slice text)
{
    if (utf8_is_ascii(text))
        return true;
    const uint8_t *at = text.data, *end = text.data + text.size;
    while (at != end) {
        size_t length = character_length(at, (size_t)(end - at));
        if (length == 0)
            return false;
        at += length;
    }
    return true;
}
