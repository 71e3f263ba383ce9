#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The inputs that fuzzing has found worth keeping (tests/fuzz/seeds), and those that once failed, run again by whatever
compiler builds the tests; and each target's planted fault is found by some of them, so that they reach deep."""

import os
import subprocess
import unittest

OUT = os.environ["MILLRACE_OUT"]
FUZZ = os.path.join(os.environ["MILLRACE_TOP"], "tests", "fuzz")
TARGETS = sorted(name[len("fuzz_"):-len(".c")] for name in os.listdir(FUZZ)
                 if name.startswith("fuzz_") and name.endswith(".c"))


def seeds(target):
    folder = os.path.join(FUZZ, "seeds", target)
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]


def replay(target, inputs, **environment):
    return subprocess.run([os.path.join(OUT, "tests", "fuzz", "replay_" + target), *inputs], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors="replace", check=False,
                          env=dict(os.environ, **environment))


class Seeds(unittest.TestCase):
    def test_all_run(self):
        self.assertEqual(len(TARGETS), 7)
        for target in TARGETS:
            with self.subTest(target):
                run = replay(target, seeds(target))
                self.assertEqual(run.returncode, 0, run.stderr[-2000:])
                self.assertEqual(run.stdout, f"{len(seeds(target))} inputs\n")
                self.assertGreater(len(seeds(target)), 10)

    def test_planted_faults_are_found(self):
        for target in TARGETS:
            with self.subTest(target):
                run = replay(target, seeds(target), FUZZ_PLANTED="1")
                self.assertNotEqual(run.returncode, 0, target)
                self.assertRegex(run.stderr, "does not hold|assertion failed")


if __name__ == "__main__":
    unittest.main()
