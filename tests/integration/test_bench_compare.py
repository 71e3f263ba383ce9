#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make bench`: what its report makes of figures (on canned ones), how it reads others' output and our log, and a very
short real run of each tool, where it is installed. No figure that was measured is judged here."""

import contextlib
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

TOP = os.environ["MILLRACE_TOP"]
OUT = os.environ["MILLRACE_OUT"]
COMPARE = os.path.join(TOP, "bench", "compare")
sys.path.insert(0, COMPARE)

import batches
import compare
import costs
import goals
import loads
import plots
import programs
import servers
import work
from node import WAIT

SHORTEST = compare.SHORTEST


def a_goal(name):
    return next(goal for goal in goals.GOALS if goal.id == name)


def turns_of(over, under, *pairs):
    """Turns in which two figures were measured."""
    turns = []
    for values in pairs:
        turn = {}
        for name, value in zip((over, under), values):
            side, field = name.split(".")
            turn.setdefault(side, {})[field] = value
        turns.append(turn)
    return turns


class Judging(unittest.TestCase):
    def judge(self, name, *pairs):
        goal = a_goal(name)
        return goals.judge(goal, turns_of(goal.over, goal.under, *pairs))

    def test_the_ratio_is_the_median_of_the_turns_ratios(self):
        line = self.judge("counter-memory", (300, 100), (1000, 200), (250, 100))
        self.assertAlmostEqual(line.reached, 3.0)
        self.assertAlmostEqual(line.least, 2.5)
        self.assertAlmostEqual(line.most, 5.0)
        self.assertEqual((line.over, line.under), (300, 100))

    def test_a_goal_is_met_at_its_limit_and_not_beyond(self):
        self.assertTrue(self.judge("counter-memory", (300, 100)).met)
        self.assertFalse(self.judge("counter-memory", (299, 100)).met)
        self.assertTrue(self.judge("one-memory", (1, 50)).met)
        self.assertFalse(self.judge("one-memory", (1.01, 50)).met)
        self.assertTrue(self.judge("large", (80, 100)).met)
        self.assertFalse(self.judge("large", (79, 100)).met)

    def test_turns_that_disagree_are_told(self):
        for percents, cell in (((80, 85, 90), "yes"), ((79, 85, 90), "yes, by the median"),
                               ((70, 75, 79), "NO"), ((70, 75, 80), "NO, by the median")):
            pairs = [(percent, 100) for percent in percents]
            self.assertEqual(goals.cells(self.judge("large", *pairs))[-1], cell)
        turns = [{"ours": {"stall_ms": value}} for value in (10, 12, 20.5)]
        self.assertEqual(goals.cells(goals.judge(a_goal("snapshot-stall"), turns))[-1], "yes, by the median")

    def test_goals_without_a_counterpart_stand_for_themselves(self):
        stall = a_goal("snapshot-stall")
        turns = [{"ours": {"stall_ms": value}} for value in (30, 10, 12)]
        line = goals.judge(stall, turns)
        self.assertEqual((line.reached, line.least, line.most, line.met), (12, 10, 30, True))
        idle = goals.judge(a_goal("idle"), [{"ours": {"percent_of_a_core": 0.0}}])
        self.assertEqual((idle.reached, idle.met), (0, True))

    def test_a_turn_in_which_nothing_was_answered_does_not_count(self):
        """A latency of 0, because there was no answer, would otherwise be the best of all."""
        line = self.judge("one-memory", (0, 50), (2, 50))
        self.assertAlmostEqual(line.reached, 0.04)
        self.assertIsNone(self.judge("one-memory", (0, 50)).met)
        self.assertIsNone(self.judge("counter-memory", (300, 0)).met)

    def test_what_was_not_measured_is_neither_met_nor_missed(self):
        lines = goals.judge_all({"counter-memory": {"turns": [], "error": "no redis-server\nat all"}})
        self.assertEqual(len(lines), len(goals.GOALS))
        self.assertTrue(all(line.met is None for line in lines))
        self.assertIn("not measured: no redis-server", goals.table(lines))
        self.assertNotIn("at all", goals.table(lines))

    def test_the_table_has_every_goal(self):
        measured = {}
        for goal in goals.GOALS:
            turns = turns_of(goal.over, goal.under or goal.over, (goal.limit, goal.limit if goal.under is None else 1))
            measured.setdefault(goal.work, {"turns": [{}], "error": None})
            for side, figures in turns[0].items():
                measured[goal.work]["turns"][0].setdefault(side, {}).update(figures)
        lines = goals.judge_all(measured)
        self.assertEqual([line.goal.id for line in lines if line.reached is None], [])
        rows = goals.table(lines).splitlines()
        self.assertEqual(len(rows), len(goals.GOALS) + 2)
        for goal, row in zip(goals.GOALS, rows[2:]):
            self.assertTrue(row.startswith(goal.what), row)
            self.assertIn(goals.goal_text(goal), row)
        self.assertEqual(goals.markdown(lines).count("\n"), len(goals.GOALS) + 2)
        for entry in json.loads(json.dumps(goals.as_json(lines))):
            self.assertIsNotNone(entry["met"], entry)

    def test_costs_are_those_of_both_sides(self):
        turns = [{"ours": {"worker_cpu_us_per_op": cpu, "client_cpu_us_per_op": 0.5},
                  "redis": {"server_cpu_us_per_op": 2.0, "client_cpu_us_per_op": 0.25}, "bare": {"p50_us": 1}}
                 for cpu in (1.0, 3.0, 1.5)]
        measured = {"counter-memory": {"turns": turns, "error": None}, "idle": {"turns": [], "error": "none"}}
        self.assertEqual(costs.rows(measured), [("counter-memory", "ours", 1.5, 0.5),
                                                ("counter-memory", "redis", 2.0, 0.25)])
        self.assertEqual(len(costs.table(measured).splitlines()), 4)
        self.assertEqual(costs.table({}), "")

    def test_every_goal_has_its_work(self):
        self.assertEqual({goal.work for goal in goals.GOALS}, set(work.ALL))
        self.assertEqual(len({goal.id for goal in goals.GOALS}), len(goals.GOALS))

    def test_numbers(self):
        self.assertEqual([goals.number(value) for value in (None, 0.00123, 1.5, 123.45, 1234567)],
                         ["-", "0.00123", "1.500", "123.5", "1,234,567"])
        self.assertEqual(goals.goal_text(a_goal("one-memory")), "<= 1/50 x Redis")
        self.assertEqual(goals.goal_text(a_goal("idle")), "<= 0.5% of a core")


class Reading(unittest.TestCase):
    """What others print, and what our log holds."""

    def test_redis_benchmark(self):
        figures = loads.parse_redis_benchmark(
            'WARNING: something\n"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms",'
            '"p99_latency_ms","max_latency_ms"\n'
            '"INCR","1851851.75","2.486","0.104","1.871","5.247","18.847","40.639"\n')
        self.assertEqual(figures["ops_per_second"], 1851851.75)
        self.assertAlmostEqual(figures["p50_us"], 1871)
        self.assertAlmostEqual(figures["max_us"], 40639)
        with self.assertRaises(programs.Trouble):
            loads.parse_redis_benchmark("Could not connect to Redis")

    H2LOAD = ("finished in 1.79s, 11204.35 req/s, 720.14KB/s\n"
              "requests: 20000 total, 20000 started, 20000 done, 20000 succeeded, 0 failed, 0 errored, 0 timeout\n"
              "                     min         max         mean         sd        +/- sd\n"
              "time for request:     9.11ms       1.07s    404.02ms    164.51ms    66.91%\n")

    def test_h2load(self):
        figures = loads.parse_h2load(self.H2LOAD, 20000)
        self.assertEqual(figures["ops_per_second"], 11204.35)
        self.assertAlmostEqual(figures["mean_us"], 404020)
        with self.assertRaises(programs.Trouble):
            loads.parse_h2load(self.H2LOAD, 20001)

    def test_a_put_is_grpcs_bytes(self):
        self.assertEqual(loads.put_request(b"k", b"vw"), b"\0\0\0\0\x07\x0a\x01k\x12\x02vw")

    def test_batches(self):
        """Three of a kind in a second, an empty one, and one that is older than what is asked for."""
        def batch(sequence, time, length, count):
            head = bytearray(128)
            head[:8] = batches.MAGIC
            struct.pack_into("<Q", head, 16, length)
            struct.pack_into("<I", head, 44, count)
            struct.pack_into("<QQ", head, 64, sequence, 0)
            struct.pack_into("<Q", head, 80, time)
            return bytes(head) + bytes((length + 4095) // 4096 * 4096 - 128)

        second = 10**9
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "segment-0000"), "wb") as file:
                file.write(bytes(4096) + batch(1, second, 200, 1) + batch(2, 100 * second, 5000, 7))
                for n in range(20):
                    file.write(batch(3 + n, 100 * second + (n + 1) * second // 10, 8192, 10))
                file.write(batch(23, 103 * second, 128, 0) + bytes(8192))
            found = batches.in_directory(directory)
        self.assertEqual([entry[0] for entry in found], list(range(1, 24)))
        self.assertEqual(found[1][2], 8192)
        figures = batches.rate_and_size(found, 1.95)
        self.assertAlmostEqual(figures["batches_per_second"], 10)
        self.assertEqual((figures["batch_bytes"], figures["entries_per_batch"]), (8192, 10))
        self.assertIsNone(batches.rate_and_size(found[:3], 10))
        self.assertIsNone(batches.rate_and_size([], 10))

    def test_interrupts_of_devices(self):
        self.assertEqual(programs.parse_interrupts("           CPU0       CPU3\n"
                                                   "  4:          7          1  IO-APIC   4-edge      ttyS0\n"
                                                   " 36:          0   19230073 PCI-MSIX-0000:00:02.0 virtio1-req.0\n"
                                                   "LOC:    5555555    6666666  Local timer interrupts\n"
                                                   "ERR:          9\n"),
                         {0: 7, 3: 19230074})
        server, load = programs.pick_cores(tempfile.gettempdir())
        self.assertLessEqual({server, load}, set(sorted(os.sched_getaffinity(0))[:2]))

    def test_the_number_of_requests_follows_from_the_rate(self):
        asked = []

        def measure(requests):
            asked.append(requests)
            return {"ops_per_second": 1000 * len(asked)}
        paced = loads.Paced(measure, 50)
        paced(2)
        paced(2)
        self.assertEqual(asked, [50, 2000, 4000])


class Running(unittest.TestCase):
    """Each tool for a moment."""

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        directory = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.place = compare.Place(OUT, directory, SHORTEST)

    def need(self, *names):
        missing = [name for name in names if shutil.which(name) is None]
        if missing:
            print(f"\nSKIPPED {self.id()}: {', '.join(missing)} not installed")
            self.skipTest("not installed")

    def until_something_was_done(self, measure):
        """On a crowded machine a moment may be too short for a single answer."""
        for seconds in (0.2, 1, 5, 20):
            figures = measure(seconds)
            if figures["ops_per_second"] > 0:
                return figures
        self.fail("nothing was done in 20 s")

    def check_nothing_left(self):
        self.assertEqual(os.listdir(self.place.directory), [])

    def test_redis(self):
        self.need("redis-server", "redis-benchmark")
        for durability in ("memory", "sync"):
            with servers.Redis(self.place, durability) as redis:
                figures = loads.redis_benchmark(self.place, redis, "-t", "incr", requests=10000)
                self.assertEqual(redis.ask("GET", "counter:__rand_int__"), "10000")
                self.assertGreater(figures["ops_per_second"], 0)
                self.assertGreater(figures["client_cpu_us_per_op"], 0)
                redis.fill(2500, 100)
                self.assertEqual(redis.ask("GET", "key:000000002499"), "x" * 100)
                loads.redis_benchmark(self.place, redis, "-t", "set", "-r", 2500, "-d", 100, requests=1000)
                self.assertEqual(redis.ask("DBSIZE"), "2501")
                self.assertEqual(redis.ask("CONFIG", "GET", "appendonly")[1], "yes" if durability == "sync" else "no")
                self.assertEqual(redis.ask("CONFIG", "GET", "save")[1], "")
                if durability == "sync":
                    self.assertEqual(redis.ask("CONFIG", "GET", "appendfsync")[1], "always")
                self.assertGreater(redis.used_memory(), 0)
                with self.assertRaises(programs.Trouble):
                    redis.ask("NOSUCHCOMMAND")
            self.check_nothing_left()

    def test_loads_of_our_own_for_redis(self):
        self.need("redis-server")
        with servers.Redis(self.place, "memory") as redis:
            figures = self.until_something_was_done(
                lambda seconds: loads.redis_events(self.place, redis, "--listeners", 10, "--processes", 3, "--ahead", 5,
                                                   "--size", 20, seconds=seconds))
            self.assertLessEqual(figures["p50_us"], figures["max_us"])
            for options in (["--connections", 3, "--pipeline", 2], ["--rate", 500]):
                before = int(redis.ask("GET", "count") or 0)
                figures = self.until_something_was_done(
                    lambda seconds, options=options: loads.redis_rate(self.place, redis, *options, seconds=seconds))
                self.assertGreaterEqual(int(redis.ask("GET", "count")) - before, figures["operations"])
                self.assertLessEqual(figures["p50_us"], figures["p999_us"])
        for program in ("redis-events", "redis-rate"):
            done = subprocess.run([self.place.program(program)], stderr=subprocess.DEVNULL, timeout=WAIT)
            self.assertEqual(done.returncode, 2)
            with self.assertRaises(programs.Trouble):
                programs.run([self.place.program(program), "--socket", "/nonexistent/socket"], None)

    def test_etcd(self):
        self.need("etcd", "h2load")
        with servers.Etcd(self.place) as etcd:
            before = etcd.revision()
            figures = loads.etcd_puts(self.place, etcd, 6000)
            self.assertEqual(etcd.revision() - before, 6000)
            self.assertGreater(figures["ops_per_second"], 0)
            self.assertGreater(figures["server_cpu_us_per_op"], 0)
        self.check_nothing_left()

    def test_plots(self):
        self.need("gnuplot")
        series = {"Millrace, memory": [(1, 10.0), (50, 200.5)], "Redis, it's": [(1, 5.0), (50, 0.0)]}
        for name in plots.PLOTS:
            with tempfile.TemporaryDirectory() as directory:
                made = plots.draw(name, {label.replace("'", ""): points for label, points in series.items()}, directory)
                self.assertEqual(sorted(os.listdir(directory)), sorted(os.path.basename(path) for path in made))
                with open(made[0], "rb") as svg, open(made[1], "rb") as png:
                    self.assertIn(b"<svg", svg.read())
                    self.assertTrue(png.read().startswith(b"\x89PNG"))

    def test_a_node_and_its_batches(self):
        with servers.Node(self.place, "sync", partitions=2) as node:
            self.assertEqual(len(node.workers), 2)
            loads.millrace_bench(self.place, node, "--pipeline", 10, seconds=0.2)
            self.assertGreater(programs.resident(node.workers[0])["resident_bytes"], 0)
            found = batches.in_directory(work.partition_folder(node))
            self.assertGreater(sum(batch[3] for batch in found), 0)
        self.check_nothing_left()

    def test_parts_print_what_is_asked_of_them(self):
        if not os.path.exists(self.place.program("millrace-parts")):
            print(f"\nSKIPPED {self.id()}: millrace-parts is not built")
            self.skipTest("not built")
        self.assertGreater(loads.part_value(loads.parts(self.place, "core-to-core", "--seconds", 0.1), "round trip"), 0)
        for name in ("ring", "recovery", "snapshot"):
            measured = work.measure(self.place, name, lambda text: None)
            self.assertIsNone(measured["error"])
            for goal in goals.GOALS:
                if goal.work == name:
                    self.assertEqual(len(goals.ratios(goal, measured["turns"])), 1, goal)
        for name, options in (("bare-writes", ["--depth", 2]), ("bare-paced", ["--rate", 200])):
            found = loads.parts(self.place, name, "--seconds", 0.1, "--size", 4096, *options)
            self.assertEqual(set(work.bare_latency(found)), {"p50_us", "p99_us", "p999_us", "writes_per_second"})
        with self.assertRaises(programs.Trouble):
            loads.part_value(found, "p42")
        for options in (["--cores", "0"], ["--cores", "0,x"], ["--cores", "0,1,2"], ["--rate", "0"], ["bare-readings"]):
            done = subprocess.run([self.place.program("millrace-parts"), *options], stderr=subprocess.DEVNULL,
                                  timeout=WAIT)
            self.assertEqual(done.returncode, 2, options)
        with self.assertRaises(programs.Trouble):
            loads.parts(self.place, "bare-writes", "--depth", 65)
        self.check_nothing_left()

    def test_a_part_that_dies_leaves_nothing(self):
        """On a disk, as far as it can tell, on which no file may be larger than a megabyte."""
        def small_files_only():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        if not os.path.exists(self.place.program("millrace-parts")):
            self.skipTest("not built")
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run([self.place.program("millrace-parts"), "--dir", directory, "recovery"],
                                  preexec_fn=small_files_only, capture_output=True, text=True, timeout=WAIT)
            self.assertEqual(done.returncode, 1, done)
            self.assertIn(directory, done.stderr)
            self.assertEqual(os.listdir(directory), [])

    def test_a_server_that_does_not_start_is_told(self):
        with self.assertRaises(programs.Trouble) as trouble:
            with servers.Node(self.place, "sometimes"):
                pass
        self.assertIn("durability", str(trouble.exception))
        self.check_nothing_left()

    def test_the_whole(self):
        self.need(*(program for _, program in programs.PACKAGES))
        with tempfile.TemporaryDirectory() as out:
            done = subprocess.run(
                [sys.executable, os.path.join(COMPARE, "compare.py"), "--programs", OUT, "--out", out, "--shortest",
                 "--seconds", "0.3", "--no-plots", "--only", "counter-memory,events,idle"],
                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=3 * WAIT, check=False)
            self.assertEqual(sorted(os.listdir(out)), ["report.json", "table.md", "table.txt"], done.stderr)
            with open(os.path.join(out, "report.json"), encoding="utf-8") as file:
                report = json.load(file)
            self.assertEqual(set(report["work"]), {"counter-memory", "events", "idle"})
            for name, measured in report["work"].items():
                self.assertIsNone(measured["error"], (name, done.stderr))
                self.assertEqual(len(measured["turns"]), 1)
            self.assertEqual(len(report["goals"]), len(goals.GOALS))
            with open(os.path.join(out, "table.txt"), encoding="utf-8") as file:
                table = file.read()
            self.assertIn("counter increments, pipelined, memory", table)
            self.assertNotIn("64 KiB", table)
            self.assertIn(table, done.stdout)

    def test_what_is_wrong_is_said(self):
        done = subprocess.run([sys.executable, os.path.join(COMPARE, "compare.py"), "--only", "everything"],
                              text=True, stderr=subprocess.PIPE, timeout=WAIT, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("there is no work `everything`", done.stderr)
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run([sys.executable, os.path.join(COMPARE, "compare.py"), "--programs", OUT],
                                  text=True, stderr=subprocess.PIPE, env={"PATH": empty}, timeout=WAIT,
                                  check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get install", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
