#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `millrace` command against a real node: every subcommand, what it prints and how it ends."""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import unittest

from node import BIN, WAIT, Node, millrace, wait_until
from protocol import open_session

STATES = ["partition", "state", "reason", "recovered_percent", "pid", "core", "applied_index", "durable_index",
          "log_bytes", "sessions", "channels", "restarts", "time_ns", "snapshot_index", "snapshot_bytes",
          "snapshot_time_ns"]


class WithoutNode(unittest.TestCase):
    def usage(self, *arguments, env=None, says=()):
        done = millrace(*arguments, env=env)
        self.assertEqual((done.returncode, done.stdout), (2, b""), (arguments, done))
        for text in says:
            self.assertIn(text, done.stderr.decode())

    def test_version_and_help(self):
        self.assertRegex(millrace("--version").stdout.decode(), r"^millrace \d+\.\d+\.\d+\n$")
        for words in [["--help"], ["-h"], ["counter", "--help"], ["counter", "get", "--help"], ["--help", "counter"],
                      ["map", "--help"], ["session", "--help"], ["status", "--help"], ["raw", "--help"], ["serve", "--help"]]:
            done = millrace(*words)
            self.assertEqual((done.returncode, done.stderr), (0, b""), words)
            self.assertRegex(done.stdout.decode(), "^(usage: )?millrace ", words)
        for word in ["serve", "counter", "map", "session", "status", "raw", "--socket", "--namespace"]:
            self.assertIn(word, millrace("--help").stdout.decode())

    def test_usage_errors(self):
        socket = ["--socket", "/nowhere/s"]
        self.usage()
        self.usage("nonsense", says=["'nonsense'", "counter"])
        self.usage("--nonsense", says=["--nonsense"])
        self.usage("counter", says=["compare-and-set"])
        self.usage("counter", "fetch", "x", says=["'fetch'", "compare-and-set"])
        self.usage("counter", "get", *socket, says=["NAME"])
        self.usage("counter", "get", "x", "y", *socket, says=["NAME"])
        self.usage("counter", "set", "x", *socket, says=["NAME VALUE"])
        self.usage("counter", "set", "x", "five", *socket, says=["VALUE", "'five'", "9223372036854775807"])
        self.usage("counter", "compare-and-set", "x", "1", "2x", *socket, says=["UPDATE", "'2x'"])
        self.usage("counter", "increment", "x", "9223372036854775808", *socket, says=["DELTA"])
        self.usage("counter", "increment", "x", "-5", "--ttl", "5s", *socket, says=["takes no --ttl"])
        self.usage("map", "insert", "m", "k", "v", "--index", "4", *socket, says=["takes no --index"])
        self.usage("map", "put", "m", "k", "v", "--ttl", "5", *socket, says=["--ttl", "'5'", "ms"])
        self.usage("map", "put", "m", "k", "v", "--index", "0", *socket, says=["--index", "'0'"])
        self.usage("map", "put", "m", "k", *socket, says=["NAME KEY VALUE"])
        self.usage("map", "put", "m", "k", "--v", "-v", *socket)
        self.usage("status", "now", *socket, says=["'now'"])
        self.usage("status", "--ttl", "5s", *socket, says=["takes no --ttl"])
        self.usage("raw", "file", *socket, says=["'file'", "standard input"])
        self.usage("raw", "--timeout", "-5s", *socket, says=["--timeout"])
        self.usage("serve", says=["--dir"])

    def test_which_node(self):
        for words in [["counter", "get", "x"], ["map", "size", "m"], ["status"], ["raw"]]:
            self.usage(*words, says=["--socket", "MILLRACE_SOCKET"])
            self.usage(*words, env={"MILLRACE_SOCKET": ""}, says=["MILLRACE_SOCKET"])
            self.usage(*words, "--socket", "/" + "s" * 107, says=["--socket", "107"])
            self.usage(*words, env={"MILLRACE_SOCKET": "/" + "s" * 107}, says=["MILLRACE_SOCKET", "107"])

    def test_no_node(self):
        with tempfile.TemporaryDirectory() as directory:
            plain = directory + "/plain"
            with open(plain, "w", encoding="utf-8"):
                pass
            for socket in [directory + "/none", directory + "/none/none", plain]:
                for words in [["counter", "get", "x"], ["map", "size", "m"], ["status"], ["status", "--json"],
                              ["status", "--wait", "120ms"], ["raw"]]:
                    done = millrace(*words, "--socket", socket)
                    self.assertEqual((done.returncode, done.stdout), (3, b""), (socket, words, done))
                    self.assertRegex(done.stderr.decode(), "^NO_NODE: .*" + re.escape(socket))


