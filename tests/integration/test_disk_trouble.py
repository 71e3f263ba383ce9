#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A node on a disk in trouble, on real file systems: full, failing, read-only. Writes are answered UNAVAILABLE with the
reason, reads go on, what was acknowledged is there afterwards and what was refused is not, and when the disk is well
again the node goes on by itself."""

import os
import re
import shutil
import signal
import subprocess
import unittest

import mounts
from atomix.multiraft.map.v1 import map_pb2
from atomix.multiraft.v1 import fsm_pb2

from node import BIN, WAIT, Node, Raw, millrace, wait_until
from protocol import MAP, RawTest, create_service, open_session, query

OPTIONS = ["--segment-bytes", "256K", "--batch-bytes", "8K", "--max-payload", "8K", "--ring-bytes", "64K"]
VALUE = "v" * 6000


class OnDisk(Node):
    """A node whose data lies on a file system of its own; its log and socket do not."""

    def __init__(self, disk, *options):
        super().__init__(*OPTIONS, *options)
        self.disk = disk
        self.directory = disk.path + "/data"
        self.socket = self.folder.name + "/socket"
        self.options += ["--socket", self.socket]

    def start(self, serving=True):
        super().start(serving)

    def start_alone(self):
        """Without waiting for anything."""
        with open(self.folder.name + "/log", "ab") as log:
            self.process = subprocess.Popen([BIN, "serve", "--dir", self.directory, *self.options],
                                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)


class Account:
    """What was put into a map, and what became of it. Puts come from a client of their own each. What is there is read
    in a session that was opened while all was well: a new one would have to be logged."""

    def __init__(self, test, node):
        self.test, self.node = test, node
        self.kept, self.refused, self.unknown = set(), set(), set()
        self.count = 0
        self.reasons = []
        self.raw = None
        with Raw(node) as raw:
            self.session = test.command_output(raw.ask(open_session(seconds=3600))).open_session.session_id
            self.service = test.command_output(raw.ask(create_service(self.session, MAP, "m"))) \
                .session_command.create_service.service_id

    def put(self, patience="1500ms"):
        """True: acknowledged. On a disk in trouble not every answer comes, so that none is waited for long."""
        self.count += 1
        key = f"key{self.count}"
        done = self.node.run("map", "put", "m", key, VALUE, "--namespace", "raw", "--timeout", patience)
        if done.returncode == 0:
            self.kept.add(key)
            return True
        text = done.stderr.decode()
        if text.startswith("UNAVAILABLE: "):
            self.refused.add(key)
            self.reasons.append(text)
        else:
            self.unknown.add(key)
            self.test.assertRegex(text, "^(TIMEOUT|NO_NODE): ")
        return False

    def must_put(self):
        """All is well, if slow."""
        self.test.assertTrue(self.put(f"{WAIT:g}s"), self.node.log())

    def put_until_refused(self, most=400):
        """While a write that failed cannot be made undone, nothing is said of what stood in it: that is not known."""
        for _ in range(most):
            if not self.put() and self.refused:
                return
        raise AssertionError(f"{most} puts, and nothing was refused: {self.node.log()}")

    def connect(self):
        """A channel on which reading is to go on; it lasts as long as the node."""
        self.raw = Raw(self.node)
        self.test.addCleanup(self.raw.__exit__)
        self.check()

    def there(self):
        raw = self.raw if self.raw is not None and self.raw.process.poll() is None else Raw(self.node)
        entries = {}
        for line in raw.ask(query(self.session, self.service, "Entries")):
            status, body = line.split(" ")[:2]
            self.test.assertEqual(status, "OK", line[:300])
            output = fsm_pb2.PartitionQueryOutput.FromString(bytes.fromhex(body)).query.session_query.service_query
            entry = map_pb2.EntriesOutput.FromString(output.operation.payload).entry
            if entry.key:  # the last output may be empty
                entries[entry.key] = entry.value.value
        if raw is not self.raw:
            raw.__exit__()
        return entries

    def check(self):
        """Everything acknowledged is there, nothing refused is; also what reading goes on says."""
        entries = self.there()
        there = set(entries)
        self.test.assertLessEqual(self.kept, there)
        self.test.assertEqual(there & self.refused, set())
        self.test.assertLessEqual(there - self.kept, self.unknown)
        self.test.assertLessEqual(set(entries.values()), {VALUE.encode()})


class DiskTrouble(RawTest):
    @classmethod
    def setUpClass(cls):
        try:
            mounts.private_mounts()
        except unittest.SkipTest as why:
            print(f"SKIPPED real file systems in trouble: {why}")
            raise

    def disk(self, kind, *arguments):
        try:
            disk = kind(*arguments)
        except unittest.SkipTest as why:
            print(f"SKIPPED {self.id()}: {why}")
            raise
        return disk

    def node(self, disk, *options):
        node = OnDisk(disk, *options)
        self.addCleanup(node.__exit__)
        return node

    def sound(self, node):
        done = millrace("verify", node.directory)
        self.assertEqual(done.returncode, 0, done)

    def restart_and_check(self, node, account):
        """Over a kill of all, over an orderly stop: the same."""
        node.kill()
        node.wait_gone()
        self.sound(node)
        node.start()
        account.check()
        account.must_put()
        self.assertEqual(node.stop(), 0, node.log())
        self.sound(node)
        node.start()
        account.check()
        self.assertEqual(node.stop(), 0, node.log())

    # -- full

    def full(self, disk, durability):
        node = self.node(disk, "--durability", durability)
        node.start()
        account = Account(self, node)
        for _ in range(5):
            account.must_put()
        account.connect()
        disk.fill()
        account.put_until_refused()
        self.assertRegex(account.reasons[-1], "(?i)no space")
        # A new segment is tried every second, and for that moment nothing stands in the way that is known.
        wait_until(lambda: node.status()["partitions"][0]["state"] == "read-only", "read-only")
        partition = node.status()["partitions"][0]
        account.check()
        for _ in range(3):
            self.assertFalse(account.put())
        worker = partition["pid"]
        disk.empty()
        wait_until(account.put, f"it goes on by itself: {node.log()}")
        self.assertEqual(node.worker(1), worker)
        for _ in range(50):
            account.must_put()
        self.assertEqual(node.status()["partitions"][0]["state"], "serving")
        account.check()
        self.restart_and_check(node, account)
        disk.unmount()

    def test_a_full_disk(self):
        self.full(self.disk(mounts.Ext4, 24), "sync")

    def test_a_full_disk_async(self):
        self.full(self.disk(mounts.Ext4, 24), "async")

    def test_a_full_tmpfs(self):
        self.full(self.disk(mounts.Tmpfs, 16), "sync")

    def test_killed_while_it_is_full(self):
        disk = self.disk(mounts.Ext4, 24)
        node = self.node(disk)
        node.start()
        account = Account(self, node)
        account.connect()
        disk.fill()
        account.put_until_refused()
        os.kill(node.worker(1), signal.SIGKILL)
        # The next one cannot begin its epoch, and answers nothing before it has: the log it read could be another's.
        # Or just one block was left in the segment: too little for a put, but enough for an epoch.
        wait_until(lambda: re.search("(?i)worker .* ended: exit|recovered .* epoch 2", node.log()),
                   "another worker tries")
        self.assertFalse(account.put())
        disk.empty()
        account.check()  # what was asked meanwhile is answered
        wait_until(account.put, f"it goes on by itself: {node.log()}")
        disk.fill()
        account.put_until_refused()
        node.kill()
        node.wait_gone()
        self.sound(node)
        disk.empty()
        node.start()
        account.check()
        account.must_put()
        self.restart_and_check(node, account)
        disk.unmount()

    def test_a_start_on_a_full_disk(self):
        """It says why and waits; with room it begins."""
        disk = self.disk(mounts.Ext4, 24)
        disk.fill(leave=150_000)
        node = self.node(disk)
        node.start_alone()
        wait_until(lambda: re.search("(?i)no space", node.log()), "it says why")
        self.assertIsNone(node.process.poll(), node.log())
        disk.empty()
        account = Account(self, node)
        wait_until(lambda: node.run("status").returncode == 0, f"it serves: {node.log()}")
        account.must_put()
        self.restart_and_check(node, account)
        disk.unmount()

    def test_a_snapshot_on_a_full_disk(self):
        disk = self.disk(mounts.Ext4, 24)
        node = self.node(disk)
        node.start()
        account = Account(self, node)
        for _ in range(40):
            account.must_put()
        node.output("snapshot")
        before = set(os.listdir(node.directory + "/partition-0001"))
        account.must_put()
        account.connect()
        disk.fill()
        done = node.run("snapshot")
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stderr.decode(), "(?i)no space")
        account.must_put()  # there is a segment with room
        account.check()
        now = set(os.listdir(node.directory + "/partition-0001"))
        self.assertEqual({name for name in now if name.startswith("snapshot")},
                         {name for name in before if name.startswith("snapshot")})
        disk.empty()
        node.output("snapshot")
        self.assertGreater(node.status()["partitions"][0]["snapshot_index"], 40)
        self.restart_and_check(node, account)
        disk.unmount()

    # -- failing

    def test_a_device_that_fails(self):
        """It fails each write to a block that it has given up: all that the log has not used yet. Nor has ext4's own
        journal used all of its blocks: it must not commit, as it does every five seconds, while they are given up."""
        disk = self.disk(mounts.Ext4, 24, "errors=continue,commit=3600")
        node = self.node(disk)
        node.start()
        account = Account(self, node)
        for _ in range(5):
            account.must_put()
        wait_until(lambda: len([name for name in os.listdir(node.directory + "/partition-0001")
                                if name.startswith("segment-")]) >= 2, "a spare segment")
        account.connect()
        # What the log writes while its blocks are looked through would be taken for zeros, and given up.
        worker = node.worker(1)
        os.kill(worker, signal.SIGSTOP)
        wait_until(disk.idle, "no write is under way")
        disk.dig()
        disk.below.fill()
        os.kill(worker, signal.SIGCONT)
        account.put_until_refused()
        self.assertRegex(account.reasons[-1], "(?i)input/output error|disk failed|no space")
        wait_until(lambda: node.status()["partitions"][0]["state"] == "read-only", "read-only")
        account.check()
        for _ in range(3):
            self.assertFalse(account.put())
        self.assertRegex(node.log(), r"a write to \S+ at offset \d+ failed: (Input/output error|No space left)")
        disk.below.empty()
        wait_until(account.put, f"it goes on by itself: {node.log()}")
        for _ in range(50):
            account.must_put()
        account.check()
        self.restart_and_check(node, account)
        disk.unmount()

    # -- read-only

    def test_a_file_system_that_becomes_read_only(self):
        """As ext4 does when it finds itself damaged."""
        disk = self.disk(mounts.Ext4, 24, "errors=remount-ro")
        trigger = f"/sys/fs/ext4/{disk.device}/trigger_fs_error"
        if not os.path.exists(trigger):
            print(f"SKIPPED {self.id()}: no {trigger}")
            self.skipTest("no " + trigger)
        node = self.node(disk)
        node.start()
        account = Account(self, node)
        for _ in range(5):
            account.must_put()
        account.connect()
        with open(trigger, "w", encoding="ascii") as file:
            file.write("test")
        account.put_until_refused()
        wait_until(lambda: node.status()["partitions"][0]["state"] == "read-only", "read-only")
        self.assertRegex(account.reasons[-1], "(?i)read-only|input/output")
        account.check()
        self.assertFalse(account.put())
        node.kill()
        node.wait_gone()
        mounts.run("umount", disk.path)
        disk.mount()
        self.restart_and_check_from_stopped(node, account)
        disk.unmount()

    def restart_and_check_from_stopped(self, node, account):
        self.sound(node)
        node.start()
        account.check()
        account.must_put()
        self.restart_and_check(node, account)

    def test_a_start_on_a_read_only_file_system(self):
        disk = self.disk(mounts.Ext4, 24)
        node = self.node(disk)
        node.start()
        account = Account(self, node)
        account.must_put()
        self.assertEqual(node.stop(), 0)
        mounts.run("mount", "-o", "remount,ro", disk.path)
        self.sound(node)
        for words in [["log", "dump"], ["snapshot", "dump"]]:
            done = millrace(*words, node.directory)
            self.assertEqual((done.returncode, done.stderr), (0, b""), done)
        done = subprocess.run([BIN, "serve", "--dir", node.directory, *node.options], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=WAIT, check=False)
        self.assertGreater(done.returncode, 0)
        self.assertRegex(done.stderr.decode(), f"{node.directory}.*Read-only file system")
        mounts.run("mount", "-o", "remount,rw", disk.path)
        self.restart_and_check_from_stopped(node, account)
        disk.unmount()


class Unwritable(unittest.TestCase):
    """No file system of one's own is needed for these."""

    def serve(self, directory, *, user=None):
        command = [BIN, "serve", "--dir", directory, *OPTIONS]
        if user is not None:
            command = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"] + command
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WAIT, check=False)

    def test_a_directory_that_may_not_be_written(self):
        user = None
        with Node(*OPTIONS) as node:
            node.output("counter", "increment", "c")
            self.assertEqual(node.stop(), 0)
            os.chmod(node.folder.name, 0o755)
            for folder, _, _ in os.walk(node.directory):
                os.chmod(folder, 0o500)
                if os.getuid() == 0:
                    os.chown(folder, 65534, -1)
            if os.getuid() == 0:
                user = 65534
                probe = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "test", "-x", BIN]
                if not shutil.which("setpriv") or subprocess.run(probe, check=False).returncode != 0:
                    print("SKIPPED an unwritable directory: no setpriv, or the program is out of another user's reach")
                    self.skipTest("no other user")
            for directory in (node.directory, node.directory + "/new"):
                done = self.serve(directory, user=user)
                self.assertGreater(done.returncode, 0)
                self.assertRegex(done.stderr.decode(), re.escape(directory) + ".*: Permission denied")
            for folder in (node.directory, node.directory + "/partition-0001"):
                os.chmod(folder, 0o700)
                os.chown(folder, os.getuid(), -1)
            node.start()
            self.assertEqual(node.output("counter", "get", "c"), b"1\n")


if __name__ == "__main__":
    unittest.main()
