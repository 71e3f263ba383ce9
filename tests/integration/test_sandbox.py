#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a worker gives up: it tries what must be refused (builds for tests only, engine/node/sandbox_try.c), by plain
calls and through its ring; and a system that refuses one of the means is told of, or not gone on with. In these builds a
system call that the filter lacks ends the worker, so every other test with a real node is a test of the list too."""

import ctypes
import errno
import os
import re
import subprocess
import sys
import unittest
import unittest.mock

from node import BIN, WAIT, Node, wait_until

EACCES_OR_EPERM = {"EACCES", "EPERM"}
SANITIZED = bool(os.environ.get("MILLRACE_SANITIZE"))
TRIED = ["open a file", "open a directory", "make a file", "open the identity", "open another partition's folder",
         "socket", "connect", "execve", "ptrace", "kill", "signal the supervisor", "setuid", "unshare", "clone a thread",
         "code in memory", "another ring", "ring: openat", "ring: connect", "ring: socket", "ring: unlinkat",
         "ring: personality"]
# A build with a sanitizer has neither filter nor Landlock; the ring is restricted in any case.
RING = [name for name in TRIED if name.startswith("ring")]
CREATE_RULESET = 444  # on every processor
# As in libseccomp's header.
SCMP_ARCH_X86_64, SCMP_ARCH_AARCH64 = 0xC000003E, 0xC00000B7
SCMP_ACT_KILL_PROCESS, SCMP_ACT_ALLOW, SCMP_ACT_ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
NO_SUCH_CALL = -1  # below it: a call that this processor does not have
# Where it is set this whole test runs in a container of its own making, which has no Landlock.
CONTAINED = "SANDBOX_WITHOUT_LANDLOCK"
SECCOMP = ctypes.CDLL("libseccomp.so.2")
SECCOMP.seccomp_init.restype = ctypes.c_void_p


def filter_of(default):
    return ctypes.c_void_p(SECCOMP.seccomp_init(ctypes.c_uint32(default)))


def rule(context, action, number):
    return SECCOMP.seccomp_rule_add(context, ctypes.c_uint32(action), ctypes.c_int(number), ctypes.c_uint(0))


def leave_landlock():
    context = filter_of(SCMP_ACT_ALLOW)
    for name in (b"landlock_create_ruleset", b"landlock_add_rule", b"landlock_restrict_self"):
        if rule(context, SCMP_ACT_ERRNO | errno.ENOSYS, SECCOMP.seccomp_syscall_resolve_name(name)) != 0:
            raise AssertionError(name)
    if SECCOMP.seccomp_load(context) != 0:
        raise AssertionError("the filter is refused")


def landlock():
    """The version of its interface; below 1: there is none."""
    return ctypes.CDLL(None, use_errno=True).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1)


def tries(node):
    """Of partition 1's worker."""
    return dict(re.findall(r" partition 1: try: (.*): ([\w ]+)$", node.log(), re.MULTILINE))


