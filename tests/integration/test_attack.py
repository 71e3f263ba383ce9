#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Some thousand rounds of the attack (`make attack` runs more), in `memory` and in `sync`: all is well. With a fault
planted in the node it is not."""

import os
import re
import subprocess
import sys
import unittest

from node import WAIT

ATTACK = os.path.join(os.environ["MILLRACE_OUT"], "tests", "attack", "attack")


def attack(*options):
    """Exit status and what was said."""
    done = subprocess.run([ATTACK, *map(str, options)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=3 * WAIT, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


class Attack(unittest.TestCase):
    def test_usage(self):
        self.assertEqual(attack("--rounds", "many")[0], 2)
        self.assertEqual(attack("--what")[0], 2)
        for words, said in ((("--wait", 4294968), "4294968 is too large; allowed is at most 86400"),
                            (("--wait", 18446744073709552), "is too large"),
                            (("--turn", 4294967297), "4294967297 is too large"),
                            (("--bout", 2**64 - 1), "is too large"),
                            (("--rounds", 2**64), "18446744073709551616 is too large"),
                            (("--turn", 0), "usage: attack"), (("--bout", 0), "usage: attack")):
            with self.subTest(words):
                status, output = attack(*words, "--rounds", 1)
                self.assertEqual(status, 2, output)
                self.assertIn(said, output)

    @unittest.skipUnless(os.geteuid() == 0, "takes root, for the attackers are to be of another user")
    def test_some_thousand_rounds(self):
        status, said = attack("--rounds", 4000, "--bout", 2000, "--turn", 500, "--table")
        self.assertEqual(status, 0, said)
        self.assertIn("4000 rounds of seed 1 from 1 on", said)
        self.assertIn("all is well", said)
        self.assertRegex(said, r"memory: the honest client, \d+ increments, all exact")
        self.assertRegex(said, r"sync: the honest client, \d+ increments, all exact")
        self.assertRegex(said, r"4000 attacks, \d+ channels opened, [1-9]\d* closed by the node with the right reason")
        for begun, name in re.findall(r"^ *(\d+)  (.*?)  +\d+ channels closed", said, re.MULTILINE):
            self.assertGreater(int(begun), 0, name)  # none is left out

    @unittest.skipUnless(os.geteuid() == 0, "takes root, for the attackers are to be of another user")
    def test_planted_faults_are_found(self):
        for fault, only, rounds in (("LENGTH_READ_TWICE", "length jumps", 2000),
                                    ("CHECKED_BEFORE_COPIED", "body rewritten", 1000),
                                    ("TAIL_BELIEVED", "tail", 1000), ("BELL_GIVEN_AWAY", "bell", 200)):
            if fault != "TAIL_BELIEVED" and len(os.sched_getaffinity(0)) < 2:
                print(f"SKIPPED {fault}: it takes somebody who writes while the worker reads, on another core")
                continue
            with self.subTest(fault):
                options = ["--turn", 500, "--wait", 10, "--only", only]
                status, said = attack("--rounds", 8000, *options, "--planted", fault)
                self.assertEqual(status, 1, said)
                self.assertRegex(said, "has died|is stopped|is not closed|takes nothing more|TIMEOUT")
                self.assertIn(f"SEED=1 FROM=1 ROUNDS=8000 BOUT=50000 ATTACK_OPTIONS='--planted {fault} --only", said)
                # It is the fault that was found: without it the same attacks come to nothing in the same time.
                status, said = attack("--rounds", rounds, *options)
                self.assertEqual(status, 0, said)
                self.assertIn("all is well", said)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=1))
