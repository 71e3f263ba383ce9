#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`millrace log dump` and `millrace snapshot dump`: what they print is what the node did, as Python's protobuf reads
it."""

import json
import os
import re
import shutil
import unittest

from google.protobuf import json_format

from atomix.multiraft.counter.v1 import counter_pb2
from atomix.multiraft.map.v1 import map_pb2
from atomix.multiraft.v1 import fsm_pb2

from node import Node, Raw, millrace
from protocol import (COUNTER, MAP, RawTest, close_service, close_session, command, create_service, forget, increment,
                      keep_alive, line, open_session, operation)

OPTIONS = ["--segment-bytes", "256K", "--batch-bytes", "8K", "--max-payload", "8K", "--ring-bytes", "64K"]
NAME = 'n"ame\\ \u00e9\U0001d11e\n'


class Dump(RawTest):
    @classmethod
    def setUpClass(cls):
        """A node that has done some of everything, in partition 2 of 2, with two snapshots there; stopped."""
        cls.node = Node(*OPTIONS, partitions=2)
        cls.addClassCleanup(cls.node.__exit__)
        cls.node.start()
        self = cls("talk")
        cls.sent = []  # (index, CommandInput)
        raw = cls.raw = Raw(cls.node)
        cls.addClassCleanup(raw.__exit__)
        session = self.say(open_session(2, seconds=3600)).open_session.session_id
        counter, map_ = [self.say(create_service(session, kind, name, 2)).session_command.create_service.service_id
                         for kind, name in ((COUNTER, "c"), (MAP, NAME))]
        for number in range(1, 6):
            self.say(increment(session, counter, number, -number, 2))
        put = map_pb2.PutInput(key=NAME, value=map_pb2.Value(value=bytes(range(256)) * 8))
        put.value.ttl.seconds = 3600
        self.say(operation(session, map_, 6, "Put", put, 2))
        raw.send(operation(session, map_, 7, "Events", map_pb2.EventsInput(replay=True), 2))
        cls.node.output("snapshot")
        self.say(self.on_two(forget(session, 4, keep=[2], outputs={7: 1})))
        other = self.say(open_session(2)).open_session.session_id
        self.say(self.on_two(keep_alive(other)))
        self.say(create_service(other, COUNTER, "short", 2))
        self.say(self.on_two(close_session(other)))
        cls.node.output("snapshot")
        self.say(increment(session, counter, 8, 10, 2))
        if cls.node.stop() != 0:
            raise AssertionError(cls.node.log())

    def talk(self):
        """So that setUpClass() can use what RawTest has."""

    @staticmethod
    def on_two(line):
        message = fsm_pb2.PartitionCommandInput.FromString(bytes.fromhex(line.split(" ")[1]))
        message.partition_id = 2
        return "command " + message.SerializeToString().hex()

    def say(self, line):
        lines = self.raw.ask(line)
        self.assertTrue(lines and lines[0].startswith("OK "), lines)
        output = self.command_output(lines[:1])
        message = fsm_pb2.PartitionCommandInput.FromString(bytes.fromhex(line.split(" ")[1]))
        type(self).sent.append((output.index, message.command))
        return output

    def dump(self, *words, status=0):
        done = millrace(*words)
        self.assertEqual((done.returncode, done.stderr), (status, b""), words)
        return done.stdout

    # -- log

    def entries(self, *words):
        lines = self.dump("log", "dump", self.node.directory, "--json", *words).splitlines()
        return [json.loads(line) for line in lines]

    def test_every_command_is_in_the_log(self):
        entries = self.entries()
        self.assertEqual([entry["index"] for entry in entries],
                         [str(n) for n in range(1, len(entries) + 1)])  # partition 1 has none
        self.assertEqual({entry["partition"] for entry in entries}, {2})
        self.assertEqual({entry["uid"] for entry in entries}, {os.getuid()})
        sent = dict(self.sent)
        last = "0"
        for entry in entries:
            command_input = json_format.ParseDict(entry["command"], fsm_pb2.CommandInput())
            self.assertEqual(entry["command"]["timestamp"], entry["time"])
            self.assertGreater(entry["time"], last)
            last = entry["time"]
            command_input.ClearField("timestamp")
            if int(entry["index"]) in sent:
                self.assertEqual(command_input, sent.pop(int(entry["index"])))
        self.assertEqual(sent, {})
        positions = [int(entry["position"]) for entry in entries]
        self.assertEqual(positions, sorted(positions))
        self.assertEqual(self.entries("--partition", "2"), entries)
        self.assertEqual(self.entries("--partition", "1"), [])

    def test_as_text(self):
        lines = self.dump("log", "dump", self.node.directory).decode().splitlines()
        self.assertEqual(len(lines), len(self.entries()))
        text = "\n".join(lines)
        for what in ["open-session timeout=3600s", r'create-service session=1 type="atomix.multiraft.map.v1.Map" '
                     r'namespace="raw" name="n\"ame\\ é𝄞\n"', 'number=5 operation="Increment" payload=08fbffff',
                     r'operation="Put" payload=0a', " bytes)", "keep-alive session=1 last-input=4 filter=01",
                     "last-output=7:1", "close-session session="]:
            self.assertIn(what, text)
        for line in lines:
            self.assertRegex(line, r"^partition=2 index=\d+ time=20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z "
                             r"channel=\d+ position=\d+ uid=\d+ [a-z]")

    def test_the_nodes_time_is_shown_not_the_clients(self):
        with Node(*OPTIONS) as node:
            raw = Raw(node)
            request = fsm_pb2.CommandInput()
            request.timestamp.seconds = 1
            request.open_session.timeout.seconds = 3600
            raw.ask(line("command", fsm_pb2.PartitionCommandInput(partition_id=1, command=request)))
            raw.__exit__()
            node.stop()
            entry = json.loads(self.dump("log", "dump", node.directory, "--json"))
            self.assertEqual(entry["command"], {"timestamp": entry["time"], "openSession": {"timeout": "3600s"}})
            self.assertTrue(entry["time"].startswith("20"), entry)

    def test_a_log_whose_beginning_is_not_kept(self):
        with Node(*OPTIONS) as node:
            for round_ in range(4):
                for n in range(12):
                    node.output("map", "put", "m", f"{round_} {n}", "x" * 7000)
                node.output("snapshot")
            node.output("counter", "increment", "last")
            node.stop()
            entries = [json.loads(line) for line in self.dump("log", "dump", node.directory, "--json").splitlines()]
            self.assertGreater(int(entries[0]["index"]), 1)
            self.assertEqual([int(entry["index"]) for entry in entries],
                             list(range(int(entries[0]["index"]), int(entries[-1]["index"]) + 1)))
            names = {name for name in os.listdir(node.directory + "/partition-0001") if name.startswith("snapshot-")}
            self.assertEqual(int(entries[0]["index"]), min(int(name.split("-")[1]) for name in names) + 1)

    def test_damage_in_the_log(self):
        with Node(*OPTIONS) as node:
            for _ in range(5):
                node.output("counter", "increment", "c")
            node.kill()
            node.wait_gone()
            before = self.dump("log", "dump", node.directory).splitlines()
            path = node.directory + "/partition-0001/segment-0000"
            with open(path, "r+b") as file:
                data = file.read()
                at = data.rfind(b"Increment", 0, data.rfind(b"Increment"))
                file.seek(at)
                file.write(b"X")
            done = millrace("log", "dump", node.directory)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr.decode(), r"^millrace log dump: .*segment-0000 is damaged at offset \d+")
            after = done.stdout.splitlines()
            self.assertGreater(len(after), 0)
            self.assertEqual(after, before[: len(after)])

    # -- snapshots

    def snapshots(self):
        names = os.listdir(self.node.directory + "/partition-0002")
        return sorted(int(name.split("-")[1]) for name in names if re.match(r"snapshot-\d+$", name))

    def test_raw_and_json_are_the_same(self):
        for index in self.snapshots():
            options = [self.node.directory, "--partition", "2", "--index", str(index)]
            raw = fsm_pb2.PartitionSnapshot.FromString(self.dump("snapshot", "dump", *options, "--raw"))
            text = self.dump("snapshot", "dump", *options, "--json")
            self.assertEqual(json_format.Parse(text, fsm_pb2.PartitionSnapshot()), raw)
            self.assertEqual(self.dump("snapshot", "dump", *options), text)
            self.assertEqual(json.loads(text), json_format.MessageToDict(raw))
            self.assertEqual(raw.index, index)
            self.assertEqual(json_format.Parse(text, fsm_pb2.PartitionSnapshot()).SerializeToString(deterministic=True),
                             raw.SerializeToString(deterministic=True))

    def test_what_is_in_it(self):
        newest = self.dump("snapshot", "dump", self.node.directory, "--partition", "2", "--raw")
        snapshot = fsm_pb2.PartitionSnapshot.FromString(newest)
        self.assertEqual(snapshot.index, self.snapshots()[-1])
        services = {service.spec.service: service for service in snapshot.services
                    if service.spec.name in ("c", NAME)}
        value = counter_pb2.CounterSnapshot.FromString(services[COUNTER].data).value
        self.assertEqual(value, 10 - 15 if snapshot.index >= max(index for index, _ in self.sent) else -15)
        entries = map_pb2.MapSnapshot.FromString(services[MAP].data).entries
        self.assertEqual([entry.key.key for entry in entries], [NAME])
        commands = {command.command_sequence_num for command in snapshot.sessions[0].commands}
        self.assertIn(2, commands)
        self.assertNotIn(3, commands)

    def test_partitions(self):
        done = millrace("snapshot", "dump", self.node.directory)
        self.assertEqual(done.returncode, 1)
        self.assertIn("partition 1 has no snapshot", done.stderr.decode())
        self.assertEqual(done.stdout, self.dump("snapshot", "dump", self.node.directory, "--partition", "2"))
        done = millrace("snapshot", "dump", self.node.directory, "--raw")
        self.assertEqual((done.returncode, done.stdout), (2, b""))
        self.assertIn("--partition", done.stderr.decode())

    def test_a_damaged_one_is_passed_over(self):
        copy = self.node.folder.name + "/copy"
        shutil.copytree(self.node.directory, copy)
        self.addCleanup(shutil.rmtree, copy)
        older, newest = self.snapshots()
        with open(f"{copy}/partition-0002/snapshot-{newest:020}", "r+b") as file:
            file.seek(100)
            byte = file.read(1)[0]
            file.seek(100)
            file.write(bytes([byte ^ 1]))
        done = millrace("snapshot", "dump", copy, "--partition", "2", "--raw")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr.decode(), rf"snapshot-0*{newest} is damaged at offset 0: ")
        self.assertEqual(fsm_pb2.PartitionSnapshot.FromString(done.stdout).index, older)
        done = millrace("snapshot", "dump", copy, "--partition", "2", "--index", str(newest))
        self.assertEqual((done.returncode, done.stdout), (1, b""))

    def test_while_a_node_runs(self):
        with Node(*OPTIONS) as node:
            for n in range(1, 8):
                node.output("counter", "increment", "c")
                index = json.loads(node.output("snapshot", "--json"))["index"]
                snapshot = fsm_pb2.PartitionSnapshot.FromString(self.dump("snapshot", "dump", node.directory, "--raw"))
                self.assertEqual(snapshot.index, index)
                self.assertEqual(counter_pb2.CounterSnapshot.FromString(snapshot.services[0].data).value, n)
            done = millrace("log", "dump", node.directory)
            self.assertEqual((done.returncode, done.stdout), (3, b""))
            self.assertIn(f"pid {node.process.pid}", done.stderr.decode())

    # -- usage

    def test_usage(self):
        directory = self.node.directory
        for words, says in [(["log"], "log dump DIR"), (["log", "show", directory], "log dump DIR"),
                            (["log", "dump"], "DIR"), (["log", "dump", directory, "x"], "DIR"),
                            (["log", "dump", directory, "--raw"], "takes no --raw"),
                            (["log", "dump", directory, "--partition", "3"], "--partition 3"),
                            (["snapshot", "dump"], "DIR"),
                            (["snapshot", "dump", directory, "--partition", "3"], "2 partitions"),
                            (["snapshot", "dump", directory, "--raw", "--json"], "not both"),
                            (["snapshot", "dump", directory, "--index", "0"], "--index")]:
            done = millrace(*words)
            self.assertEqual((done.returncode, done.stdout), (2, b""), words)
            self.assertIn(says, done.stderr.decode())
        for words in [["log", "dump"], ["snapshot", "dump"]]:
            done = millrace(*words, self.node.folder.name + "/nothing")
            self.assertEqual((done.returncode, done.stdout), (3, b""), done)
            done = millrace(*words, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, b""), done)
            self.assertIn("usage: millrace " + " ".join(words), done.stdout.decode())


if __name__ == "__main__":
    unittest.main()
