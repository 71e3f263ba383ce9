#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""millrace-bench: every service and operation, closed and open loop, on a node of its own and on one that runs; what its
JSON holds; and what it says when it cannot do what was asked. No figure is judged here."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.environ["MILLRACE_TOP"], "tests", "support"))
from node import Node

BENCH = os.path.join(os.environ["MILLRACE_OUT"], "millrace-bench")
SHORT = ["--seconds", "0.2", "--warm-up", "0.05", "--repeats", "2", "--quiet"]
FIGURES = ["ops_per_second", "p50_us", "p90_us", "p99_us", "p999_us", "p9999_us", "max_us", "errors",
           "worker_cpu_us_per_op", "client_cpu_us_per_op"]


def bench(*arguments, expect=0):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "report.json")
        done = subprocess.run([BENCH, *SHORT, "--dir", directory, "--json", path, *arguments], text=True, timeout=120,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        left = sorted(os.listdir(directory))
        report = None
        if "report.json" in left:
            with open(path, encoding="utf-8") as file:
                report = json.load(file)
            left.remove("report.json")
        assert left == [], f"left behind: {left}"
        return report, done.stdout, done.stderr


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
                report, table, _ = bench(*arguments)
                self.check(report)
                self.assertIn("operations", table)

    def test_events_reach_every_listener(self):
        report, table, _ = bench("--service", "map", "--op", "events", "--clients", "2", "--listeners", "5",
                                 "--pipeline", "10", "--durability", "memory")
        self.check(report)
        self.assertIn("deliveries", table)

    def test_a_fixed_rate_on_a_running_node(self):
        with Node() as node:
            report, table, _ = bench("--socket", node.socket, "--rate", "500")
            self.check(report)
            self.assertIn("500/s intended", table)
            self.assertLess(report["ops_per_second"], 1000)
            self.assertIsNone(node.process.poll())

    def test_what_cannot_be_done_is_said(self):
        self.assertIn("takes a number", bench("--clients", "none", expect=2)[2])
        self.assertIn("is not an option", bench("map", expect=2)[2])
        self.assertIn("there is no --service", bench("--service", "queue", expect=2)[2])
        self.assertIn("there is no --service", bench("--service", "counter", "--op", "put", expect=2)[2])
        self.assertIn("no node serves", bench("--socket", "/nonexistent/socket", expect=1)[2])
        self.assertIn("durability", bench("--durability", "some", expect=1)[2])
        self.assertIn("usage:", bench("--help", expect=0)[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
