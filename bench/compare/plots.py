# SPDX-License-Identifier: Apache-2.0
"""The plots: what is measured for them besides the goals' work, and gnuplot's scripts, each drawn as SVG and as PNG.

`depths`: throughput against requests in flight. `percentiles`: latency of one at a time. `load`: latency against
offered load, open loop on both sides. A series is a list of points (x, y) under a title."""

import os

import loads
import programs
import work
from loads import CONNECTIONS, millrace_bench, redis_rate
from servers import Node, Redis

PERCENTILES = [("p50_us", 50), ("p90_us", 90), ("p99_us", 99), ("p999_us", 99.9), ("p9999_us", 99.99)]
WAYS = ("memory", "sync")


def redis_options(depth):
    connections = min(depth, CONNECTIONS)
    return ["--connections", connections, "--pipeline", depth // connections]


def measure_depths(place, say):
    series = {f"{name}, {durability}": [] for name in ("Millrace", "Redis") for durability in WAYS}
    for durability in WAYS:
        mine, theirs = series[f"Millrace, {durability}"], series[f"Redis, {durability}"]
        with Redis(place, durability) as redis, Node(place, durability) as node:
            if durability == "memory" and "depths" in place.pace.reused:
                work.fill_log(place, node, "--pipeline", loads.IN_FLIGHT)
            for depth in place.pace.depths:
                say(f"plot of depths: {durability}, {depth} in flight")
                found = millrace_bench(place, node, "--pipeline", depth, seconds=place.pace.point_seconds)
                mine.append((depth, found["ops_per_second"]))
                found = redis_rate(place, redis, *redis_options(depth), seconds=place.pace.point_seconds)
                theirs.append((depth, found["ops_per_second"]))
    return series


def measure_percentiles(place, say):
    series = {f"{name}, {durability}": [] for name in ("Millrace", "Redis") for durability in WAYS}
    for durability in WAYS:
        say(f"plot of percentiles: {durability}")
        with Node(place, durability) as node:
            mine = millrace_bench(place, node, seconds=place.pace.seconds)
        with Redis(place, durability) as redis:
            theirs = redis_rate(place, redis, "--connections", 1, "--pipeline", 1, seconds=place.pace.seconds)
        for name, found in (("Millrace", mine), ("Redis", theirs)):
            series[f"{name}, {durability}"] = [(percent, found[field]) for field, percent in PERCENTILES]
    return series


def measure_load(place, say):
    """Each side at fractions of its own highest rate; `sync`."""
    series = {}
    with Node(place, "sync") as node, Redis(place, "sync") as redis:
        def mine(rate):
            return millrace_bench(place, node, *(["--rate", int(rate)] if rate else ["--pipeline", loads.IN_FLIGHT]),
                                  seconds=place.pace.point_seconds)

        def theirs(rate):
            return redis_rate(place, redis, *(["--rate", int(rate)] if rate else []), seconds=place.pace.point_seconds)

        for name, measure in (("Millrace", mine), ("Redis", theirs)):
            highest = measure(None)["ops_per_second"]
            points = []
            for fraction in place.pace.fractions:
                say(f"plot of load: {name}, {fraction:g} of its highest rate")
                points.append(measure(highest * fraction))
            series[f"{name}, p50"] = [(point["ops_per_second"], point["p50_us"]) for point in points]
            series[f"{name}, p99"] = [(point["ops_per_second"], point["p99_us"]) for point in points]
    return series


# name: title, measuring, what gnuplot is told.
PLOTS = {
    "depths": ("Throughput against requests in flight: counter increments", measure_depths,
               ["set logscale xy", "set xlabel 'requests in flight'", "set ylabel 'increments a second'",
                "set format y '%.0s%c'"]),
    "percentiles": ("Latency, one at a time: counter increments", measure_percentiles,
                    ["set logscale y", "set xlabel 'percentile'", "set ylabel 'microseconds'",
                     "set xtics ('50' 0, '90' 1, '99' 2, '99.9' 3, '99.99' 4)", "set xrange [-0.2:4.2]"]),
    "load": ("Latency against offered load, open loop, sync: counter increments", measure_load,
             ["set logscale xy", "set xlabel 'increments a second'",
              "set ylabel 'microseconds from the intended start'", "set format x '%.0s%c'"]),
}


def script(name, series):
    """gnuplot's commands for one plot, up to its terminal and output."""
    title, _, settings = PLOTS[name]
    lines, curves = [], []
    for number, (label, points) in enumerate(series.items()):
        lines.append(f"$data{number} << END")
        for place, (x, y) in enumerate(points):
            if y > 0:
                lines.append(f"{place if name == 'percentiles' else x:g} {y:g}")
        lines.append("END")
        color = "#1f5fbf" if label.startswith("Millrace") else "#c04030"
        curves.append(f"$data{number} using 1:2 with linespoints linewidth 2 linecolor rgb '{color}' dashtype "
                      f"{number % 2 + 1} pointtype {5 + 2 * (number % 2)} title '{label}'")
    lines += [f"set title '{title}'", "set grid", "set key outside right center", *settings]
    lines.append("plot " + ", ".join(curves))
    return lines


def draw(name, series, directory):
    """The files made."""
    made = []
    for kind, terminal in (("svg", "svg size 900,520 background rgb 'white'"), ("png", "pngcairo size 900,520")):
        path = os.path.join(directory, f"{name}.{kind}")
        commands = os.path.join(directory, f"{name}.{kind}.gnuplot")
        quoted = path.replace("'", "''")
        with open(commands, "w", encoding="utf-8") as file:
            file.write("\n".join([f"set terminal {terminal}", f"set output '{quoted}'", *script(name, series), ""]))
        try:
            programs.run(["gnuplot", commands], None, limit=60)
        finally:
            os.unlink(commands)
        made.append(path)
    return made
