#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a worker gives up: it tries what must be refused (builds for tests only, engine/node/sandbox_try.c), by plain
calls and through its ring; and a system that refuses one of the means is told of, or not gone on with. In these builds a
system call that the filter lacks ends the worker, so every other test with a real node is a test of the list too."""

import ctypes
import os
import re
import subprocess
import unittest
import unittest.mock

from node import BIN, WAIT, Node, wait_until

EACCES_OR_EPERM = {"EACCES", "EPERM"}
SANITIZED = bool(os.environ.get("MILLRACE_SANITIZE"))
TRIED = ["open a file", "open a directory", "make a file", "open the identity", "socket", "connect", "execve", "ptrace",
         "kill", "setuid", "unshare", "clone a thread", "code in memory", "another ring", "ring: openat",
         "ring: connect", "ring: socket", "ring: unlinkat", "ring: personality"]
# A build with a sanitizer has neither filter nor Landlock; the ring is restricted in any case.
RING = [name for name in TRIED if name.startswith("ring")]
CREATE_RULESET = 444  # on every processor


def landlock():
    """The version of its interface; below 1: there is none."""
    return ctypes.CDLL(None, use_errno=True).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)


def tries(node):
    return dict(re.findall(r"try: (.*): (\w+)$", node.log(), re.MULTILINE))


class Sandbox(unittest.TestCase):
    def start(self, *options, **environment):
        """A node that is gone after the test."""
        node = Node(*options)
        self.addCleanup(node.__exit__)
        with unittest.mock.patch.dict(os.environ, environment, MR_SANDBOX_FILE="/etc/hostname",
                                      MR_SANDBOX_MAKE=node.folder.name + "/made"):
            node.start()
        return node

    def test_what_a_worker_need_not_do_is_refused(self):
        kill = {"MR_SANDBOX_KILL": "1"} if landlock() >= 6 and not SANITIZED else {}
        node = self.start(MR_SANDBOX_TRY="1", **kill)
        wait_until(lambda: "end" in tries(node), "the tries are over")
        found = tries(node)
        names = RING if SANITIZED else TRIED
        if landlock() < 1:
            names = [name for name in names if not name.startswith(("open", "make"))]
        for name in names + (["kill the supervisor"] if kill else []):
            with self.subTest(name):
                self.assertIn(found.get(name), EACCES_OR_EPERM)
        self.assertEqual(node.stop(), 0)

    def test_without_a_sandbox_it_could(self):
        """Else the test above could not fail."""
        node = self.start("--sandbox", "off", MR_SANDBOX_TRY="1")
        wait_until(lambda: "end" in tries(node), "the tries are over")
        for name in ["open a file", "open a directory", "socket", "code in memory"]:
            self.assertEqual(tries(node).get(name), "0", name)
        for name in RING:
            self.assertIn(tries(node).get(name), EACCES_OR_EPERM, name)  # in any case
        self.assertEqual(node.stop(), 0)

    def test_a_snapshot_is_written_inside(self):
        node = self.start("--sandbox", "required") if landlock() >= 1 else self.start()
        for n in range(3):
            node.output("counter", "increment", f"c{n}", "1")
        node.output("snapshot")
        node.kill_worker(1)
        wait_until(lambda: "recovered from the snapshot" in node.log(), "a worker has read it")
        self.assertEqual(node.stop(), 0)

    @unittest.skipIf(SANITIZED, "a build with a sanitizer asks for neither")
    def test_a_system_that_refuses(self):
        faults = {"landlock_create_ruleset:1+:ENOSYS": "files of others stay within reach",
                  "landlock_restrict_self:1+:EPERM": "files of others stay within reach",
                  "seccomp:1+:EINVAL": "system calls stay unfiltered"}
        for fault, line in faults.items():
            with self.subTest(fault):
                node = self.start(MR_FAULT=fault)
                self.assertIn(line, node.log())
                node.output("counter", "increment", "c", "1")
                self.assertEqual(node.stop(), 0)
                done = subprocess.run([BIN, "serve", "--dir", node.directory, "--sandbox", "required"], timeout=WAIT,
                                      env=dict(os.environ, MR_FAULT=fault), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
                self.assertEqual(done.returncode, 1)
                self.assertIn("--sandbox required: " + line, done.stderr.decode())


if __name__ == "__main__":
    unittest.main()
