# SPDX-License-Identifier: Apache-2.0
"""What a request costs in processor time: of the server, and of the load generator, which is part of the story where
one side spins and the other sleeps. Medians over the turns, in microseconds."""

import statistics

SERVER = ("worker_cpu_us_per_op", "server_cpu_us_per_op")
LOAD = ("client_cpu_us_per_op",)


def median(turns, side, fields):
    values = [turn[side][field] for turn in turns for field in fields if field in turn.get(side, {})]
    return statistics.median(values) if values else None


def rows(measured):
    """(work, side, server's, load's) wherever both were counted."""
    found = []
    for name, work in measured.items():
        for side in dict.fromkeys(side for turn in work["turns"] for side in turn):
            server, load = median(work["turns"], side, SERVER), median(work["turns"], side, LOAD)
            if server is not None and load is not None:
                found.append((name, side, server, load))
    return found


def table(measured):
    """A text of lines, empty where nothing was counted."""
    found = rows(measured)
    if not found:
        return ""
    text = f"\n{'processor time, us a request':30}{'':8}{'server':>10}{'load':>10}\n"
    return text + "".join(f"{name:30}{side:8}{server:10.3f}{load:10.3f}\n" for name, side, server, load in found)
