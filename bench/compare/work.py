# SPDX-License-Identifier: Apache-2.0
"""What is measured for the goals: each piece of work is a generator of turns. In a turn every side does the same work,
one after the other, and the figures of each stand under its name: `ours`, `redis`, `etcd`, `bare` (the bare limit, from
millrace-parts). Servers of the others live through all turns of their work and idle while it is not theirs; so do nodes
whose log has been filled before (see fill_log); other nodes of ours are begun anew in each turn.

goals.py says what becomes of the figures."""

import contextlib
import os
import subprocess
import time

import batches
import loads
import programs
from loads import Paced, millrace_bench, part_value, parts, redis_benchmark
from programs import Trouble
from servers import Etcd, Node, Redis

KEYS, VALUE_SIZE = 1_000_000, 100
LARGE, LARGE_DEPTH = 65536, 4
LISTENERS, PROCESSES = 100, 4
IDLE_CLIENTS = 10
FILLING_SECONDS, FILLINGS_MAX = 0.5, 200
# Eight partitions would be filled with 5 GiB before they use their logs again; with these it is 1 GiB.
SMALL_LOG = ("--snapshot-bytes", "32M", "--segment-bytes", "16M")


def ours(place, durability, *options, **settings):
    """One measuring on a fresh node."""
    with Node(place, durability, **settings) as node:
        return millrace_bench(place, node, *options, seconds=place.pace.seconds)


def fill_log(place, node, *options):
    """The same work until every partition's log uses its segments again. In `memory` a segment is fresh memory when it
    is used first, and a node that runs for long has that behind it: after the second snapshot the log before the first
    is given back, and from then on nothing is fresh."""
    seen = [set() for _ in node.workers]
    for _ in range(FILLINGS_MAX):
        millrace_bench(place, node, *options, seconds=FILLING_SECONDS, warm_up=0)
        for partition, taken in zip(node.status()["partitions"], seen):
            taken.add(int(partition["snapshot_index"]))
        if all(len(taken - {0}) >= 2 for taken in seen):
            return
    raise Trouble("the node's log does not come to use its segments again")


class Ours:
    """Measurings of one piece of work: each on a fresh node, or all on one whose log has been filled before."""

    def __init__(self, place, stack, durability, *options, reuse=False, **settings):
        self.place, self.durability, self.options, self.settings = place, durability, options, settings
        self.node = stack.enter_context(Node(place, durability, **settings)) if reuse else None
        if reuse:
            fill_log(place, self.node, *options)

    def __call__(self):
        if self.node is not None:
            return millrace_bench(self.place, self.node, *self.options, seconds=self.place.pace.seconds)
        return ours(self.place, self.durability, *self.options, **self.settings)


# -- against others --------------------------------------------------------------------------------------------------

def counter(place, stack, durability):
    redis = stack.enter_context(Redis(place, durability))
    increments = Paced(lambda n: redis_benchmark(place, redis, "-t", "incr", requests=n), 50_000)
    puts = None
    if durability == "sync":
        etcd = stack.enter_context(Etcd(place))
        puts = Paced(lambda n: loads.etcd_puts(place, etcd, n), 5_000)
    mine = Ours(place, stack, durability, "--pipeline", loads.IN_FLIGHT,
                reuse=durability == "memory" and "counter" in place.pace.reused)
    while True:
        turn = {"ours": mine(),
                "redis": increments(place.pace.seconds)}
        if puts is not None:
            turn["etcd"] = puts(place.pace.seconds)
        yield turn


def map_puts(place, stack, durability):
    redis = stack.enter_context(Redis(place, durability))
    redis.fill(KEYS, VALUE_SIZE)
    sets = Paced(lambda n: redis_benchmark(place, redis, "-t", "set", "-r", KEYS, "-d", VALUE_SIZE, requests=n), 50_000)
    mine = Ours(place, stack, durability, "--service", "map", "--op", "put", "--keys", KEYS, "--value-size",
                VALUE_SIZE, "--pipeline", loads.IN_FLIGHT,
                reuse=durability == "memory" and "map" in place.pace.reused)
    while True:
        turn = {"ours": mine(), "redis": sets(place.pace.seconds)}
        if int(redis.ask("DBSIZE")) != KEYS:
            raise Trouble(f"Redis holds {redis.ask('DBSIZE')} keys, not {KEYS}")
        yield turn


