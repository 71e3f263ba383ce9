#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`millrace verify`: it finds what a node finds, in the same file at the same offset, on directories that real nodes
made and that were then damaged in all kinds of places; and it changes nothing."""

import hashlib
import json
import os
import pty
import random
import re
import shutil
import subprocess
import tempfile
import unittest

from node import BIN, WAIT, Node, Raw, millrace, wait_until
from protocol import MAP, RawTest, create_service, open_session, operation

from atomix.multiraft.map.v1 import map_pb2

OPTIONS = ["--segment-bytes", "256K", "--batch-bytes", "8K", "--max-payload", "8K", "--ring-bytes", "64K"]
PLACE = re.compile(r"(partition-\d+/[a-z]+-\d+) is damaged at offset (\d+)")
FLIPS = int(os.environ.get("VERIFY_FLIPS", "40"))


def fingerprint(directory):
    """Everything about it that a reader must not change."""
    found = {}
    for folder, folders, names in os.walk(directory):
        for name in [""] + folders + names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = None
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            found[path] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
                           status.st_ino, content)
    return found


def flip(path, offset, mask=0x10):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


class Verify(RawTest):
    @classmethod
    def setUpClass(cls):
        """Two directories of two partitions: `killed`, whose node was killed at work, and `stopped`. Partition 1 has
        much, over several segments and snapshots; partition 2 little."""
        cls.folder = tempfile.TemporaryDirectory(prefix="verify-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.node = Node(*OPTIONS, partitions=2)
        cls.addClassCleanup(cls.node.__exit__)
        cls.node.start()
        self = cls("load")
        with Raw(cls.node) as raw:
            for partition in (1, 2):
                self.load(raw, partition, 30 if partition == 2 else 120)
            cls.node.output("snapshot")
            self.load(raw, 1, 60)
            cls.node.output("snapshot", "--partition", "1")
            self.load(raw, 1, 60)
            self.load(raw, 2, 10)
        while True:
            with Raw(cls.node) as raw:
                while len(cls.end_of_log(1)[2]) < 4:  # batches in the last segment, the last of one block
                    self.load(raw, 1, 1)
            cls.node.kill()
            cls.node.wait_gone()
            if len(cls.end_of_log(1)[2]) >= 4:
                break
            cls.node.start()  # one had still come, an idle log's marker, and has begun a new segment
        cls.killed = cls.folder.name + "/killed"
        shutil.copytree(cls.node.directory, cls.killed, ignore=shutil.ignore_patterns("*.sock"))
        cls.node.start()
        if cls.node.stop() != 0:
            raise AssertionError(cls.node.log())
        cls.stopped = cls.folder.name + "/stopped"
        shutil.copytree(cls.node.directory, cls.stopped)
        shutil.rmtree(cls.node.directory)

    def load(self, raw, partition=1, count=0):
        session = self.command_output(raw.ask(open_session(partition))).open_session.session_id
        lines = []
        service = self.command_output(raw.ask(create_service(session, MAP, "m", partition))) \
            .session_command.create_service.service_id
        for number in range(1, count + 1):
            put = map_pb2.PutInput(key=f"k{number}", value=map_pb2.Value(value=os.urandom(number * 37 % 2500)))
            lines.append(raw.send(operation(session, service, number, "Put", put, partition)))
            if len(lines) == 8:  # so many answers fit into a pipe
                while lines:
                    self.operation_output(raw.answer(lines.pop(0)))
        while lines:
            self.operation_output(raw.answer(lines.pop(0)))

    def copy(self, pristine=None):
        """Into the place from which the node can be started."""
        shutil.rmtree(self.node.directory, ignore_errors=True)
        shutil.copytree(pristine or self.killed, self.node.directory)
        return self.node.directory

    def tearDown(self):
        if self.node.process is not None:
            self.node.kill()
            self.node.wait_gone()

    def verify(self, directory, status):
        done = millrace("verify", directory)
        self.assertEqual((done.returncode, done.stderr), (status, b""), done)
        return done.stdout.decode()

    def reports(self, directory):
        done = millrace("verify", directory, "--json")
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    # -- sound

    def test_sound(self):
        for directory in (self.killed, self.stopped):
            lines = self.verify(directory, 0).splitlines()
            self.assertRegex(lines[0], r"^partition 1: sound, [1-9]\d* entries read, the last of index \d+, "
                             r"snapshots of \d+ and \d+$")
            self.assertRegex(lines[-1], r"^partition 2: sound, [1-9]\d* entries read, the last of index \d+, "
                             "snapshots? ")
            status, reports = self.reports(directory)
            self.assertEqual(status, 0)
            self.assertEqual([report["state"] for report in reports], ["sound", "sound"])
        done = millrace("verify", self.stopped, "--partition", "2")
        self.assertRegex(done.stdout.decode(), r"^partition 2: sound.*\n$")

    def test_it_changes_nothing(self):
        for directory in (self.killed, self.stopped, self.copy()):
            if directory == self.node.directory:
                flip(directory + "/partition-0001/segment-0000", 5000)
            before = fingerprint(directory)
            self.assertGreater(len(before), 10)
            for words in [["verify"], ["verify", "--json"], ["log", "dump"], ["snapshot", "dump"]]:
                millrace(*words, directory)
            self.assertEqual(fingerprint(directory), before)

    def test_where_nothing_can_be_written(self):
        directory = self.copy(self.stopped)
        for folder, _, names in os.walk(directory):
            os.chmod(folder, 0o555)
            for name in names:
                os.chmod(os.path.join(folder, name), 0o444)
        command = [BIN, "verify", directory]
        if os.getuid() == 0:
            for folder in (self.node.folder.name, os.path.dirname(self.node.folder.name)):
                os.chmod(folder, os.stat(folder).st_mode | 0o055)
            command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] + command
            if not shutil.which("setpriv") or subprocess.run(command[:6] + ["test", "-x", BIN], check=False).returncode:
                self.skip("as another user", "setpriv or the program is out of reach")
                command = command[6:]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WAIT, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""), done)

    @staticmethod
    def skip(what, why):
        print(f"SKIPPED {what}: {why}")

    def test_memory(self):
        with Node(*OPTIONS, "--durability", "memory") as node:
            node.output("counter", "increment", "c")
            self.assertEqual(node.stop(), 0)
            self.assertIn("memory", self.verify(node.directory, 0))

    def test_a_torn_tail(self):
        """The last batch is the one that claims all before it; without it nothing acknowledged is missing."""
        directory = self.copy(self.killed)
        path, end = self.end_of_log(1)[:2]
        flip(path, end - 4096 + 70)
        text = self.verify(directory, 0)
        said = re.search(r"partition 1: a torn tail: (\d+) batch(?:es)? \((\d+) bytes\) in (\S+) from offset (\d+) ",
                         text)
        self.assertTrue(said, text)
        self.assertEqual((said[3], int(said[4])), (path, end - 4096))
        report = self.reports(directory)[1][0]
        self.assertEqual((report["torn_file"], report["torn_offset"], report["torn_batches"], report["torn_bytes"]),
                         (os.path.basename(path), end - 4096, int(said[1]), int(said[2])))
        self.start()
        lines = [line for line in self.node.log().splitlines() if "cut off" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(" warn ", lines[0])
        told = re.search(r"cut off (\d+) batches \((\d+) bytes\).* in (\S+) from offset (\d+)", lines[0])
        self.assertEqual(told.groups(), said.groups())

    @classmethod
    def end_of_log(cls, partition):
        """The segment in which the log ends, the offset behind its last batch, and where each in it begins."""
        ends = []
        folder = f"{cls.node.directory}/partition-{partition:04}"
        for name in os.listdir(folder):
            if name.startswith("segment-"):
                with open(folder + "/" + name, "rb") as file:
                    data = file.read()
                number = int.from_bytes(data[24:32], "little")
                batches = [at for at in range(4096, len(data), 4096) if data[at:at + 8] == b"MRBATCH\n"
                           and int.from_bytes(data[at + 48:at + 56], "little") == number]
                if batches:
                    ends.append((int.from_bytes(data[batches[-1] + 64:batches[-1] + 72], "little"),
                                 folder + "/" + name, batches[-1] + 4096, batches))
        return max(ends)[1:]

    # -- damage

    def start(self):
        """The partitions' states, once they serve or are stopped."""
        self.node.start(serving=False)

        def settled():
            partitions = self.node.status()["partitions"]
            return all(p["state"] in ("serving", "stopped") for p in partitions) and partitions
        return wait_until(settled, "the partitions serve or are stopped")

    def test_damage_of_one_partition(self):
        directory = self.copy()
        path = self.end_of_log(1)[0]
        flip(path, 4096 + 200)
        flip(path, 4096 + 24)
        text = self.verify(directory, 1)
        self.assertRegex(text, r"(?m)^partition 1: damaged")
        name = re.escape(os.path.basename(path))
        self.assertRegex(text, rf"(?m)^partition 1: .*partition-0001/{name} is damaged at offset 4096: .*index \d+")
        self.assertRegex(text, r"(?m)^partition 1: a node would stop this partition$")
        self.assertRegex(text, r"(?m)^partition 2: sound")
        done = millrace("verify", directory, "--partition", "2")
        self.assertEqual(done.returncode, 0)

    def test_a_damaged_snapshot_is_damage_though_a_node_goes_on(self):
        for which in (0, 1):
            directory = self.copy()
            names = sorted(name for name in os.listdir(directory + "/partition-0001") if name.startswith("snapshot-"))
            self.assertEqual(len(names), 2)
            flip(f"{directory}/partition-0001/{names[which]}", 777)
            text = self.verify(directory, 1)
            self.assertIn(f"partition-0001/{names[which]} is damaged at offset 0", text)
            self.assertRegex(text, r"(?m)^partition 1: a node would serve it all the same")
            self.assertEqual([p["state"] for p in self.start()], ["serving", "serving"], self.node.log())
            self.tearDown()

    def test_what_is_missing(self):
        directory = self.copy()
        segments = [name for name in os.listdir(directory + "/partition-0001") if name.startswith("segment-")]
        self.assertGreater(len(segments), 2)
        for what in ["partition-0001", "partition-0001/" + os.path.basename(self.end_of_log(1)[0])]:
            directory = self.copy()
            path = directory + "/" + what
            (shutil.rmtree if os.path.isdir(path) else os.remove)(path)
            text = self.verify(directory, 1)
            self.assertRegex(text, r"(?m)^partition 1: damaged")
            self.assertRegex(text, r"(?m)^partition 2: sound")
        for what, says in [("channel-ids", "channel-ids"), ("identity", "identity is missing")]:
            directory = self.copy()
            os.remove(directory + "/" + what)
            done = millrace("verify", directory)
            self.assertIn(done.returncode, (1, 3))
            self.assertIn(says, done.stderr.decode())
        for what in ("channel-ids", "identity"):
            directory = self.copy()
            flip(directory + "/" + what, 13)
            done = millrace("verify", directory)
            self.assertEqual(done.returncode, 1, done)
            self.assertIn(what, done.stderr.decode())

    def test_it_finds_what_a_node_finds(self):
        seed = int(os.environ.get("VERIFY_SEED") or 1)
        print(f"VERIFY_SEED={seed}")
        source = random.Random(seed)
        stopped = passed = torn = 0
        for n in range(FLIPS):
            directory = self.copy(source.choice([self.killed, self.stopped]))
            folder = f"{directory}/partition-{source.choice([1, 1, 2]):04}"
            path = folder + "/" + source.choice(sorted(os.listdir(folder)))
            with open(path, "rb") as file:
                data = file.read()
            places = [at for at in range(0, len(data), 7) if data[at] != 0] or [0]
            place = source.choice(places)
            if n % 3 == 0:  # a header
                place = 4096 * source.randrange(len(data) // 4096) + source.randrange(128)
            cut = n % 20 == 19
            if cut:
                os.truncate(path, place)
            else:
                flip(path, place, 1 << source.randrange(8))
            what = f"seed {seed}, {'cut' if cut else 'flip'} {path} at {place}"
            status, reports = self.reports(directory)
            self.assertEqual(status, 1 if any(report["state"] == "damaged" for report in reports) else 0, what)
            mark = len(self.node.log())
            states = self.start()
            log = self.node.log()[mark:]
            for report, partition in zip(reports, states):
                told = f"{what}\nverify: {report}\nnode: {partition}\n{log}"
                self.assertEqual(report["serves"], partition["state"] == "serving", told)
                if partition["state"] == "stopped":
                    stopped += 1
                    self.assertEqual(report["state"], "damaged", told)
                    found = PLACE.findall(" ".join(report["findings"]))
                    for place_ in PLACE.findall(partition["reason"]):
                        self.assertIn(place_, found, told)
                mine = [line for line in log.splitlines() if f" partition {report['partition']}: " in line]
                skipped = set(PLACE.findall(" ".join(line for line in mine if "passed over a snapshot" in line)))
                passed += len(skipped)
                self.assertLessEqual(skipped, set(PLACE.findall(" ".join(report["findings"]))), told)
                if report["state"] == "sound":
                    cuts = re.findall(r"cut off (\d+) batches \((\d+) bytes\).*/(\S+) from offset (\d+)",
                                      "\n".join(mine))
                    if report["torn_batches"] == 0:
                        self.assertEqual(cuts, [], told)
                    else:
                        torn += 1
                        self.assertEqual(cuts, [(str(report["torn_batches"]), str(report["torn_bytes"]),
                                                 report["torn_file"], str(report["torn_offset"]))], told)
            self.tearDown()
        print(f"{FLIPS} damages: {stopped} partitions stopped, {passed} snapshots passed over, {torn} torn tails")
        if FLIPS >= 40:
            self.assertGreater(stopped, 0)
            self.assertGreater(passed, 0)

    # -- not to be read

    def test_in_use(self):
        directory = self.copy(self.stopped)
        self.node.start()
        done = millrace("verify", directory)
        self.assertEqual((done.returncode, done.stdout), (3, b""))
        self.assertIn(f"in use by the node with pid {self.node.process.pid}\n", done.stderr.decode())
        self.assertEqual(self.node.stop(), 0)
        self.verify(directory, 0)

    def test_not_to_be_read(self):
        done = millrace("verify", self.folder.name + "/nothing")
        self.assertEqual((done.returncode, done.stdout), (3, b""))
        self.assertIn(self.folder.name + "/nothing", done.stderr.decode())
        done = millrace("verify", self.folder.name)
        self.assertEqual((done.returncode, done.stdout), (3, b""))
        self.assertIn("is no data directory", done.stderr.decode())
        done = millrace("verify", BIN)
        self.assertEqual((done.returncode, done.stdout), (3, b""))
        if os.getuid() == 0:
            self.skip("what the user may not read", "root may read all")
            return
        directory = self.copy()
        path = self.end_of_log(1)[0]
        os.chmod(path, 0)
        text = self.verify(directory, 3)
        self.assertRegex(text, r"(?m)^partition 1: unreadable")
        self.assertIn(os.path.basename(path), text)
        self.assertRegex(text, r"(?m)^partition 2: sound")

    def test_usage(self):
        for words in [[], [self.stopped, "x"], [self.stopped, "--raw"], [self.stopped, "--partition", "3"],
                      [self.stopped, "--partition", "0"]]:
            done = millrace("verify", *words)
            self.assertEqual((done.returncode, done.stdout), (2, b""), done)
            self.assertTrue(done.stderr.startswith(b"millrace verify: "), done)
        done = millrace("verify", "--help")
        self.assertEqual(done.returncode, 0)
        self.assertTrue(done.stdout.startswith(b"usage: millrace verify DIR"))

    # -- progress

    def test_progress_on_a_terminal(self):
        """Only there; and it is wiped away."""
        with Node("--segment-bytes", "64M", "--cpus", "none") as node:
            with Raw(node) as raw:
                session = self.command_output(raw.ask(open_session())).open_session.session_id
                service = self.command_output(raw.ask(create_service(session, MAP, "m"))) \
                    .session_command.create_service.service_id
                put = map_pb2.PutInput(key="k", value=map_pb2.Value(value=bytes(900_000)))
                for number in range(1, 50):
                    raw.ask(operation(session, service, number, "Put", put))
            node.kill()
            node.wait_gone()
            ours, theirs = pty.openpty()
            done = subprocess.Popen([BIN, "verify", node.directory], stdout=subprocess.PIPE, stderr=theirs)
            os.close(theirs)
            output = done.communicate(timeout=WAIT)[0]
            shown = b""
            try:
                while some := os.read(ours, 65536):
                    shown += some
            except OSError:  # the other side is closed
                pass
            os.close(ours)
            self.assertEqual(done.returncode, 0)
            self.assertRegex(shown.decode(), r"\r\x1b\[Kpartition 1: log, \d+ %")
            self.assertTrue(shown.endswith(b"\r\x1b[K"), shown)
            self.assertNotIn(b"%", output)
            self.assertNotIn(b"%", millrace("verify", node.directory).stderr)


if __name__ == "__main__":
    unittest.main()
