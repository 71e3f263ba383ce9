/* SPDX-License-Identifier: Apache-2.0 */
/* How the allocator of a node's processes is set up; jemalloc reads this name as it begins (elsewhere nobody does).
 *
 * The heap asks for huge pages: a worker stands still while it forks the child that writes a snapshot, and 1 GiB of
 * state in small objects took 10 ms with pages of 4 KiB, 1 to 3 ms with huge ones; and what it writes to while the
 * child lives costs a copy of 4 KiB either way. An idle process is 6 MiB larger for it. */
extern const char *malloc_conf __attribute__((visibility("default")));
const char *malloc_conf = "thp:always";