class Sandbox(unittest.TestCase):
    def start(self, *options, **environment):
        """A node that is gone after the test."""
        node = Node(*options, partitions=2)
        self.addCleanup(node.__exit__)
        with unittest.mock.patch.dict(os.environ, environment, MR_SANDBOX_FILE=node.directory + "/identity",
                                      MR_SANDBOX_FOLDER=node.directory + "/partition-0002",
                                      MR_SANDBOX_MAKE=node.folder.name + "/made"):
            node.start()
        return node

    def test_what_a_worker_need_not_do_is_refused(self):
        kill = {} if SANITIZED else {"MR_SANDBOX_KILL": "1"}
        node = self.start(MR_SANDBOX_TRY="1", **kill)
        wait_until(lambda: "end" in tries(node), "the tries are over")
        found = tries(node)
        names = RING if SANITIZED else TRIED
        if landlock() < 1:
            names = [name for name in names if not name.startswith(("open", "make"))]
        for name in names + (["kill the supervisor", "kill the group", "kill another group"] if kill else []):
            with self.subTest(name):
                self.assertIn(found.get(name), EACCES_OR_EPERM)
        self.assertIn(found.get("abort of a child"), {"ABRT"} if SANITIZED else {"ABRT", "SEGV", "ILL", "TRAP"})
        self.assertEqual(node.stop(), 0)

    def test_without_a_sandbox_it_could(self):
        """Else the test above could not fail."""
        node = self.start("--sandbox", "off", MR_SANDBOX_TRY="1")
        wait_until(lambda: "end" in tries(node), "the tries are over")
        for name in ["open a file", "open a directory", "open the identity", "open another partition's folder",
                     "socket", "signal the supervisor", "code in memory"]:
            self.assertEqual(tries(node).get(name), "0", name)
        for name in RING:
            self.assertIn(tries(node).get(name), EACCES_OR_EPERM, name)  # in any case
        self.assertEqual(node.stop(), 0)

    def capabilities(self, node):
        """The worker's sets: name -> number. Without the bounding set where it is not the node's to change, and of no
        use."""
        with open(f"/proc/{node.worker(1)}/status", encoding="utf-8") as file:
            found = re.findall(r"^Cap(\w+):\s*(\w+)$", file.read(), re.MULTILINE)
        return {name: int(bits, 16) for name, bits in found if name != "Bnd" or os.geteuid() == 0}

    def test_no_capability_is_left(self):
        """Root's, which a node of root starts with."""
        node = self.start()
        found = self.capabilities(node)
        self.assertGreaterEqual(set(found), {"Eff", "Prm", "Inh", "Amb"})
        self.assertEqual(set(found.values()), {0}, found)
        # And nothing needs one: a log that grows, a snapshot, a successor that reads them.
        node.output("counter", "increment", "c", "1")
        node.output("snapshot")
        node.kill_worker(1)
        self.assertEqual(node.output("counter", "get", "c").strip(), b"1")
        self.assertEqual(self.capabilities(node), found)
        self.assertEqual(node.stop(), 0)

    @unittest.skipUnless(os.geteuid() == 0, "takes root")
    def test_without_a_sandbox_they_stay(self):
        node = self.start("--sandbox", "off")
        self.assertNotEqual(self.capabilities(node)["Eff"], 0)
        self.assertEqual(node.stop(), 0)

    def test_a_snapshot_is_written_inside(self):
        node = self.start("--sandbox", "required") if landlock() >= 1 else self.start()
        for n in range(3):
            node.output("counter", "increment", f"c{n}", "1")
        node.output("snapshot")
        node.kill_worker(1)
        wait_until(lambda: "recovered from the snapshot" in node.log(), "a worker has read it")
        self.assertEqual(node.stop(), 0)

    def test_capabilities_that_stay(self):
        node = self.start(MR_FAULT="drop_capabilities:1+:EPERM")
        self.assertIn("rights beyond those of the user stay", node.log())
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
                first = line if landlock() >= 1 else "files of others stay within reach"
                self.assertIn("--sandbox required: " + first, done.stderr.decode())

    @unittest.skipIf(os.environ.get(CONTAINED), "it is one")
    def test_in_a_container_without_landlock(self):
        """All of the above, where the kernel says that it has none; and it is not gone on without what is required."""
        done = subprocess.run([sys.executable, __file__], env=dict(os.environ, **{CONTAINED: "1"}), timeout=8 * WAIT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.assertEqual(done.returncode, 0, done.stdout.decode())

    @unittest.skipIf(SANITIZED or not os.environ.get(CONTAINED), "there may be Landlock")
    def test_without_landlock(self):
        node = self.start()
        self.assertIn("this kernel has no Landlock", node.log())
        node.output("counter", "increment", "c", "1")
        self.assertEqual(node.stop(), 0)
        done = subprocess.run([BIN, "serve", "--dir", node.directory, "--sandbox", "required"], timeout=WAIT,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--sandbox required: files of others stay within reach: this kernel has no Landlock",
                      done.stderr.decode())


class Names(unittest.TestCase):
    """The filter's list on processors that the tests do not run on."""

    @classmethod
    def setUpClass(cls):
        with open(os.environ["MILLRACE_TOP"] + "/engine/node/sandbox.c", encoding="utf-8") as file:
            cls.names = set(re.findall(r"SCMP_SYS\((\w+)\)", file.read()))

    def missing(self, processor):
        return {name for name in self.names
                if SECCOMP.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(processor), name.encode()) <= NO_SUCH_CALL}

    def test_names(self):
        """What arm64 lacks it has under another name, which is in the list as well."""
        self.assertGreater(len(self.names), 50)
        self.assertEqual(self.missing(SCMP_ARCH_X86_64), set())
        self.assertEqual(self.missing(SCMP_ARCH_AARCH64), {"poll"})
        self.assertIn("ppoll", self.names)

    def test_what_a_processor_lacks_is_passed_over(self):
        native = SECCOMP.seccomp_arch_native
        native.restype = ctypes.c_uint32
        for processor in (SCMP_ARCH_X86_64, SCMP_ARCH_AARCH64):
            context = filter_of(SCMP_ACT_KILL_PROCESS)
            if processor != native():
                self.assertEqual(SECCOMP.seccomp_arch_add(context, ctypes.c_uint32(processor)), 0)
                self.assertEqual(SECCOMP.seccomp_arch_remove(context, ctypes.c_uint32(native())), 0)
            # one that neither of the two has, by the number that the header gives it
            for name in [*self.names, "waitpid"]:
                number = SECCOMP.seccomp_syscall_resolve_name(name.encode())
                self.assertEqual(rule(context, SCMP_ACT_ALLOW, number), 0, name)
            SECCOMP.seccomp_release(context)


if __name__ == "__main__":
    if os.environ.get(CONTAINED):
        leave_landlock()
    unittest.main()