def events(place, stack):
    """As many deliveries are on their way at most as there are requests in flight elsewhere."""
    redis = stack.enter_context(Redis(place, "memory"))
    ahead = loads.IN_FLIGHT // LISTENERS
    while True:
        yield {"ours": ours(place, "memory", "--service", "map", "--op", "events", "--clients", PROCESSES,
                            "--listeners", LISTENERS, "--pipeline", ahead, "--value-size", VALUE_SIZE),
               "redis": loads.redis_events(place, redis, "--listeners", LISTENERS, "--processes", PROCESSES,
                                           "--ahead", ahead, "--size", VALUE_SIZE, seconds=place.pace.seconds)}


def memory(place, stack):
    """Resident memory of the whole process that holds a million entries, right after they were put; a client that has
    gone leaves nothing mapped. Ours in `sync`: in `memory` the log itself is memory that the worker has mapped."""
    del stack
    while True:
        with Node(place, "sync") as node:
            empty = programs.resident(node.workers[0])
            millrace_bench(place, node, "--service", "map", "--op", "get", "--keys", KEYS, "--value-size", VALUE_SIZE,
                           "--pipeline", 100, seconds=0.1, warm_up=0)
            wait_for_channels_to_close(node)
            mine = programs.resident(node.workers[0])
            mine["empty_bytes"] = empty["resident_bytes"]
        with Redis(place, "memory") as redis:
            before = redis.used_memory()
            redis.fill(KEYS, VALUE_SIZE)
            theirs = {"resident_bytes": redis.used_memory(), "empty_bytes": before}
        yield {"ours": mine, "redis": theirs}


def wait_for_channels_to_close(node):
    end = time.monotonic() + 30
    while any(partition["channels"] for partition in node.status()["partitions"]):
        if time.monotonic() > end:
            raise Trouble("the node keeps the channels of a client that has gone")
        time.sleep(0.02)


# -- one at a time ---------------------------------------------------------------------------------------------------

def one_memory(place, stack):
    redis = stack.enter_context(Redis(place, "memory"))
    increments = Paced(lambda n: redis_benchmark(place, redis, "-t", "incr", requests=n, connections=1, pipeline=1),
                       5_000)
    while True:
        bare = parts(place, "core-to-core", "--seconds", place.pace.seconds)
        yield {"ours": ours(place, "memory"), "redis": increments(place.pace.seconds),
               "bare": {"round_trip_us": part_value(bare, "round trip") / 1000}}


def bare_latency(found):
    return {"p50_us": part_value(found, "p50"), "p99_us": part_value(found, "p99"),
            "p999_us": part_value(found, "p99.9"), "writes_per_second": part_value(found, "writes")}


def one_sync(place, stack):
    del stack
    while True:
        yield {"ours": ours(place, "sync"),
               "bare": bare_latency(parts(place, "bare-writes", "--size", 4096, "--depth", 1, "--seconds",
                                          place.pace.seconds))}


def half_rate(place, stack):
    """The highest rate is that of the closed loop with 5,000 in flight."""
    del stack
    highest = ours(place, "sync", "--pipeline", loads.IN_FLIGHT)["ops_per_second"]
    while True:
        with Node(place, "sync") as node:
            mine = millrace_bench(place, node, "--rate", int(highest / 2), seconds=place.pace.seconds)
            found = batches.rate_and_size(batches.in_directory(partition_folder(node)), place.pace.seconds)
        if found is None:
            raise Trouble("the node's log holds too few batches to tell their rate")
        mine.update(found, rate=int(highest / 2), highest=highest)
        bare = parts(place, "bare-paced", "--size", found["batch_bytes"], "--rate", found["batches_per_second"],
                     "--seconds", place.pace.seconds)
        yield {"ours": mine, "bare": bare_latency(bare)}


def partition_folder(node):
    for folder, _, files in os.walk(node.data):
        if any(name.startswith("segment-") for name in files):
            return folder
    raise Trouble(f"no segments under {node.data}")


def large(place, stack):
    del stack
    while True:
        mine = ours(place, "sync", "--service", "map", "--op", "put", "--keys", 1000, "--value-size", LARGE,
                    "--pipeline", 4 * LARGE_DEPTH)
        mine["bytes_per_second"] = mine["ops_per_second"] * LARGE
        bare = parts(place, "bare-writes", "--size", LARGE, "--depth", LARGE_DEPTH, "--seconds", place.pace.seconds)
        yield {"ours": mine, "bare": {"bytes_per_second": part_value(bare, "bytes") * 1e6}}


