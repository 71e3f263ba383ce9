# SPDX-License-Identifier: Apache-2.0
"""How often a node writes its log, and how much: from the batches that stand in its segment files. (The kernel's counts
of a process or a device hold other writes too.) Of a batch's header, which engine/log/batch.h describes, this reads
magic, length, count, sequence and time."""

import os
import struct

MAGIC = b"MRBATCH\n"
BLOCK = 4096


def headers(path):
    """(sequence, time, bytes written, entries) of every batch in a segment's file; also of those that an earlier life
    of the file has left there."""
    with open(path, "rb") as file:
        offset = 0
        while head := os.pread(file.fileno(), 128, offset):
            step = BLOCK
            if len(head) == 128 and head[:8] == MAGIC:
                length, = struct.unpack_from("<Q", head, 16)
                count, = struct.unpack_from("<I", head, 44)
                sequence, = struct.unpack_from("<Q", head, 64)
                time, = struct.unpack_from("<Q", head, 80)
                step = max(BLOCK, (length + BLOCK - 1) // BLOCK * BLOCK)
                yield sequence, time, step, count
            offset += step


def in_directory(partition):
    found = []
    for name in sorted(os.listdir(partition)):
        if name.startswith("segment-"):
            found.extend(headers(os.path.join(partition, name)))
    return sorted(set(found))


def rate_and_size(found, seconds):
    """Batches a second and their mean size in whole blocks, over the last `seconds` of the log; None: too few."""
    with_entries = [batch for batch in found if batch[3] > 0]
    if not with_entries:
        return None
    since = with_entries[-1][1] - int(seconds * 1e9)
    last = [batch for batch in with_entries if batch[1] >= since]
    if len(last) < 10 or last[-1][1] == last[0][1]:
        return None
    size = sum(batch[2] for batch in last) / len(last)
    return {"batches_per_second": (len(last) - 1) * 1e9 / (last[-1][1] - last[0][1]),
            "batch_bytes": max(BLOCK, int(size + BLOCK / 2) // BLOCK * BLOCK),
            "entries_per_batch": sum(batch[3] for batch in last) / len(last)}