class Services(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = cls.enterClassContext(Node(partitions=2))

    @classmethod
    def enterClassContext(cls, manager):
        value = manager.__enter__()
        cls.addClassCleanup(manager.__exit__, None, None, None)
        return value

    def expect(self, output, *words, given=b""):
        self.assertEqual(self.node.output(*words, given=given).decode(), output, words)

    def fails(self, status, *words, given=b""):
        done = self.node.run(*words, given=given)
        self.assertEqual((done.returncode, done.stdout), (1, b""), (words, done))
        self.assertRegex(done.stderr.decode(), rf"^{status}: [^\n]+\n$", words)

    def test_counter(self):
        self.expect("0\n", "counter", "get", "c")
        self.expect("5\n", "counter", "set", "c", "5")
        self.expect("6\n", "counter", "increment", "c")
        self.expect("1\n", "counter", "increment", "c", "-5")
        self.expect("11\n", "counter", "decrement", "c", "-10")
        self.expect("10\n", "counter", "decrement", "c")
        self.expect("-3\n", "counter", "compare-and-set", "c", "10", "-3")
        self.fails("CONFLICT", "counter", "compare-and-set", "c", "10", "7")
        self.expect("-3\n", "counter", "get", "c")
        self.expect("-9223372036854775808\n", "counter", "set", "c", "-9223372036854775808")
        self.expect("9223372036854775807\n", "counter", "decrement", "c")
        self.fails("INVALID", "counter", "get", "")

    def test_socket_and_namespace_stand_anywhere(self):
        socket = ["--socket", self.node.socket]
        for words in [[*socket, "--namespace", "n", "counter", "increment", "anywhere", "-2"],
                      ["counter", "--namespace=n", "increment", *socket, "anywhere", "-2"],
                      ["--namespace", "n", "counter", "increment", "anywhere", "-2", *socket],
                      [*socket, "--", "counter", "increment", "--namespace", "n", "--", "anywhere", "-2"]]:
            done = millrace(*words)
            self.assertEqual(done.returncode, 0, (words, done))
        self.expect("-8\n", "counter", "get", "anywhere", "--namespace", "n")
        self.expect("0\n", "counter", "get", "anywhere")
        # What is given goes before the environment.
        done = self.node.run("counter", "get", "anywhere", "--socket", "/nowhere")
        self.assertEqual(done.returncode, 3)

    def test_map(self):
        index = int(self.node.output("map", "put", "m", "k", "v"))
        self.expect("v", "map", "get", "m", "k")
        later = int(self.node.output("map", "update", "m", "k", "w", "--index", str(index)))
        self.assertGreater(later, index)
        self.fails("CONFLICT", "map", "update", "m", "k", "x", "--index", str(index))
        self.fails("CONFLICT", "map", "put", "m", "k", "x", "--index", str(index))
        self.fails("CONFLICT", "map", "remove", "m", "k", "--index", str(index))
        self.fails("ALREADY_EXISTS", "map", "insert", "m", "k", "x")
        self.fails("NOT_FOUND", "map", "update", "m", "other", "x")
        self.fails("NOT_FOUND", "map", "get", "m", "other")
        self.fails("NOT_FOUND", "map", "remove", "m", "other")
        self.assertGreater(int(self.node.output("map", "insert", "m", "other", "x")), later)
        self.expect("2\n", "map", "size", "m")
        self.expect("w", "map", "remove", "m", "k", "--index", str(later))
        self.expect("1\n", "map", "size", "m")
        self.expect("", "map", "clear", "m")
        self.expect("0\n", "map", "size", "m")
        self.node.output("counter", "increment", "not-a-map")
        self.fails("FORBIDDEN", "map", "size", "not-a-map")

    def test_values_are_bytes(self):
        for value in [b"", b"\n", b"\x00\xff\nend", bytes(range(256)) * 400]:
            self.node.output("map", "put", "bytes", "k", "-", given=value)
            self.assertEqual(self.node.output("map", "get", "bytes", "k"), value)
        self.node.output("map", "put", "bytes", "", "-7")
        self.expect("-7", "map", "get", "bytes", "")
        self.node.output("map", "put", "bytes", "dash", "--", "--json")
        self.expect("--json", "map", "get", "bytes", "dash")
        self.fails("INVALID", "map", "put", "bytes", "k", "-", given=b"x" * 1100000)
        self.fails("INVALID", "map", "put", "bytes", b"\xff", "v")

    def json(self, *words, given=b""):
        output = self.node.output(*words, "--json", given=given).decode()
        self.assertEqual(output.count("\n"), 1)
        return json.loads(output)

    def test_json(self):
        put = self.json("map", "put", "j", "k\n\"é", "v\\\t")
        self.assertEqual(put, {"key": "k\n\"é", "value": "v\\\t", "index": put["index"]})
        self.assertEqual(self.json("map", "get", "j", "k\n\"é"), put)
        self.assertEqual(self.json("map", "remove", "j", "k\n\"é"), put)
        inserted = self.json("map", "insert", "j", "b", "-", given=b"\x00\xff")
        self.assertEqual(inserted, {"key": "b", "value_base64": "AP8=", "index": inserted["index"]})
        updated = self.json("map", "update", "j", "b", "x", "--ttl", "5h")
        self.assertEqual(updated, {"key": "b", "value": "x", "index": updated["index"], "ttl": "18000s"})
        entry = self.json("map", "get", "j", "b")
        left = re.fullmatch(r"(\d+(?:\.\d*[1-9])?)s", entry.pop("ttl"))
        self.assertTrue(0 < float(left[1]) <= 18000)
        updated.pop("ttl")
        self.assertEqual(entry, updated)
        self.assertEqual(self.json("map", "size", "j"), {"size": 1})
        self.assertEqual(self.json("map", "clear", "j"), {})

    def test_a_life_ends(self):
        self.node.output("map", "put", "ttl", "k", "v", "--ttl", "50ms")
        self.node.output("map", "put", "ttl", "stays", "v", "--ttl", "24h")
        wait_until(lambda: self.node.run("map", "get", "ttl", "k").stderr.startswith(b"NOT_FOUND"), "the entry ends")
        self.expect("v", "map", "get", "ttl", "stays")


class FullOutput(unittest.TestCase):
    """What cannot be printed is told, with the reason, whatever the command does behind it; and nothing else is."""

    def expect_failure(self, node, *words, given=b""):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([BIN, *words], stdout=full, stderr=subprocess.PIPE, check=False, input=given,
                                  timeout=WAIT, env=dict(os.environ, MILLRACE_SOCKET=node.socket))
        self.assertEqual((done.returncode, done.stderr),
                         (1, b"millrace: standard output could not be written: No space left on device\n"), words)

    def test_all_that_print(self):
        with Node() as node:
            node.output("map", "put", "m", "k", "v")
            node.output("map", "put", "m", "large", "-", given=b"v" * 100000)
            node.output("snapshot")
            for words in [["--version"], ["--help"], ["status"], ["snapshot"], ["counter", "get", "c"],
                          ["map", "get", "m", "k"], ["map", "get", "m", "large"], ["map", "entries", "m"],
                          ["map", "events", "m", "--replay"], ["raw"], ["serve", "--help"]]:
                self.expect_failure(node, *words, given=open_session().encode())
            self.expect_failure(node, "session", "list")  # that one
            self.assertEqual(node.stop(), 0)
            for words in [["log", "dump"], ["snapshot", "dump"], ["verify"]]:
                self.expect_failure(node, *words, node.directory)


class ClosedDescriptors(unittest.TestCase):
    """What is closed as the command begins must not become its socket, or a file of the data directory."""

    @staticmethod
    def run_without(fds, *arguments):
        closed = " ".join(f"{fd}>&-" for fd in fds)
        return subprocess.run(["sh", "-c", f'exec "$0" "$@" {closed}', BIN, *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WAIT, check=False)

    def test_clients(self):
        with Node() as node:
            for i in range(30):
                millrace("map", "put", "m", f"key {i}", "v" * 3000, "--socket", node.socket)
            for words in [["entries", "m"], ["events", "m", "--replay"]]:
                done = self.run_without([1], "map", *words, "--socket", node.socket)
                self.assertEqual(done.returncode, 1, done)
                self.assertIn("could not be written: Bad file descriptor", done.stderr.decode())
            done = self.run_without([0], "map", "put", "m", "key", "-", "--socket", node.socket)
            self.assertEqual(done.returncode, 1, done)
            self.assertEqual(self.run_without([0, 1, 2], "status", "--socket", node.socket).returncode, 1)
            self.assertEqual(self.run_without([0, 2], "status", "--socket", node.socket).returncode, 0)

    def test_a_node(self):
        for fds in [[0, 1, 2], [2], [0, 2], [1]]:
            with tempfile.TemporaryDirectory() as folder:
                with open(folder + "/made", "wb") as log:
                    closed = " ".join(f"{fd}>&-" for fd in fds)
                    process = subprocess.Popen(["sh", "-c", f'exec "$0" "$@" {closed}', BIN, "serve", "--dir",
                                                folder + "/data", "--segment-bytes", "4M"],
                                               stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                    try:
                        done = millrace("status", "--wait", f"{int(WAIT)}s", "--socket", folder + "/data/millrace.sock")
                        self.assertEqual(done.returncode, 0, done)
                        for fd in fds:
                            self.assertEqual(os.readlink(f"/proc/{process.pid}/fd/{fd}"), "/dev/null", fds)
                    finally:
                        process.terminate()
                        self.assertEqual(process.wait(WAIT), 0)


class Status(unittest.TestCase):
    def test_what_it_says(self):
        with Node(partitions=2) as node:
            node.output("counter", "set", "x", "1")
            found = node.status()
            self.assertEqual(sorted(found), sorted(["version", "durability", "pid", "directory", "connections",
                                                    "partitions"]))
            self.assertEqual(found["pid"], node.process.pid)
            self.assertEqual(found["durability"], "sync")
            self.assertEqual(millrace("--version").stdout.decode(), f"millrace {found['version']}\n")
            self.assertEqual(os.path.realpath(found["directory"]), os.path.realpath(node.directory))
            self.assertEqual([partition["partition"] for partition in found["partitions"]], [1, 2])
            for partition in found["partitions"]:
                self.assertEqual(sorted(partition), sorted(STATES))
                self.assertEqual((partition["state"], partition["core"], partition["restarts"]), ("serving", -1, 0))
                self.assertGreater(partition["log_bytes"], 0)
                os.kill(partition["pid"], 0)
            applied = [partition["applied_index"] for partition in node.settled()["partitions"]]
            self.assertGreaterEqual(max(applied), 4)  # session, service, set, the session's end
            lines = node.output("status").decode().splitlines()
            self.assertIn(f"millrace {found['version']}, durability sync, pid {node.process.pid}", lines[0])
            for number, line in enumerate(lines[1:3], 1):
                self.assertRegex(line, rf"^partition {number}: serving, pid \d+, any core, applied \d+, durable \d+, "
                                       r"log \d+ bytes, no snapshot, \d+ sessions?, \d+ channels?, 0 restarts$")
            node.kill_worker(2)
            self.assertEqual([partition["restarts"] for partition in node.status()["partitions"]], [0, 1])

    def test_it_waits_for_a_node(self):
        with Node() as node:
            node.stop()
            answers = []
            waiter = threading.Thread(target=lambda: answers.append(node.run("status", "--wait", "60s")))
            waiter.start()
            node.start()
            waiter.join()
            self.assertEqual(answers[0].returncode, 0, answers)
            self.assertEqual(node.stop(), 0)
            self.assertEqual(node.run("status").returncode, 3)
            self.assertEqual(node.run("counter", "get", "x").returncode, 3)
            self.assertEqual(node.run("raw").returncode, 3)

    def test_a_client_in_a_loop_notices_no_death(self):
        with Node() as node:
            for expected in range(1, 11):
                self.assertEqual(int(node.output("counter", "increment", "loop")), expected)
                if expected % 3 == 0:
                    os.kill(wait_until(lambda: node.worker(1), "a worker"), signal.SIGKILL)
            self.assertEqual(int(node.output("counter", "get", "loop")), 10)


if __name__ == "__main__":
    unittest.main()
