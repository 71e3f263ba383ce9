#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`millrace snapshot`, what `millrace status` says of snapshots, and a start from damaged ones."""

import glob
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from node import BIN, WAIT, Node, millrace, wait_until


class Command(unittest.TestCase):
    def test_all_partitions_and_one(self):
        with Node(partitions=2) as node:
            self.assertEqual(node.output("snapshot").decode(),
                             "partition 1: index 0, 0 bytes, 0.00 s\npartition 2: index 0, 0 bytes, 0.00 s\n")
            for n in range(20):
                node.output("counter", "increment", f"c{n}")
            node.settled()
            lines = node.output("snapshot").decode().splitlines()
            applied = [partition["applied_index"] for partition in node.status()["partitions"]]
            self.assertEqual(len(lines), 2)
            for number, line in enumerate(lines, 1):
                found = re.fullmatch(r"partition (\d): index (\d+), (\d+) bytes, \d+\.\d\d s", line)
                self.assertEqual([int(part) for part in found.groups()[:2]], [number, applied[number - 1]])
                self.assertGreater(int(found.group(3)), 0)
            one = json.loads(node.output("snapshot", "--partition", "2", "--json"))
            self.assertEqual((one["partition"], one["index"], one["duration_ns"]), (2, applied[1], 0))  # it was there
            for partition in node.status()["partitions"]:
                self.assertEqual(partition["snapshot_index"], partition["applied_index"])
                self.assertGreater(partition["snapshot_bytes"], 0)
                self.assertGreater(partition["snapshot_time_ns"], 0)
                self.assertLessEqual(partition["snapshot_time_ns"], partition["time_ns"])
            self.assertRegex(node.output("status").decode(),
                             rf"partition 1: .*, snapshot of {applied[0]} \(\d+ bytes, \d+ s old\), ")

    def test_mistakes(self):
        with Node() as node:
            for words, status, says in [(["x"], 2, "no operands"), (["--partition", "0"], 2, "--partition"),
                                        (["--partition", "2"], 1, "INVALID: "), (["--ttl", "1s"], 2, "--ttl")]:
                done = node.run("snapshot", *words)
                self.assertEqual((done.returncode, done.stdout), (status, b""), done)
                self.assertIn(says, done.stderr.decode())
            node.stop()
            self.assertEqual(node.run("snapshot").returncode, 3)
            self.assertIn("millrace snapshot", millrace("snapshot", "--help").stdout.decode())

    @unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
    def test_another_user_is_refused(self):
        folder = tempfile.mkdtemp(prefix="mr-open-", dir="/tmp")  # ours in TMPDIR are closed to others
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o755)
        shutil.copy(BIN, folder + "/millrace")
        node = Node("--socket", folder + "/socket")
        node.socket = folder + "/socket"
        with node:
            os.chmod(node.socket, 0o666)
            done = subprocess.run([folder + "/millrace", "snapshot", "--socket", node.socket], user=65534, group=65534,
                                  extra_groups=[], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                                  timeout=WAIT)
            self.assertEqual((done.returncode, done.stdout), (1, b""), done)
            self.assertRegex(done.stderr.decode(), "^UNAUTHORIZED: .*root")

    def test_one_that_cannot_be_written(self):
        with Node() as node:
            node.output("counter", "increment", "c")
            folder = glob.glob(node.directory + "/partition-*")[0]
            before = node.status()["partitions"][0]
            os.mkdir(folder + "/snapshot-new-1")  # in the way of the new file, also for root; 1 is the worker's epoch
            done = node.run("snapshot")
            self.assertEqual((done.returncode, done.stdout), (1, b""), done)
            self.assertRegex(done.stderr.decode(), "^UNAVAILABLE: .*snapshot-new-")
            self.assertIn("warn  partition 1: no snapshot of index", node.log())
            self.assertEqual(node.status()["partitions"][0]["pid"], before["pid"])
            self.assertEqual(node.output("counter", "increment", "c"), b"2\n")
            os.rmdir(folder + "/snapshot-new-1")
            node.output("snapshot")


class Damage(unittest.TestCase):
    def damaged(self, node, paths, offset=80):
        for path in paths:
            with open(path, "r+b") as file:
                file.seek(offset)
                byte = file.read(1)[0]
                file.seek(offset)
                file.write(bytes([byte ^ 4]))

    def snapshots(self, node):
        return sorted(glob.glob(node.directory + "/partition-*/snapshot-*"))

    def test_the_newest_is_passed_over(self):
        with Node() as node:
            for _ in range(3):
                node.output("counter", "increment", "c")
                node.output("snapshot")
            self.assertEqual(node.stop(), 0)
            found = self.snapshots(node)
            self.assertEqual(len(found), 2)
            self.damaged(node, found[1:])
            node.start()
            self.assertEqual(node.output("counter", "get", "c"), b"3\n")
            self.assertRegex(node.log(), "warn  partition 1: passed over a snapshot that cannot be believed: .*"
                             + os.path.basename(found[1]) + ".* offset 0")
            # and the next one takes its place
            node.output("counter", "increment", "c")
            node.output("snapshot")
            self.assertIn(found[0], self.snapshots(node))
            self.assertNotIn(found[1], self.snapshots(node))
            self.assertEqual(node.stop(), 0)

    def test_half_of_it_is_sound(self):
        with Node() as node:
            for n in range(70):
                node.output("map", "put", "m", f"k{n}", str(n) * 50000)
            node.output("snapshot")
            node.output("map", "put", "m", "k69", "later")
            node.output("snapshot")
            self.assertEqual(node.stop(), 0)
            found = self.snapshots(node)
            self.assertGreater(os.path.getsize(found[1]), 6 << 20)
            self.damaged(node, found[1:], (3 << 20) + 80)  # met when much of the state is there
            node.start()
            self.assertRegex(node.log(), "warn  partition 1: passed over a snapshot that cannot be believed: .*"
                             + os.path.basename(found[1]) + " is damaged at offset 3145728: ")
            self.assertEqual(node.output("map", "size", "m"), b"70\n")
            self.assertIn(b"later", node.output("map", "get", "m", "k69"))
            self.assertIn(b"3" * 50000, node.output("map", "get", "m", "k3"))
            self.assertEqual(node.stop(), 0)

    def test_without_the_log_s_beginning(self):
        with Node("--segment-bytes", "256K", "--batch-bytes", "8K", "--max-payload", "8K") as node:
            raw = "x" * 5000
            for n in range(6):
                for _ in range(20):
                    node.output("map", "put", "m", f"k{n}", raw)
                node.output("snapshot")
            self.assertEqual(node.stop(), 0)
            found = self.snapshots(node)
            self.damaged(node, found)
            node.start(serving=False)
            first = wait_until(lambda: (p := node.status()["partitions"][0])["state"] == "stopped" and p, "stopped")
            self.assertIn("no snapshot can be believed", first["reason"])
            self.assertIn(os.path.basename(found[-1]), first["reason"])
            done = node.run("map", "get", "m", "k1")
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr.decode(), "^INTERNAL: ")
            self.assertEqual(node.run("snapshot").returncode, 1)


if __name__ == "__main__":
    unittest.main()
