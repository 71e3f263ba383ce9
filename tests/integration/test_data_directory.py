#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The data directory of a real node: who may use it, and what happens when its bytes are not what was written."""

import glob
import os
import random
import re
import select
import shutil
import signal
import subprocess
import unittest

from node import BIN, WAIT, Node, millrace, wait_until


def refused(*arguments):
    """A `serve` that must not come up; gives its exit status and what it said."""
    done = subprocess.run([BIN, "serve", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=WAIT, check=False)
    if b"ready" in done.stdout:
        raise AssertionError(f"it came up: {arguments}")
    return done.returncode, done.stderr.decode()


def name_in(node, partition):
    """The name of a counter that lives in this partition."""
    for i in range(100):
        before = [p["applied_index"] for p in node.settled()["partitions"]]
        node.output("counter", "set", f"c{i}", "0")
        after = [p["applied_index"] for p in node.settled()["partitions"]]
        if after[partition - 1] != before[partition - 1]:
            return f"c{i}"
    raise AssertionError("no name lives there")


def lives(pid):
    """Is it there, and not merely a zombie that nobody has waited for?"""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class WhoMayUseIt(unittest.TestCase):
    def test_a_second_node(self):
        with Node(partitions=2) as node:
            # It waits for the directory some seconds; meanwhile the first one serves.
            with subprocess.Popen([BIN, "serve", "--dir", node.directory, "--socket", node.folder.name + "/second"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as second:
                counted = 0
                while second.poll() is None and counted < 10000:
                    counted += 1
                    self.assertEqual(node.output("counter", "increment", "x"), b"%d\n" % counted)
                    select.select([second.stdout], [], [], 0.1)
                output, error = second.communicate(timeout=WAIT)
            self.assertEqual((second.returncode, output), (1, b""), error)
            self.assertIn(f"pid {node.process.pid}", error.decode())
            self.assertIn(node.directory, error.decode())
            self.assertFalse(os.path.exists(node.folder.name + "/second"))
            self.assertEqual(node.output("counter", "get", "x"), b"%d\n" % counted)
            self.assertEqual([p["restarts"] for p in node.status()["partitions"]], [0, 0])

    def test_a_long_path(self):
        """As long as the kernel takes it, every part of the node does."""
        node = Node()
        above = node.folder.name + ("/" + "a" * 100) * 20
        os.makedirs(above)
        node.directory, node.socket = above + "/data", node.folder.name + "/socket"
        node.options += ["--socket", node.socket]
        with node:
            node.output("counter", "set", "x", "5")
            node.output("snapshot")
            node.output("counter", "increment", "x")
            node.kill()
            node.wait_gone()
            node.start()
            self.assertEqual(node.output("counter", "get", "x"), b"6\n")
            self.assertEqual(node.stop(), 0)
            self.assertEqual(millrace("verify", node.directory).returncode, 0)

    def test_other_partitions_or_another_durability(self):
        with Node("--durability", "sync", partitions=2) as node:
            node.output("counter", "increment", "x")
            self.assertEqual(node.stop(), 0)
            for wrong, says in [(["--partitions", "3"], ["--partitions 3", "2 partitions"]),
                                (["--partitions", "1"], ["--partitions 1", "2 partitions"]),
                                (["--durability", "memory"], ["--durability memory"])]:
                status, error = refused("--dir", node.directory, *wrong)
                self.assertNotIn(status, (0, 3), wrong)
                for text in [*says, node.directory]:
                    self.assertIn(text, error, wrong)
                self.assertFalse(os.path.exists(node.socket))
            # sync and async are two ways of writing the same log
            node.options = ["--cpus", "none", "--segment-bytes", "4M", "--durability", "async"]
            node.start()
            self.assertEqual(node.output("counter", "increment", "x"), b"2\n")
            self.assertEqual(len(node.status()["partitions"]), 2)
            self.assertEqual(node.stop(), 0)

    def test_a_memory_directory_is_not_for_the_disk(self):
        with Node("--durability", "memory") as node:
            self.assertEqual(node.stop(), 0)
            status, error = refused("--dir", node.directory, "--durability", "sync")
            self.assertNotIn(status, (0, 3))
            self.assertIn("memory", error)
            self.assertIn(node.directory, error)
            node.start()
            self.assertEqual(node.stop(), 0)

    def test_the_supervisor_s_death_leaves_nothing_in_the_way(self):
        with Node(partitions=2) as node:
            for n in range(1, 6):
                self.assertEqual(node.output("counter", "increment", "x"), b"%d\n" % n)
                workers = [node.worker(p) for p in (1, 2)]
                node.kill()
                wait_until(lambda: not any(lives(pid) for pid in workers), "the workers dead")
                self.assertTrue(os.path.exists(node.socket))  # stale
                node.start()
            self.assertEqual(node.stop(), 0)
            self.assertFalse(os.path.exists(node.socket))


class Damage(unittest.TestCase):
    """A node with 2 partitions, stopped in order, of which copies are damaged."""

    @classmethod
    def setUpClass(cls):
        cls.node = Node("--segment-bytes", "256K", "--batch-bytes", "8K", "--max-payload", "8K", partitions=2)
        cls.addClassCleanup(cls.node.__exit__)
        cls.node.start()
        cls.names = [name_in(cls.node, 1), name_in(cls.node, 2)]
        for n in range(1, 41):
            for name in cls.names:
                cls.node.output("counter", "increment", name)
        if cls.node.stop() != 0:
            raise AssertionError(cls.node.log())
        cls.pristine = cls.node.folder.name + "/pristine"
        for path in glob.glob(cls.node.directory + "/*/snapshot-*"):
            os.remove(path)  # all is to be read from the log
        os.rename(cls.node.directory, cls.pristine)

    def setUp(self):
        shutil.copytree(self.pristine, self.node.directory)

    def tearDown(self):
        if self.node.process is not None:
            self.node.kill()
        wait_until(self._removed, "the directory removed")

    def _removed(self):
        try:
            shutil.rmtree(self.node.directory)
        except OSError:
            return False
        return True

    def segments(self, partition):
        """Paths of the partition's segments that hold batches, the fullest first."""
        paths = []
        for folder in sorted(os.listdir(self.node.directory)):
            if re.search(rf"\b0*{partition}$", folder.replace("-", " ").replace("partition", "partition ")):
                paths += glob.glob(f"{self.node.directory}/{folder}/segment-*")
        self.assertTrue(paths, os.listdir(self.node.directory))
        return sorted(paths, key=lambda path: -self.content(path))

    @staticmethod
    def content(path):
        with open(path, "rb") as file:
            return len(file.read().rstrip(b"\0"))

    @staticmethod
    def flip(path, offset):
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0x10]))

    def start(self):
        """As Node.start(), for a node of which not every partition will serve. Gives the partitions' states."""
        node = self.node
        with open(node.folder.name + "/log", "ab") as log:
            node.process = subprocess.Popen([BIN, "serve", "--dir", node.directory, *node.options],
                                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        self.assertTrue(select.select([node.process.stdout], [], [], WAIT)[0], node.log())
        self.assertRegex(node.process.stdout.readline(), b"^ready ")

        def settled():
            partitions = node.status()["partitions"]
            return all(p["state"] in ("serving", "stopped") for p in partitions) and partitions
        return wait_until(settled, "the partitions serve or are stopped")

    def value(self, name):
        return int(self.node.output("counter", "get", name))

    def test_no_damage(self):
        self.assertEqual([p["state"] for p in self.start()], ["serving", "serving"])
        self.assertEqual([self.value(name) for name in self.names], [40, 40])

    def test_a_flipped_byte_stops_its_partition_alone(self):
        segment = self.segments(1)[0]
        self.flip(segment, 3 * 4096 + 24)  # the checksum of an early batch
        first, second = self.start()
        self.assertEqual((first["state"], second["state"]), ("stopped", "serving"), self.node.log())
        self.assertIn(os.path.basename(segment), first["reason"])
        self.assertRegex(first["reason"], r"offset \d+")

        plain = self.node.run("status")
        self.assertEqual(plain.returncode, 1)
        self.assertIn("partition 1: stopped (" + first["reason"], plain.stdout.decode())
        self.assertIn("partition 2: serving", plain.stdout.decode())
        self.assertEqual(self.node.run("status", "--json").returncode, 1)

        for words in [["get"], ["increment"]]:
            done = self.node.run("counter", *words, self.names[0])
            self.assertEqual((done.returncode, done.stdout), (1, b""), done)
            self.assertRegex(done.stderr.decode(), "^INTERNAL: ")
            self.assertIn(os.path.basename(segment), done.stderr.decode())
            self.assertRegex(done.stderr.decode(), r"offset \d+")
        self.assertEqual(int(self.node.output("counter", "increment", self.names[1])), 41)

        # nothing is repaired by starting again, and nothing made worse
        self.assertEqual(self.node.stop(), 0)
        again = self.start()
        self.assertEqual([p["state"] for p in again], ["stopped", "serving"])
        self.assertEqual(again[0]["reason"], first["reason"])
        self.assertEqual(self.value(self.names[1]), 41)
        self.assertEqual(self.node.stop(), 0)

    def test_a_worker_that_dies_over_damage_is_replaced_by_one_that_says_so(self):
        self.flip(self.segments(1)[0], 3 * 4096 + 24)
        reason = self.start()[0]["reason"]
        before = self.node.worker(1)
        os.kill(before, signal.SIGKILL)
        now = wait_until(lambda: (p := self.node.status()["partitions"][0])["pid"] not in (0, before) and p, "another")
        self.assertEqual((now["state"], now["reason"]), ("stopped", reason))
        self.assertRegex(self.node.run("counter", "get", self.names[0]).stderr.decode(), "^INTERNAL: ")
        self.assertEqual(self.node.stop(), 0)

    def test_wherever_a_byte_is_flipped_no_wrong_value_is_told(self):
        source = random.Random(1)
        stopped = 0
        for _ in range(12):
            segment = source.choice([path for path in self.segments(1) if self.content(path) > 4096] or
                                    self.segments(1)[:1])
            with open(segment, "rb") as file:  # mostly zeros up to a block's end, which nobody reads
                offset = source.choice([at for at, byte in enumerate(file.read()) if byte != 0])
            self.flip(segment, offset)
            first, second = self.start()
            self.assertEqual(second["state"], "serving")
            self.assertEqual(self.value(self.names[1]), 40)
            if first["state"] == "serving":
                self.assertEqual(self.value(self.names[0]), 40, (segment, offset, self.node.log()))
            else:
                stopped += 1
                self.assertIn("segment-", first["reason"])
            self.assertEqual(self.node.stop(), 0)
            self.tearDown()
            self.setUp()
        self.assertGreater(stopped, 6)  # what can be flipped unnoticed is little: the last batch, which is empty


if __name__ == "__main__":
    unittest.main()
