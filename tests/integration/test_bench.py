#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""millrace-bench: every service and operation, closed and open loop, on a node of its own and on one that runs; what its
JSON holds; and what it says when it cannot do what was asked. No figure is judged here."""

import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.environ["MILLRACE_TOP"], "tests", "support"))
import mounts
from node import WAIT, Node, millrace, wait_until

BENCH = os.path.join(os.environ["MILLRACE_OUT"], "millrace-bench")
SHORT = ["--seconds", "0.2", "--warm-up", "0.05", "--repeats", "2", "--quiet"]
FIGURES = ["ops_per_second", "p50_us", "p90_us", "p99_us", "p999_us", "p9999_us", "max_us", "errors",
           "worker_cpu_us_per_op", "client_cpu_us_per_op"]


def worked(*arguments):
    """On a crowded machine a moment may be too short for a single answer."""
    for seconds in ("0.2", "2", "20"):
        found = bench(*arguments, "--seconds", seconds)
        if found[0]["ops_per_second"] > 0:
            break
    return found


def bench(*arguments, expect=0):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "report.json")
        done = subprocess.run([BENCH, *SHORT, "--dir", directory, "--json", path, *arguments], text=True,
                              timeout=2 * WAIT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert expect in (None, done.returncode), (done.returncode, done.stdout, done.stderr)
        left = sorted(os.listdir(directory))
        report = None
        if "report.json" in left:
            with open(path, encoding="utf-8") as file:
                report = json.load(file)
            left.remove("report.json")
        assert left == [], f"left behind: {left}"
        return report, done.stdout, done.stderr


class Begun:
    """A run on a node of its own that has been begun: `process`, `supervisor`, `worker`. Whatever becomes of it, it
    leaves nothing in its directory."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory()
        self.json = os.path.join(self.directory.name, "report.json")
        self.process = subprocess.Popen(
            [BENCH, "--warm-up", "0", "--dir", self.directory.name, "--json", self.json, *self.arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        status = wait_until(self.status, "increments are applied")
        self.supervisor, self.worker = status["pid"], int(status["partitions"][0]["pid"])
        return self

    def status(self):
        sockets = glob.glob(self.directory.name + "/*/node/millrace.sock")
        done = millrace("status", "--json", "--socket", sockets[0]) if sockets else None
        if done is None or done.returncode != 0:
            return None
        status = json.loads(done.stdout)
        return status if int(status["partitions"][0]["applied_index"]) > 10 else None

    def until_said(self, what):
        """False: it never was, as on a machine so crowded that a measuring is over before it is told of."""
        said = b""
        while what not in said:
            piece = os.read(self.process.stderr.fileno(), 4096)
            if not piece:
                return False
            said += piece
        return True

    def signal_worker(self, number):
        """False: it has ended with its run."""
        try:
            os.kill(self.worker, number)
        except ProcessLookupError:
            return False
        return True

    def end(self):
        """Exit status, what it said, and its report."""
        _, said = self.process.communicate(timeout=2 * WAIT)
        report = None
        if os.path.exists(self.json):
            with open(self.json, encoding="utf-8") as file:
                report = json.load(file)
            os.unlink(self.json)
        return self.process.returncode, said.decode(), report

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.directory.cleanup()


class Bench(unittest.TestCase):
    def check(self, report):
        for figure in FIGURES:
            self.assertIn(figure, report)
        self.assertEqual(report["errors"], 0)
        self.assertGreater(report["ops_per_second"], 0)
        self.assertGreater(report["worker_cpu_us_per_op"], 0)
        self.assertGreater(report["client_cpu_us_per_op"], 0)
        self.assertLessEqual(report["p50_us"], report["p999_us"])
        self.assertLessEqual(report["p999_us"], report["max_us"])
        self.assertEqual(len(report["rounds"]), 2)

    def test_operations(self):
        for arguments in (["--service", "counter", "--op", "increment", "--pipeline", "100"],
                          ["--service", "counter", "--op", "get"],
                          ["--service", "map", "--op", "put", "--clients", "2", "--partitions", "2", "--keys", "500",
                           "--skew", "0.9", "--value-size", "1000", "--pipeline", "10", "--durability", "async"],
                          ["--service", "map", "--op", "get", "--durability", "memory", "--keys", "100"]):
            with self.subTest(arguments=arguments):
                report, table, _ = worked(*arguments)
                self.check(report)
                self.assertIn("operations", table)

    def test_events_reach_every_listener(self):
        report, table, _ = worked("--service", "map", "--op", "events", "--clients", "2", "--listeners", "5",
                                  "--pipeline", "10", "--durability", "memory")
        self.check(report)
        self.assertIn("deliveries", table)

    def test_a_fixed_rate_on_a_running_node(self):
        with Node() as node:
            for seconds in ("0.2", "2", "20"):  # what a crowded machine has kept from starting is made up for
                report, table, _ = bench("--socket", node.socket, "--rate", "500", "--seconds", seconds)
                if 0 < report["ops_per_second"] < 1000:
                    break
            self.check(report)
            self.assertIn("500/s intended", table)
            self.assertLess(report["ops_per_second"], 1000)
            self.assertIsNone(node.process.poll())

    def test_an_interrupt_leaves_nothing_behind(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number), Begun("--seconds", "60") as run:
                run.process.send_signal(number)
                status, said, report = run.end()
                self.assertEqual((status, report), (1, None))
                self.assertIn("interrupted", said)
                self.assertEqual(os.listdir(run.directory.name), [])
                self.assertFalse(os.path.exists(f"/proc/{run.supervisor}"))
                wait_until(lambda run=run: not os.path.exists(f"/proc/{run.worker}"), "the worker has ended")

    def test_a_node_that_dies_ends_the_run(self):
        with Begun("--seconds", "60", "--rate", "100") as run:
            os.kill(run.supervisor, signal.SIGKILL)
            status, said, report = run.end()
            self.assertEqual((status, report), (1, None))
            self.assertIn("the node has ended by itself", said)
            self.assertEqual(os.listdir(run.directory.name), [])

    def test_a_worker_that_dies_is_told(self):
        # On a crowded machine the worker may die too late, or the next one come too late for the second measuring.
        for seconds in ("2", "20"):
            with Begun("--seconds", seconds, "--repeats", "2", "--durability", "memory") as run:
                if not run.until_said(b"measuring 1 of 2") or not run.signal_worker(signal.SIGKILL):
                    continue
                status, said, report = run.end()
                self.assertEqual(status, 0, said)
                if "a worker died in measuring 1" not in said:
                    continue
                self.assertEqual(report["rounds"][0]["worker_cpu_us_per_op"], 0)
                if report["rounds"][1]["worker_cpu_us_per_op"] > 0:
                    return
        self.fail(said)

    def test_what_is_not_answered_counts(self):
        """A worker that stands still from early in a measuring until after it: most of what was to start then waited
        long, though hardly anything was answered."""
        for seconds in (3, 30):  # on a crowded machine the worker may stop too late
            with Begun("--seconds", str(seconds), "--repeats", "2", "--rate", "200", "--durability", "memory") as run:
                if not run.until_said(b"measuring 1 of 2") or not run.signal_worker(signal.SIGSTOP):
                    continue
                told = run.until_said(b"measuring 2 of 2")
                if not run.signal_worker(signal.SIGCONT) or not told:
                    continue
                status, said, report = run.end()
                self.assertEqual(status, 0, said)
            if report["rounds"][0]["p90_us"] > 100000:
                return
        self.fail(report)

    def test_processor_time_is_the_measurings(self):
        """A client at a fixed rate spins: all of a measuring, however few its requests."""
        for seconds in ("1", "10"):  # a crowded machine may take long between two looks at clocks
            report, _, _ = bench("--rate", "100", "--seconds", seconds, "--durability", "memory")
            used = [figures["client_cpu_us_per_op"] * figures["ops_per_second"] for figures in report["rounds"]]
            if max(used) < 1.1e6:
                return
        self.fail(used)

    def test_refused_requests_are_no_operations(self):
        """A log of 4 MiB has room for fewer than 120,000 increments; what is refused then comes by the million."""
        mounts.private_mounts()
        disk = mounts.Tmpfs(6)
        self.addCleanup(disk.unmount)
        for seconds in (2, 20, 20):  # on a crowded machine the log may not be full so soon, or a client get nowhere
            report, table, said = bench("--dir", disk.path, "--pipeline", "1000", "--seconds", str(seconds),
                                        "--durability", "async", "--serve", "--segment-bytes 4M --snapshot-bytes 0",
                                        expect=None)
            if report is not None and report["errors"] > 0:
                break
        self.assertIsNotNone(report, said)
        self.assertGreater(report["errors"], 0)
        self.assertLess(sum(figures["ops_per_second"] * seconds for figures in report["rounds"]), 120000)
        self.assertIn("errors", table)
        self.assertIn("no space", said)

    def test_what_cannot_be_done_is_said(self):
        self.assertIn("takes a number", bench("--clients", "none", expect=2)[2])
        self.assertIn("takes a whole number", bench("--clients", "1.5", expect=2)[2])
        for cores in ("zz", "0-1", "0,", ",0", "0,100000"):
            self.assertIn("takes numbers of cores", bench("--client-cpus", cores, expect=2)[2])
        self.assertIn("cannot run on core 1023", bench("--client-cpus", "1023", expect=1)[2])
        self.assertIn("/nonexistent: No such file", bench("--dir", "/nonexistent", expect=1)[2])
        self.assertIn("is not an option", bench("map", expect=2)[2])
        self.assertIn("there is no --service", bench("--service", "queue", expect=2)[2])
        self.assertIn("there is no --service", bench("--service", "counter", "--op", "put", expect=2)[2])
        self.assertIn("no node serves", bench("--socket", "/nonexistent/socket", expect=1)[2])
        self.assertIn("durability", bench("--durability", "some", expect=1)[2])
        self.assertIn("usage:", bench("--help", expect=0)[1])

    def test_figures_that_cannot_be_written(self):
        with tempfile.TemporaryDirectory() as directory, open("/dev/full", "wb") as full:
            done = subprocess.run([BENCH, *SHORT, "--dir", directory], stdout=full, stderr=subprocess.PIPE,
                                  timeout=2 * WAIT, check=False)
        self.assertEqual((done.returncode, done.stderr),
                         (1, b"millrace-bench: standard output could not be written: No space left on device\n"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
