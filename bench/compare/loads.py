# SPDX-License-Identifier: Apache-2.0
"""The load generators, and what they print as figures: a dictionary for each run, with the names that millrace-bench's
report has. Every one of them is pinned to the load's core, and its processor time is counted."""

import csv
import io
import json
import os
import re
import tempfile

import programs
from programs import Trouble

IN_FLIGHT = 5000  # requests, of every side
CONNECTIONS = 50  # theirs; so each has 100 in flight

KEY, VALUE = b"key:000000000001", b"12345678"  # of etcd's puts


def millrace_bench(place, node, *options, seconds, warm_up=None):
    with tempfile.NamedTemporaryFile(dir=place.directory, suffix=".json") as report:
        programs.run([place.program("millrace-bench"), "--socket", node.socket, "--client-cpus", str(place.load_core),
                      "--quiet", "--repeats", "1", "--seconds", f"{seconds:g}", "--warm-up",
                      f"{place.pace.warm_up if warm_up is None else warm_up:g}", "--json", report.name,
                      *map(str, options)], place.load_core)
        figures = json.load(report)
    figures.pop("rounds", None)
    if figures["errors"]:
        raise Trouble(f"millrace-bench met {figures['errors']} errors")
    return figures


# -- Redis -----------------------------------------------------------------------------------------------------------

def parse_redis_benchmark(text):
    """The line of `redis-benchmark --csv`, which follows one with names."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    if len(rows) != 1:
        raise Trouble(f"redis-benchmark did not print one test's figures: {text.strip()[-300:]}")
    figures = {"ops_per_second": float(rows[0]["rps"])}
    for name, column in (("p50_us", "p50_latency_ms"), ("p99_us", "p99_latency_ms"), ("max_us", "max_latency_ms")):
        figures[name] = float(rows[0][column]) * 1000
    return figures


def redis_benchmark(place, redis, *options, requests, connections=CONNECTIONS, pipeline=IN_FLIGHT // CONNECTIONS):
    before = programs.cpu_seconds(redis.pids())
    done = programs.run(["redis-benchmark", "-s", redis.socket, "-c", str(connections), "-P", str(pipeline), "-n",
                         str(requests), "--csv", *map(str, options)], place.load_core)
    figures = parse_redis_benchmark(done.output)
    figures["requests"] = requests
    figures["server_cpu_us_per_op"] = (programs.cpu_seconds(redis.pids()) - before) * 1e6 / requests
    figures["client_cpu_us_per_op"] = done.cpu_seconds * 1e6 / requests
    return figures


class Paced:
    """Runs a load generator that takes a number of requests for about as long as one that takes seconds: the number
    follows from the run before, the first of which is short and serves as warm-up."""

    def __init__(self, measure, first):
        self.measure, self.first, self.rate = measure, first, None

    def __call__(self, seconds):
        if self.rate is None:
            self.rate = self.measure(self.first)["ops_per_second"]
        figures = self.measure(max(self.first, int(self.rate * seconds)))
        self.rate = figures["ops_per_second"]
        return figures


def redis_rate(place, redis, *options, seconds):
    return json.loads(programs.run([place.program("redis-rate"), "--socket", redis.socket, "--seconds", f"{seconds:g}",
                                    "--warm-up", f"{place.pace.warm_up:g}", *map(str, options)],
                                   place.load_core).output)


def redis_events(place, redis, *options, seconds):
    before = programs.cpu_seconds(redis.pids())
    figures = json.loads(programs.run([place.program("redis-events"), "--socket", redis.socket, "--seconds",
                                       f"{seconds:g}", "--warm-up", f"{place.pace.warm_up:g}", *map(str, options)],
                                      place.load_core).output)
    # Of warm-up and all: near enough for a figure that no goal uses.
    figures["server_cpu_us_per_op"] = ((programs.cpu_seconds(redis.pids()) - before) * 1e6 / figures["operations"]
                                       * seconds / (seconds + place.pace.warm_up))
    return figures


# -- etcd ------------------------------------------------------------------------------------------------------------

def put_request(key, value):
    """A gRPC message: a head of five bytes, and etcdserverpb.PutRequest (1: key, 2: value)."""
    message = b"".join(bytes([field << 3 | 2, len(text)]) + text for field, text in ((1, key), (2, value)))
    return b"\0" + len(message).to_bytes(4, "big") + message


def parse_h2load(text, requests):
    rate = re.search(r"finished in [^,]+, ([0-9.]+) req/s", text)
    succeeded = re.search(r"([0-9]+) succeeded", text)
    if rate is None or succeeded is None or int(succeeded.group(1)) != requests:
        raise Trouble(f"h2load did not succeed with {requests} requests: {text.strip()[-400:]}")
    figures = {"ops_per_second": float(rate.group(1))}
    times = re.search(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", text)
    if times is not None:
        units = {"us": 1, "ms": 1000, "s": 1e6}
        value, unit = re.fullmatch(r"([0-9.]+)([a-z]+)", times.group(3)).groups()
        figures["mean_us"] = float(value) * units.get(unit, 1)
    return figures


def etcd_puts(place, etcd, requests):
    """Puts over HTTP/2, as etcd's own clients make them. That they were made, the revision tells."""
    body = os.path.join(etcd.directory, "put")
    with open(body, "wb") as file:
        file.write(put_request(KEY, VALUE))
    revision, before = etcd.revision(), programs.cpu_seconds(etcd.pids())
    done = programs.run(["h2load", "-t", "1", "-c", str(CONNECTIONS), "-m", str(IN_FLIGHT // CONNECTIONS), "-n",
                         str(requests), "-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers",
                         etcd.client + "/etcdserverpb.KV/Put"], place.load_core)
    figures = parse_h2load(done.output, requests)
    figures["requests"] = requests
    figures["server_cpu_us_per_op"] = (programs.cpu_seconds(etcd.pids()) - before) * 1e6 / requests
    figures["client_cpu_us_per_op"] = done.cpu_seconds * 1e6 / requests
    made = etcd.revision() - revision
    if made != requests:
        raise Trouble(f"etcd made {made} puts of {requests}")
    return figures


# -- our parts -------------------------------------------------------------------------------------------------------

def parts(place, name, *options):
    """A part of millrace-parts: {name of the figure: its entry}. It works where our worker does: the disk's interrupts
    come to the same core for both."""
    with tempfile.NamedTemporaryFile(dir=place.directory, suffix=".json") as report:
        programs.run([place.program("millrace-parts"), "--dir", place.directory, "--json", report.name, "--cores",
                      f"{place.server_core},{place.load_core}", *map(str, options), name], None)
        return {entry["name"]: entry for entry in json.load(report) if entry["part"] == name}


def part_value(found, name):
    if name not in found:
        raise Trouble(f"millrace-parts prints no `{name}`, only {', '.join(found) or 'nothing'}")
    return found[name]["value"]
