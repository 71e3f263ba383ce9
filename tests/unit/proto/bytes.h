/* SPDX-License-Identifier: Apache-2.0 */
/* Encoded messages in tests: written as C strings ("\x08\x01"), compared byte by byte. Include it behind cmocka.h. */
#ifndef TESTS_UNIT_PROTO_BYTES_H
#define TESTS_UNIT_PROTO_BYTES_H

#include "proto/messages.h"

#include <string.h>

/* The bytes of a string literal, without its NUL. */
#define BYTES(literal) ((struct slice){.data = (const uint8_t *)(literal), .size = sizeof(literal) - 1})

#define assert_bytes(actual, literal)                                                                                  \
    do {                                                                                                               \
        struct slice actual_bytes = (actual);                                                                          \
        assert_int_equal(actual_bytes.size, sizeof(literal) - 1);                                                      \
        if (actual_bytes.size != 0)                                                                                    \
            assert_memory_equal(actual_bytes.data, literal, actual_bytes.size);                                        \
    } while (0)

#endif
