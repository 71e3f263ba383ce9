#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A few crash rounds (`make crash` runs more): each is well. With a fault planted in the node one of them is not."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from node import WAIT

CRASH = os.path.join(os.environ["MILLRACE_OUT"], "tests", "crash", "crash")


def crash(*options):
    """Exit status and what was said."""
    done = subprocess.run([CRASH, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=3 * WAIT, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


class Crash(unittest.TestCase):
    def test_five_rounds(self):
        # Not in TMPDIR, which goes with this test: what a failed round leaves is to be looked at.
        folder = tempfile.mkdtemp(prefix="millrace-crash-", dir="/tmp")
        status, said = crash("--rounds", "5", "--folder", folder)
        self.assertEqual(status, 0, said)
        self.assertIn("5 of 5 rounds of seed 1 from 1 on, 0 failed", said)
        shutil.rmtree(folder)

    def test_a_planted_fault_is_found(self):
        with tempfile.TemporaryDirectory(prefix="millrace-crash-") as folder:
            status, said = crash("--rounds", "40", "--seed", "2", "--wait", "5", "--workers-only", "--planted",
                                 "HEAD_MOVED_EARLY", "--folder", folder)
        self.assertEqual(status, 1, said)
        self.assertRegex(said, r"round \d+ of seed 2 FAILED")
        self.assertIn("make crash SEED=2 FROM=", said)
        self.assertIn("--planted HEAD_MOVED_EARLY", said)

    def test_usage(self):
        self.assertEqual(crash("--rounds", "many")[0], 2)
        self.assertEqual(crash("--what")[0], 2)
        for words, said in ((("--wait", "4294968"), "4294968 is too large; allowed is at most 86400"),
                            (("--jobs", "4294967297"), "4294967297 is too large; allowed is at most 16"),
                            (("--from", "18446744073709551615"), "is too large"), (("--jobs", "0"), "usage: crash")):
            with self.subTest(words):
                status, output = crash(*words, "--rounds", "0")
                self.assertEqual(status, 2, output)
                self.assertIn(said, output)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=1))
