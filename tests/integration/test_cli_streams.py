#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`millrace map events` and `millrace map entries` against a real node: their lines, and all the ways in which following
ends."""

import json
import os
import select
import signal
import subprocess
import unittest

from node import BIN, WAIT, Node, wait_until


class Follower:
    """`millrace map events`, running."""

    def __init__(self, node, *words):
        self.process = subprocess.Popen([BIN, "map", "events", *words, "--socket", node.socket],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def line(self):
        while b"\n" not in self.rest:
            if not select.select([self.process.stdout], [], [], WAIT)[0]:
                raise AssertionError(f"no line came in {WAIT} s")
            some = os.read(self.process.stdout.fileno(), 65536)
            if not some:
                raise AssertionError(f"it has ended: {self.process.communicate()}")
            self.rest += some
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode().split("\t")

    def end(self):
        """Exit status, standard error."""
        error = self.process.communicate(timeout=WAIT)[1]
        return self.process.returncode, error.decode()


class Streams(unittest.TestCase):
    def setUp(self):
        self.node = Node()
        self.node.__enter__()
        self.addCleanup(self.node.__exit__)

    def put(self, key, value, *options):
        return self.node.output("map", "put", "m", key, value, *options).decode().strip()

    def test_lines(self):
        before = self.put("old", "0")
        with Follower(self.node, "m", "--replay") as every, Follower(self.node, "m", "k\t\\\n\x01é") as one:
            self.assertEqual(every.line(), ["LISTENING", "0", "", ""])
            self.assertEqual(every.line(), ["REPLAY", before, "old", "0"])
            self.assertEqual(one.line(), ["LISTENING", "0", "k\\t\\\\\\n\\x01é", ""])
            first = self.put("k\t\\\n\x01é", "a b\n")
            self.assertEqual(every.line(), ["INSERT", first, "k\\t\\\\\\n\\x01é", "a b\\n"])
            self.assertEqual(one.line(), ["INSERT", first, "k\\t\\\\\\n\\x01é", "a b\\n"])
            second = self.put("old", "")
            self.assertEqual(every.line(), ["UPDATE", second, "old", ""])
            third = self.put("k\t\\\n\x01é", "2\x9bJ\xa0")
            self.assertEqual(one.line(), ["UPDATE", third, "k\\t\\\\\\n\\x01é", "2\\xc2\\x9bJ\xa0"])
            self.node.kill_worker(1)
            self.node.output("map", "clear", "m")
            self.assertEqual(one.line(), ["REMOVE", third, "k\\t\\\\\\n\\x01é", "2\\xc2\\x9bJ\xa0"])
            self.assertEqual(every.line()[0], "UPDATE")
            self.assertEqual([every.line()[:2] for _ in range(2)], [["REMOVE", second], ["REMOVE", third]])

    def test_json(self):
        with Follower(self.node, "m", "--json") as follower:
            def event():
                return json.loads("\t".join(follower.line()))
            self.assertEqual(event(), {"type": "LISTENING", "key": ""})
            self.node.output("map", "put", "m", "k", "-", "--ttl", "5h", given=b"\xff")
            got = event()
            self.assertGreater(float(got.pop("ttl")[:-1]), 17000)
            self.assertEqual(got, {"type": "INSERT", "key": "k", "value_base64": "/w==", "index": got["index"]})
            self.node.output("map", "remove", "m", "k")
            self.assertEqual(event()["type"], "REMOVE")

    def test_a_life_ends(self):
        with Follower(self.node, "m") as follower:
            follower.line()
            index = self.put("k", "v", "--ttl", "50ms")
            self.assertEqual(follower.line(), ["INSERT", index, "k", "v"])
            self.assertEqual(follower.line(), ["REMOVE", index, "k", "v"])

    def test_a_restart(self):
        with Follower(self.node, "m") as follower:
            follower.line()
            first = self.put("k", "1")
            self.assertEqual(follower.line(), ["INSERT", first, "k", "1"])
            self.assertEqual(self.node.stop(), 0)
            self.node.start()
            second = self.put("k", "2")
            self.assertEqual(follower.line(), ["UPDATE", second, "k", "2"])

    def test_interrupted(self):
        for number in [signal.SIGINT, signal.SIGTERM]:
            with Follower(self.node, "m") as follower:
                follower.line()
                follower.process.send_signal(number)
                self.assertEqual(follower.end(), (0, ""))
        self.node.settled()

    def test_nobody_reads(self):
        with Follower(self.node, "m") as follower:
            follower.line()
            follower.process.stdout.close()
            self.assertEqual(follower.process.wait(WAIT), 0)
            self.assertEqual(follower.process.stderr.read(), b"")

    def test_an_unread_pipe_does_not_keep_it(self):
        with Follower(self.node, "m") as follower:
            follower.line()
            for _ in range(3):
                self.node.output("map", "put", "m", "k", "-", given=b"x" * 60000)
            select.select([follower.process.stdout], [], [], WAIT)
            follower.process.send_signal(signal.SIGTERM)
            self.assertEqual(follower.process.wait(WAIT), 0)

    def test_other_ends(self):
        done = self.node.run("map", "events", "m", b"\xff")
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertRegex(done.stderr.decode(), "^INVALID: ")
        done = self.node.run("map", "events", "m", "k", "more")
        self.assertEqual(done.returncode, 2)
        done = self.node.run("map", "entries", "m", "--replay")
        self.assertEqual(done.returncode, 2)
        with Follower(self.node, "m", "--timeout", "3s") as follower:
            follower.line()
            self.assertEqual(self.node.stop(), 0)
            status, error = follower.end()
            self.assertEqual(status, 3)
            self.assertRegex(error, "^NO_NODE: ")

    def test_entries(self):
        self.assertEqual(self.node.output("map", "entries", "m"), b"")
        indexes = [self.put(key, f"{key} value\n") for key in ["z", "", "a\tb"]]
        lines = self.node.output("map", "entries", "m").decode()
        self.assertEqual(lines, f"{indexes[0]}\tz\tz value\\n\n{indexes[1]}\t\t value\\n\n"
                                f"{indexes[2]}\ta\\tb\ta\\tb value\\n\n")
        entries = [json.loads(line) for line in self.node.output("map", "entries", "m", "--json").splitlines()]
        self.assertEqual(entries[2], {"key": "a\tb", "value": "a\tb value\n", "index": int(indexes[2])})
        self.assertEqual([entry["key"] for entry in entries], ["z", "", "a\tb"])


class Sessions(unittest.TestCase):
    def test_list_and_close(self):
        with Node(partitions=2) as node:
            def sessions(*words):
                return [json.loads(line) for line in node.output("session", "list", "--json", *words).splitlines()]
            self.assertEqual(sessions(), [])
            self.assertEqual(node.output("session", "list"), b"")
            with Follower(node, "m") as follower:
                follower.line()
                self.assertEqual(len(sessions()), 1)
                found = sessions()[0]
                self.assertEqual(found["holder"], follower.process.pid)
                self.assertEqual((found["uid"], found["timeout"], found["open_commands"]), (os.getuid(), "10s", 1))
                self.assertTrue(0 < float(found["remaining"][:-1]) <= 10)
                identity = str(found["session"])
                partition = str(found["partition"])
                self.assertEqual(sessions("--partition", partition)[0]["session"], found["session"])
                self.assertEqual(sessions("--partition", str(3 - found["partition"])), [])
                self.assertRegex(node.output("session", "list").decode(),
                                 rf"^partition {partition} session {identity}: user {os.getuid()}, timeout 10\.0 s, "
                                 rf"\d+\.\d s left, used by process {follower.process.pid}, 1 open command, \d+ bytes\n$")
                done = node.run("session", "close", identity)
                self.assertEqual((done.returncode, done.stdout), (1, b""))
                self.assertRegex(done.stderr.decode(), rf"^UNAVAILABLE: .*{follower.process.pid}")
                follower.process.kill()
                follower.process.wait()
            wait_until(lambda: sessions()[0]["holder"] == 0, "the node has seen its end")
            self.assertIn(b", left, ", node.output("session", "list"))
            self.assertEqual(node.output("session", "close", identity, "--partition", partition), b"")
            self.assertEqual(sessions(), [])
            done = node.run("session", "close", identity)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr.decode(), "^FORBIDDEN: ")

    def test_which_of_two(self):
        with Node(partitions=2) as node:
            followers = []
            try:
                # The first session of each partition has the same id.
                for number in range(20):
                    followers.append(Follower(node, f"map {number}"))
                    followers[-1].line()
                    listed = node.output("session", "list", "--json").splitlines()
                    places = {json.loads(line)["partition"] for line in listed}
                    if len(places) == 2:
                        break
                first = [min(json.loads(line)["session"] for line in listed if json.loads(line)["partition"] == place)
                         for place in (1, 2)]
                self.assertEqual(first[0], first[1])
                done = node.run("session", "close", str(first[0]))
                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stderr.decode(), "^INVALID: 2 partitions .*--partition")
            finally:
                for follower in followers:
                    follower.__exit__()

    def test_usage(self):
        with Node() as node:
            for words in [[], ["list", "x"], ["close"], ["close", "x"], ["close", "0"], ["close", "-1"],
                          ["close", "1", "--json"], ["list", "--partition", "0"], ["list", "--partition", "65"]]:
                done = node.run("session", *words)
                self.assertEqual((done.returncode, done.stdout), (2, b""), words)
            self.assertEqual(node.run("session", "list", "--partition", "9").returncode, 1)
            self.assertEqual(node.run("session", "--help").returncode, 0)


if __name__ == "__main__":
    unittest.main()
