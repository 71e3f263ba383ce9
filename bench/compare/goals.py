# SPDX-License-Identifier: Apache-2.0
"""The goals, and whether measured figures reach them. Knows figures only: not how they were measured (work.py), and not
where they go (compare.py).

What was measured is, for each piece of work, a list of turns; in a turn every side was measured once, one after the
other. A goal names two figures of a turn, as `side.figure`; their quotient in one turn is that turn's ratio, and the
ratio reached is the median over the turns, with the least and the greatest as its spread. So what drifts over minutes
falls on both sides of a ratio alike. Goals without a counterpart have one figure, in a unit."""

import collections
import statistics

# over / under: `side.figure`, over's divided by under's; under None: the figure itself.
# sense: ">=" or "<="; limit: what the ratio is held against.
Goal = collections.namedtuple("Goal", "id work what sense limit than over under unit")


def goal(id, work, what, sense, limit, than, over, under=None, unit="x"):
    return Goal(id, work, what, sense, limit, than, over, under, unit)


RATE = "ops_per_second"
GOALS = [
    goal("counter-memory", "counter-memory", "counter increments, pipelined, memory", ">=", 3, "Redis INCR",
         "ours." + RATE, "redis." + RATE),
    goal("counter-sync", "counter-sync", "counter increments, pipelined, sync", ">=", 5, "Redis, appendfsync always",
         "ours." + RATE, "redis." + RATE),
    goal("counter-etcd", "counter-sync", "counter increments, pipelined, sync", ">=", 100, "etcd's puts",
         "ours." + RATE, "etcd." + RATE),
    goal("map-sync", "map-sync", "map puts, 100 bytes, a million keys, sync", ">=", 3, "Redis SET",
         "ours." + RATE, "redis." + RATE),
    goal("map-memory", "map-memory", "map puts, 100 bytes, a million keys, memory", ">=", 3, "Redis SET",
         "ours." + RATE, "redis." + RATE),
    goal("one-memory", "one-memory", "one at a time, p50, memory", "<=", 1 / 50, "Redis",
         "ours.p50_us", "redis.p50_us"),
    goal("one-memory-bare", "one-memory", "one at a time, p50, memory", "<=", 5, "bare core-to-core round trip",
         "ours.p50_us", "bare.round_trip_us"),
    goal("one-sync", "one-sync", "one at a time, p50, sync", "<=", 1.15, "bare io_uring write",
         "ours.p50_us", "bare.p50_us"),
    goal("half-rate", "half-rate", "p99.9 at half of the highest rate, open loop, sync", "<=", 3,
         "bare writes, our rate and size", "ours.p999_us", "bare.p999_us"),
    goal("ring", "ring", "ring, 32-byte frames, one way", ">=", 100, "", "ours.million_per_second", unit="million/s"),
    goal("large", "large", "64 KiB puts, sync, bytes/s", ">=", 0.80, "bare io_uring writes",
         "ours.bytes_per_second", "bare.bytes_per_second"),
    goal("events", "events", "events: 1 put, 100 listeners in 4 processes", ">=", 5, "Redis PUBLISH",
         "ours." + RATE, "redis." + RATE),
    goal("recovery", "recovery", "recovery, logged increments", ">=", 4, "", "ours.million_per_second",
         unit="million/s"),
    goal("snapshot-write", "snapshot", "writing a snapshot of 1 GiB", ">=", 0.5, "the device's sequential write",
         "ours.written", "bare.written"),
    goal("snapshot-load", "snapshot", "loading a snapshot of 1 GiB", ">=", 0.5, "the device's sequential read",
         "ours.loaded", "bare.loaded"),
    goal("snapshot-stall", "snapshot", "stall at the fork of 1 GiB", "<=", 20, "", "ours.stall_ms", unit="ms"),
    goal("memory", "memory", "memory, a million entries of 16 + 100 bytes", "<=", 1, "Redis's resident memory",
         "ours.resident_bytes", "redis.resident_bytes"),
    goal("partitions-sync", "partitions-sync", "worker's CPU a command, 8 partitions on a core, sync", "<=", 1.15,
         "one partition", "eight.worker_cpu_us_per_op", "one.worker_cpu_us_per_op"),
    goal("partitions-memory", "partitions-memory", "worker's CPU a command, 8 partitions on a core, memory", "<=", 1.15,
         "one partition", "eight.worker_cpu_us_per_op", "one.worker_cpu_us_per_op"),
    goal("idle", "idle", "idle node, ten idle clients", "<=", 0.5, "", "ours.percent_of_a_core", unit="% of a core"),
]

Line = collections.namedtuple("Line", "goal reached least most over under met why")


