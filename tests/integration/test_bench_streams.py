#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make bench-streams`, with small numbers: it measures what it says it measures."""

import os
import subprocess
import unittest

from node import WAIT

TOP = os.environ["MILLRACE_TOP"]


class BenchStreams(unittest.TestCase):
    def test_small(self):
        env = {**os.environ, "EVENTS": "2000", "ENTRIES": "1000",
               "MILLRACE_STREAMS": os.path.join(os.environ["MILLRACE_OUT"], "millrace-streams")}
        done = subprocess.run(["bash", os.path.join(TOP, "bench/streams.sh")], env=env, timeout=2 * WAIT, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 0, done)
        self.assertRegex(done.stdout, r"events passed a sleeping listener +2000\n")
        self.assertRegex(done.stdout, r"failed +0\n")
        self.assertRegex(done.stdout, r"entries walked +1000 in ")
        self.assertRegex(done.stdout, r"queries beside the walk +p50 ")


if __name__ == "__main__":
    unittest.main()
