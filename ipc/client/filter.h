/* SPDX-License-Identifier: Apache-2.0 */
/* Writing KeepAliveInput.input_filter: a Bloom filter over the numbers that the session is to keep. Its bytes:
 *
 *     0   u8  format       1
 *     1   u8  probes       k
 *     2   bits             m = 8 * their number of bytes, at least 64; bit b is bit b % 8 of byte 2 + b / 8
 *
 * A number n is hashed as 8 bytes, the highest first, with XXH3-64: h1 with seed 0, h2 with seed 1 and then its lowest
 * bit set; it sets the bits (h1 + i * h2) mod 2^64 mod m for all i from 0 to k - 1. Nothing to keep: no bytes at all.
 */
#ifndef IPC_CLIENT_FILTER_H
#define IPC_CLIENT_FILTER_H

#include <stddef.h>
#include <stdint.h>

/* Bytes for so many numbers: some 16 bits for each, so that one in two thousand others is kept along with them; fewer
 * where that would be over `most` bytes (at least 10), at the price of keeping more. 0 for none. */
size_t filter_size(size_t count, size_t most);
/* An empty filter of `size` bytes. */
void filter_begin(uint8_t *filter, size_t size, size_t count);
void filter_add(uint8_t *filter, size_t size, uint64_t number);

#endif