# -- parts of ours ---------------------------------------------------------------------------------------------------

def ring(place, stack):
    del stack
    while True:
        found = parts(place, "ring", "--seconds", place.pace.seconds)
        yield {"ours": {"million_per_second": part_value(found, "frames of 32 bytes, one way"),
                        "round_trip_ns": part_value(found, "frame there and back")}}


def recovery(place, stack):
    del stack
    while True:
        found = parts(place, "recovery", "--entries", place.pace.recovery_entries)
        yield {"ours": {"million_per_second": part_value(found, "logged increments")}}


def snapshot(place, stack):
    del stack
    while True:
        found = parts(place, "snapshot", "--bytes", place.pace.snapshot_bytes)
        mine = {name: part_value(found, name) for name in ("written", "loaded")}
        mine["stall_ms"] = part_value(found, "stall at the fork")
        yield {"ours": mine, "bare": {name: found[name]["limit"] for name in ("written", "loaded")}}


def partitions(place, stack, durability):
    """All of them on one core, so that none spins; and the single one does not either."""
    memory_log = durability == "memory"
    one, eight = (Ours(place, stack, durability, "--pipeline", loads.IN_FLIGHT, partitions=count, pinned=True,
                       options=SMALL_LOG if memory_log else (),
                       reuse=memory_log and "partitions" in place.pace.reused) for count in (1, 8))
    while True:
        yield {"one": one(), "eight": eight()}


def idle(place, stack):
    """Supervisor and worker, beside ten processes that follow a map in which nothing happens."""
    node = stack.enter_context(Node(place, "sync"))
    for number in range(IDLE_CLIENTS):
        client = programs.start([place.millrace, "map", "events", f"idle-{number}", "--socket", node.socket],
                                place.load_core, node.log)
        stack.callback(programs.stop, client)
    end = time.monotonic() + 30
    while sum(int(partition["channels"]) for partition in node.status()["partitions"]) < IDLE_CLIENTS:
        if time.monotonic() > end:
            raise Trouble("the idle clients did not connect")
        time.sleep(0.05)
    while True:
        time.sleep(1)
        used, begun = programs.cpu_seconds(node.pids()), time.monotonic()
        time.sleep(place.pace.idle_seconds)
        used = programs.cpu_seconds(node.pids()) - used
        yield {"ours": {"percent_of_a_core": used * 100 / (time.monotonic() - begun)}}


# -- all -------------------------------------------------------------------------------------------------------------

# name: the generator, what it takes besides, and how many turns it has at most.
ALL = {
    "counter-memory": (counter, ["memory"], None),
    "counter-sync": (counter, ["sync"], None),
    "map-sync": (map_puts, ["sync"], None),
    "map-memory": (map_puts, ["memory"], None),
    "one-memory": (one_memory, [], None),
    "one-sync": (one_sync, [], None),
    "half-rate": (half_rate, [], None),
    "ring": (ring, [], None),
    "large": (large, [], None),
    "events": (events, [], None),
    "recovery": (recovery, [], None),
    "snapshot": (snapshot, [], "long"),
    "memory": (memory, [], "long"),
    "partitions-sync": (partitions, ["sync"], None),
    "partitions-memory": (partitions, ["memory"], None),
    "idle": (idle, [], "long"),
}


def measure(place, name, say):
    """All turns of a piece of work. What goes wrong ends it, and is told in `error`; the turns before it count."""
    make, arguments, length = ALL[name]
    count = place.pace.long_turns if length == "long" else place.pace.turns
    turns, error, begun = [], None, time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            generator = make(place, stack, *arguments)
            stack.callback(generator.close)
            for number in range(count):
                say(f"{name}: turn {number + 1} of {count}")
                turns.append(next(generator))
    except (Trouble, OSError, ValueError, KeyError, subprocess.SubprocessError) as trouble:
        error = str(trouble) if isinstance(trouble, Trouble) else f"{type(trouble).__name__}: {trouble}"
        say(f"{name}: {error}")
    return {"turns": turns, "error": error, "seconds": round(time.monotonic() - begun, 2)}
