#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The simulator (tests/sim): 300 seeds pass, what a seed does follows from it alone, and each planted fault is found
within 20,000 seeds."""

import os
import re
import subprocess
import unittest

SIM = os.path.join(os.environ["MILLRACE_OUT"], "tests", "sim", "sim")
FAULTS = ["ANSWER_BEFORE_FLUSH", "NO_DIRECTORY_SYNC", "WRONG_TORN_RULE", "HEAD_MOVED_EARLY", "NUMBER_FORGOTTEN",
          "STALE_BATCH_BELIEVED", "NO_EPOCH_AFTER_FAILURE"]
# They take a client that breaks the rules (test_attack.py plants them), wake-ups that take long (test_bells.c), keys that
# collide (test_collisions.c), or many clients (test_flat.c).
OTHERS = ["LENGTH_READ_TWICE", "CHECKED_BEFORE_COPIED", "TAIL_BELIEVED", "BELL_GIVEN_AWAY", "BELL_UNPRICED",
          "SEED_IGNORED", "DESCRIPTOR_LEFT", "MAPPING_LEFT"]
SEEDS = 300
# Each was wrong once, the node or the simulator itself; as long as a seed chooses the same, it walks through it again.
ONCE_WRONG = [1005424, 1691000, 1763011, 1795653, 70001754, 81015150]


def sim(*arguments):
    return subprocess.run([SIM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)


@unittest.skipIf("thread" in os.environ.get("MILLRACE_SANITIZE", ""), "it has one thread")
class Simulator(unittest.TestCase):
    def test_seeds(self):
        run = sim("--seeds", SEEDS)
        self.assertEqual(run.returncode, 0, run.stdout)
        counts = re.search(r"(\d+) seeds in .*?: (\d+) entries, (\d+) answers, (\d+) recoveries, (\d+) crashes, (\d+) "
                           r"power cuts, (\d+) snapshots, (\d+) requests refused, damage reported (\d+) times, "
                           r"(\d+) outputs in shared frames",
                           run.stdout)
        self.assertIsNotNone(counts, run.stdout)
        numbers = [int(number) for number in counts.groups()]
        self.assertEqual(numbers[0], SEEDS)
        for number in numbers:  # nothing of it is left out
            self.assertGreater(number, 0, run.stdout)

    def test_seeds_that_were_wrong_once(self):
        for seed in ONCE_WRONG:
            with self.subTest(seed):
                run = sim("--seeds", 1, "--from", seed)
                self.assertEqual(run.returncode, 0, run.stdout)

    def test_a_seed_is_the_same_every_time(self):
        for seed in (1, 77, 4280):
            first = sim("--seeds", 1, "--from", seed, "--verbose").stdout
            again = sim("--seeds", 1, "--from", seed, "--verbose").stdout
            trace = [line for line in first.splitlines() if " ms  " in line]
            self.assertGreater(len(trace), 30)
            self.assertEqual(trace, [line for line in again.splitlines() if " ms  " in line])

    def test_planted_faults_are_found(self):
        for fault in FAULTS:
            with self.subTest(fault):
                run = sim("--seeds", 20000, "--plant", fault)
                self.assertEqual(run.returncode, 0, run.stdout)
                self.assertIn(f"{fault}: found by seed", run.stdout)

    def test_the_list_of_faults_is_whole(self):
        with open(os.path.join(os.environ["MILLRACE_TOP"], "ipc", "planted.h"), encoding="utf-8") as header:
            planted = re.findall(r"(?m)^ +PLANTED_([A-Z_]+)", header.read())
        self.assertEqual(sorted(set(planted) - {"NOTHING", "SIMULATED", "COUNT"}), sorted(FAULTS + OTHERS))


if __name__ == "__main__":
    unittest.main()
