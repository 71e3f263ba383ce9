#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The demo, on little: it ends with every count matching for texts of all kinds, says what is wrong with those it
cannot count, finds a count that is wrong, and leaves nothing behind, also when it is interrupted."""

import os
import re
import select
import signal
import subprocess
import tempfile
import unittest

from node import BIN, WAIT, Node, wait_until

SCRIPT = os.path.join(os.environ["MILLRACE_TOP"], "bench", "demo.sh")
DEMO = os.path.join(os.environ["MILLRACE_OUT"], "millrace-demo")
TEXT = b"The mill, the river;\r\nthe RACE\n\nIt's the mill\x00race.\n"


def processes_of(directory):
    """Those that name it in their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if directory.encode() in file.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


class Demo(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="demo-")
        self.addCleanup(self.folder.cleanup)
        self.work = self.folder.name + "/work"
        os.mkdir(self.work)

    def environment(self, **variables):
        kept = {name: value for name, value in os.environ.items() if name not in ("FILE", "WORDS", "MILLRACE_SOCKET")}
        return dict(kept, TMPDIR=self.work, MILLRACE_BIN=BIN, MILLRACE_DEMO=DEMO, **variables)

    def write(self, content):
        path = self.folder.name + "/text"
        with open(path, "wb") as file:
            file.write(content)
        return path

    def demo(self, **variables):
        done = subprocess.run(["bash", SCRIPT], env=self.environment(**variables), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=2 * WAIT, check=False, text=True)
        self.assertEqual(os.listdir(self.work), [])
        return done

    def succeeds(self, words, **variables):
        done = self.demo(WORDS=str(words), **variables)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[-1], "every count matches")
        report = dict(line.split(None, 1) for line in lines[-7:-1])
        self.assertEqual(report["words"], str(words))
        self.assertEqual(report["commands"], str(2 * words))
        if words > 100:  # the worker's death may take seconds
            self.assertGreater(int(report["commands/s"]), 0)
        self.assertRegex(done.stdout, r"latency p50 +\d+\.\d+ ms.*\nlatency p99 +\d+\.\d+ ms")
        self.assertGreater(float(report["pause"].split()[0]), 0)
        killed = re.search(r"half-way: killing the worker of partition (\d), pid (\d+)", done.stdout)
        back = re.search(r"the worker of partition (\d) came back as pid (\d+)", done.stdout)
        self.assertEqual(killed[1], back[1])
        self.assertNotEqual(killed[2], back[2])

    def test_the_license(self):
        self.succeeds(8000)

    def test_texts_of_all_kinds(self):
        for content, words in [(TEXT, 100), (b"word", 7), (b"one huge line " * 20000, 61000),
                               (os.urandom(20000) + b"\nx\n", 12000), (b"\n" * 300 + b"a" * 70 + b" " + b"a" * 64, 3),
                               (b"more words than are to be counted", 2),
                               (b"last-line last line lines map counter", 50)]:
            with self.subTest(content=content[:40], words=words):
                self.succeeds(words, FILE=self.write(content))

    def test_what_cannot_be_counted(self):
        for says, variables in [("no words", {"FILE": self.write(b"")}), ("FILE=/dev/null", {"FILE": "/dev/null"}),
                                ("FILE=/nowhere/text", {"FILE": "/nowhere/text"}),
                                ("FILE=" + self.work, {"FILE": self.work}),
                                ("WORDS=0", {"WORDS": "0"}), ("WORDS=many", {"WORDS": "many"}),
                                ("WORDS=-5", {"WORDS": "-5"}), ("WORDS=1e6", {"WORDS": "1e6"})]:
            done = self.demo(**variables)
            self.assertEqual((done.returncode, done.stdout), (2, ""), variables)
            self.assertIn(says, done.stderr)
        path = self.write(b"12345 \xc3\xa9\n")
        done = self.demo(FILE=path)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("no words", done.stderr)

    def test_a_node_that_does_not_start(self):
        for program in ["/bin/false", "/bin/true", "/nowhere/millrace"]:
            environment = dict(self.environment(WORDS="10"), MILLRACE_BIN=program)
            done = subprocess.run(["bash", SCRIPT], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=WAIT, check=False)
            self.assertEqual(done.returncode, 1, program)
            self.assertNotIn(b"every count matches", done.stdout)
            self.assertEqual(os.listdir(self.work), [])

    def compare(self, node, expected):
        text = "".join(f"{word} {count} {line}\n" for word, (count, line) in expected.items())
        return subprocess.run([DEMO, "compare"], input=text, env=self.environment(MILLRACE_SOCKET=node.socket),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WAIT, check=False, text=True)

    def test_a_difference_is_found(self):
        right = {"the": (8, 4), "mill": (4, 4), "river": (2, 1), "race": (4, 4), "it": (2, 4), "s": (2, 4)}
        with Node(partitions=2) as node:
            path, report = self.write(TEXT), self.folder.name + "/report"
            pids = [str(partition["pid"]) for partition in node.status()["partitions"]]
            subprocess.run([DEMO, "count", path, "22", report, *pids], check=True, stdout=subprocess.DEVNULL,
                           env=self.environment(MILLRACE_SOCKET=node.socket), timeout=WAIT)
            done = self.compare(node, right)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
            for wrong, says in [({"river": (3, 1)}, "river: counted 2 times, should be 3"),
                                ({"race": (4, 2)}, "race: last on line 4, should be 2"),
                                ({"weir": (1, 1)}, "weir: on no line, should be on line 1"),
                                ({"weir": (1, 1)}, "weir: counted 0 times, should be 1")]:
                done = self.compare(node, {**right, **wrong})
                self.assertEqual(done.returncode, 1, wrong)
                self.assertIn(says, done.stdout)
            less = dict(right)
            del less["mill"]
            done = self.compare(node, less)
            self.assertEqual(done.returncode, 1)
            self.assertIn("the map holds 6 words, should be 5", done.stdout)
            many = {"w" + "x" * length: (1, 1) for length in range(40)}
            done = self.compare(node, many)
            self.assertEqual((done.returncode, len(done.stdout.splitlines())), (1, 21))
            self.assertIn("81 differences in all", done.stdout)

    def test_an_interruption_leaves_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = subprocess.Popen(["bash", SCRIPT], env=self.environment(WORDS="500000000"),
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
            try:
                said = b""
                while b"to be counted until" not in said:
                    self.assertTrue(select.select([process.stdout], [], [], WAIT)[0], said)
                    some = os.read(process.stdout.fileno(), 4096)
                    self.assertTrue(some, said)
                    said += some
                self.assertTrue(processes_of(self.work))
                os.killpg(process.pid, number)
                self.assertEqual(process.wait(WAIT), 128 + number)
                self.assertEqual(os.listdir(self.work), [])
                wait_until(lambda: not processes_of(self.work), "its processes have ended")
            finally:
                process.kill()
                process.wait()
                process.stdout.close()


if __name__ == "__main__":
    unittest.main()