def figure(turn, name):
    """`side.figure` of a turn; None where it was not measured."""
    side, field = name.split(".", 1)
    value = (turn.get(side) or {}).get(field)
    return float(value) if value is not None else None


def ratios(goal, turns):
    """The ratio of each turn in which both figures were measured. A rate or a time of 0 is none: nothing was answered
    while it was measured."""
    found = []
    for turn in turns:
        over = figure(turn, goal.over)
        under = None if goal.under is None else figure(turn, goal.under)
        if over is not None and goal.under is None:
            found.append(over)
        elif over and under:
            found.append(over / under)
    return found


def meets(goal, value):
    return value >= goal.limit if goal.sense == ">=" else value <= goal.limit


def middle(turns, name):
    values = [value for value in (figure(turn, name) for turn in turns) if value is not None]
    return statistics.median(values) if values else None


def judge(goal, turns, why=None):
    """One line of the table. `why`: what kept it from being measured."""
    found = ratios(goal, turns)
    over, under = middle(turns, goal.over), goal.under and middle(turns, goal.under)
    if not found:
        return Line(goal, None, None, None, over, under, None, why or "no turn in which both sides did something")
    reached = statistics.median(found)
    return Line(goal, reached, min(found), max(found), over, under, meets(goal, reached), None)


def judge_all(measured):
    """`measured`: for each piece of work {"turns": [...], "error": text or None}."""
    lines = []
    for goal in GOALS:
        work = measured.get(goal.work, {"turns": [], "error": "not among the work asked for"})
        lines.append(judge(goal, work["turns"], work.get("error")))
    return lines


# -- text ----------------------------------------------------------------------------------------------------------

def number(value):
    """Three significant digits or more, with thousands set apart."""
    if value is None:
        return "-"
    if value != 0 and abs(value) < 0.01:
        return f"{value:.5f}"
    if abs(value) < 10:
        return f"{value:.3f}"
    if abs(value) < 1000:
        return f"{value:.1f}"
    return f"{value:,.0f}"


def with_unit(value, unit):
    if unit == "x":
        return number(value) + " x"
    return number(value) + unit if unit.startswith("%") else f"{number(value)} {unit}"


def goal_text(goal):
    sign = {">=": ">=", "<=": "<="}[goal.sense]
    limit = f"1/{1 / goal.limit:.0f}" if goal.unit == "x" and goal.limit < 0.1 else f"{goal.limit:g}"
    if goal.unit != "x":
        return f"{sign} {limit} {goal.unit}".replace(" %", "%")
    return f"{sign} {limit} x {goal.than}"


def decided(line):
    """Do all turns say the same as the median? Only then the machine's noise has no part in it."""
    return meets(line.goal, line.least) == meets(line.goal, line.most)


def cells(line):
    if line.reached is None:
        return [line.goal.what, goal_text(line.goal), "-", "", "", "", "not measured: " + line.why.splitlines()[0]]
    spread = f"{number(line.least)} .. {number(line.most)}"
    over, under = ("", "") if line.goal.under is None else (number(line.over), number(line.under))
    return [line.goal.what, goal_text(line.goal), with_unit(line.reached, line.goal.unit), spread, over, under,
            ("yes" if line.met else "NO") + ("" if decided(line) else ", by the median")]


HEAD = ["what", "goal", "reached", "least .. most", "ours", "theirs", "met"]


def table(lines):
    """The table for people, a text of lines."""
    rows = [HEAD] + [cells(line) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 1)]
    text = []
    for row in rows:
        left = [row[column].ljust(widths[column]) for column in (0, 1)]
        right = [row[column].rjust(widths[column]) for column in range(2, len(HEAD) - 1)]
        text.append("  ".join(left + right + [row[-1]]).rstrip())
    text.insert(1, "-" * max(map(len, text)))
    return "\n".join(text) + "\n"


def markdown(lines):
    """The same for a README."""
    rows = [HEAD, ["---"] * len(HEAD)] + [cells(line) for line in lines]
    return "".join("| " + " | ".join(cell.replace(">=", "≥").replace("<=", "≤").replace(" x", " ×")
                                     for cell in row) + " |\n" for row in rows)


def as_json(lines):
    return [{"id": line.goal.id, "what": line.goal.what, "goal": goal_text(line.goal), "sense": line.goal.sense,
             "limit": line.goal.limit, "unit": line.goal.unit, "over": line.goal.over, "under": line.goal.under,
             "reached": line.reached, "least": line.least, "most": line.most, "over_median": line.over,
             "under_median": line.under, "met": line.met,
             "decided": None if line.met is None else decided(line), "why": line.why} for line in lines]
