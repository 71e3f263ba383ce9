#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""bench/instructions.sh finds a command that has come to cost over 3 % more, and lets less pass: with a valgrind that
counts what the test says. (`make bench-instructions` runs it with the real one.)"""

import os
import stat
import subprocess
import tempfile
import unittest

SCRIPT = os.path.join(os.environ["MILLRACE_TOP"], "bench", "instructions.sh")
ROWS = [(operation, depth) for operation in ("increment", "put", "get", "events") for depth in (1, 100)]


class Instructions(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.accepted = os.path.join(self.folder, "accepted.txt")

    def run_script(self, per_command, **more):
        valgrind = os.path.join(self.folder, "valgrind")
        with open(valgrind, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\necho '==1== Collected : {per_command * 20000}' >&2\n")
        os.chmod(valgrind, stat.S_IRWXU)
        env = dict(os.environ, PATH=self.folder + ":" + os.environ["PATH"], ACCEPTED=self.accepted, CC="gcc",
                   MILLRACE_INSTRUCTIONS="/nonexistent", **more)
        return subprocess.run(["bash", SCRIPT], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              check=False, timeout=60)

    def accept(self, per_command):
        with open(self.accepted, "w", encoding="utf-8") as file:
            file.writelines(f"{operation} {depth} {per_command:.1f}\n" for operation, depth in ROWS)

    def test_a_rise_fails(self):
        self.accept(5000)
        done = self.run_script(5151)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertIn("MORE", done.stdout)
        self.assertIn("+3.02%", done.stdout)

    def test_what_is_within_passes(self):
        self.accept(5000)
        for figure in (5000, 5149, 4000):
            done = self.run_script(figure)
            self.assertEqual(done.returncode, 0, done.stdout)

    def test_figures_of_other_rows_do_not_pass(self):
        with open(self.accepted, "w", encoding="utf-8") as file:
            file.write("increment 1 5000.0\n")
        self.assertNotEqual(self.run_script(5000).returncode, 0)

    def test_without_accepted_figures_it_says_so(self):
        done = self.run_script(5000)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("No figures have been accepted", done.stdout)
        done = self.run_script(5000, UPDATE="1")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(self.run_script(5100).returncode, 0)
        self.assertNotEqual(self.run_script(5200).returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
