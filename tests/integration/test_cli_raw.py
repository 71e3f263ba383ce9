#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`millrace raw` fed by Python's protobuf: what it prints for requests of all kinds, for lines that are none, over a
worker's death and a node's, and how it ends."""

import os
import signal
import time
import unittest

from atomix.multiraft.v1 import fsm_pb2

from node import Node, Raw, wait_until
from protocol import (COUNTER, MAP, RawTest, Status, command, create_service, increment, keep_alive, on, open_session,
                      operation, query, session_command)


class Requests(RawTest):
    @classmethod
    def setUpClass(cls):
        node = Node(partitions=2)
        node.__enter__()
        cls.addClassCleanup(node.__exit__)
        cls.node = node

    def test_a_conversation(self):
        with Raw(self.node) as raw:
            session, service = self.counter(raw)
            lines = [raw.ask(increment(session, service, number, 5)) for number in (1, 2, 3)]
            self.assertEqual([self.value(answer) for answer in lines], [5, 10, 15])
            # Numbered outputs of commands with growing indexes, and the same again for a number that had its answer.
            indexes = [self.command_output(answer).index for answer in lines]
            self.assertTrue(indexes[0] < indexes[1] < indexes[2])
            self.assertEqual(raw.ask(increment(session, service, 2, 5)), lines[1])
            self.assertEqual(self.queried(raw.ask(query(session, service))), 15)
            self.assertEqual(self.queried(raw.ask(query(session, service, after=indexes[2], sync=True))), 15)
            self.command_output(raw.ask(keep_alive(session)))
            close = session_command(session, close_service=fsm_pb2.CloseServiceInput(service_id=service))
            self.command_output(raw.ask(close))
            self.refused(raw.ask(increment(session, service, 4)), "FORBIDDEN")
            end = command(close_session=fsm_pb2.CloseSessionInput(session_id=session))
            self.assertTrue(self.command_output(raw.ask(end)).HasField("close_session"))
            self.refused(raw.ask(end), "FORBIDDEN")
            self.assertEqual(raw.finish(), (0, [], ""))

    def test_what_is_wrong_is_answered_by_the_node(self):
        with Raw(self.node) as raw:
            session, service = self.counter(raw, "wrong")
            for line in ["command -", "query -", "command ffff", "command 0802ff", on(2, open_session(1)),
                         on(1, open_session(2)), command(), open_session(1, 0), open_session(1, 24 * 3600 + 1),
                         increment(session, service, 0), create_service(session, COUNTER, ""),
                         # No such partition, named in the message or by the line.
                         "command@0 -", "command@99 -", "query@4294967295 00", on(3, open_session(3)),
                         open_session(77)]:
                self.refused(raw.ask(line), "INVALID")
            self.refused(raw.ask(increment(session + 1000000, service, 1)), "FORBIDDEN")
            self.refused(raw.ask(query(session, service + 1000000)), "FORBIDDEN")
            self.refused(raw.ask(create_service(session, MAP, "wrong")), "FORBIDDEN")
            self.refused(raw.ask(create_service(session, "no.such.Type", "x")), "NOT_SUPPORTED")
            # What the service itself says is a frame that is OK.
            for number, (name, status) in enumerate([("Nothing", Status.NOT_SUPPORTED), ("Get", Status.INVALID)], 1):
                output = self.operation_output(raw.ask(operation(session, service, number, name)))
                self.assertEqual(output.status, status)
            self.assertEqual(self.query_output(raw.ask(query(session, service, "Increment"))).status, Status.INVALID)
            # A request larger than the node takes, and one as large as the largest.
            self.refused(raw.ask("command " + "00" * (1 << 20) + "00"), "INVALID")
            self.refused(raw.ask("command " + "00" * (1 << 20)), "INVALID")
            self.assertEqual(self.value(raw.ask(increment(session, service, 3))), 1)
            self.assertEqual(raw.finish(), (0, [], ""))

    def test_a_query_whose_time_is_over(self):
        with Raw(self.node, "--timeout", "60s") as raw:
            session, service = self.counter(raw, "late")
            waits = raw.send(query(session, service, after=1 << 40))
            # One that waits holds up nothing behind it.
            self.assertEqual(self.value(raw.ask(increment(session, service, 1))), 1)
            self.assertEqual(self.queried(raw.ask(query(session, service))), 1)
            self.refused(raw.answer(waits), "TIMEOUT")
            self.assertEqual(raw.finish(), (0, [], ""))

    def test_the_partition_of_a_line(self):
        with Raw(self.node) as raw:
            one, counter_one = self.counter(raw, "parted", 1)
            two, counter_two = self.counter(raw, "parted", 2)
            self.assertEqual(self.value(raw.ask(increment(one, counter_one, 1, 3, partition=1))), 3)
            self.assertEqual(self.value(raw.ask(on(2, increment(two, counter_two, 1, 4, partition=2)))), 4)
            self.assertEqual(self.queried(raw.ask(query(one, counter_one, partition=1))), 3)
            self.assertEqual(self.queried(raw.ask(on(2, query(two, counter_two, partition=2)))), 4)
            self.assertEqual(raw.finish(), (0, [], ""))

    def test_lines_that_ask_nothing_and_malformed_ones(self):
        with Raw(self.node) as raw:
            session, service = self.counter(raw, "lines")  # lines 1 and 2
            lines = ["", "# a comment", "   ", "command", "nonsense 00", "command 0", "command@x 00", "\t#",
                     increment(session, service, 1), "query zz", "query 00 00", increment(session, service, 2)]
            for line in lines:
                raw.send(line)
            raw.process.stdin.write(query(session, service, after=1).encode())  # without a newline
            self.assertEqual(self.value(raw.answer(11)), 1)
            self.assertEqual(self.value(raw.answer(14)), 2)
            status, left, error = raw.finish()
            self.assertEqual(status, 2)
            self.assertEqual([line.split(":")[0] for line in error.splitlines()],
                             [f"line {number}" for number in (6, 7, 8, 9, 12, 13)])
            self.assertEqual([(int(number), what) for number, what in left][-1], (15, "end"))
            self.assertEqual(len(left), 2)

    def test_nothing_at_all(self):
        for given in [b"", b"\n\n# nothing\n"]:
            done = self.node.run("raw", given=given)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))

    def test_many_at_once_keep_their_order(self):
        with Raw(self.node) as raw:
            session, service = self.counter(raw, "many")
        count = 5000
        lines = [increment(session, service, number) for number in range(1, count + 1)]
        done = self.node.run("raw", "--timeout", "60s", given="\n".join(lines).encode())
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        printed = [line.split(" ", 1) for line in done.stdout.decode().splitlines()]
        self.assertEqual([int(number) for number, what in printed if what == "end"], list(range(1, count + 1)))
        frames = {int(number): [what] for number, what in printed if what != "end"}
        self.assertEqual(len(printed), 2 * count)
        self.assertEqual([self.value(frames[number]) for number in range(1, count + 1)], list(range(1, count + 1)))

    def test_nothing_is_opened_or_renewed(self):
        with Node(partitions=2) as node, Raw(node) as raw:
            self.refused(raw.ask(on(1, "command -")), "INVALID")
            self.refused(raw.ask(on(2, "command -")), "INVALID")
            for partition in node.status()["partitions"]:
                self.assertEqual((partition["sessions"], partition["channels"]), (0, 1))
            session = self.command_output(raw.ask(open_session(1, 1))).open_session.session_id
            # A KeepAlive would renew it. A query does not, and is refused for its service before.
            wait_until(lambda: raw.ask(query(session, 1))[0].startswith(f"FORBIDDEN - session {session} "),
                       "the session ends unrenewed")
            self.refused(raw.ask(keep_alive(session)), "FORBIDDEN")

    def test_a_time_over_with_something_open(self):
        with Raw(self.node) as raw:
            session, service = self.counter(raw, "open")
        done = self.node.run("raw", "--timeout", "100ms", given=query(session, service, after=1 << 40).encode())
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        done = self.node.run("raw", "--timeout", "100ms",
                             given=b"malformed\n" + query(session, service, after=1 << 40).encode())
        self.assertEqual((done.returncode, done.stdout), (2, b""))


class Deaths(RawTest):
    def test_a_worker_dies_between_requests_and_under_them(self):
        with Node(partitions=2) as node, Raw(node, "--timeout", "60s") as raw:
            session, service = self.counter(raw)
            other, counter = self.counter(raw, "other", 2)
            self.assertEqual(self.value(raw.ask(increment(session, service, 1))), 1)
            before = raw.ask(increment(session, service, 2))
            node.kill_worker(1)
            self.assertEqual(raw.ask(increment(session, service, 2)), before)
            # Half of these are sent before the death, the others after it; none waits for it to be over.
            sent = {}
            for number in range(3, 1003):
                if number == 500:
                    os.kill(node.worker(1), signal.SIGKILL)
                sent[number] = raw.send(increment(session, service, number))
                if number % 100 == 0:
                    sent[-number] = raw.send(increment(other, counter, number // 100, partition=2))
            last = raw.send(query(session, service))
            for number in range(3, 1003):
                self.assertEqual(self.value(raw.answer(sent[number])), number)
            for number in range(100, 1001, 100):
                self.assertEqual(self.value(raw.answer(sent[-number])), number // 100)
            self.queried(raw.answer(last))
            self.assertEqual(self.queried(raw.ask(query(session, service))), 1002)
            # Nothing is left over: no frame came twice.
            self.assertEqual(raw.finish(), (0, [], ""))
            self.assertEqual(node.status()["partitions"][0]["restarts"], 2)

    def comes_back(self, end):
        with Node() as node, Raw(node, "--timeout", "60s") as raw:
            session, service = self.counter(raw)
            first = raw.ask(increment(session, service, 1))
            # A query that is open when the node goes away is asked again, and so are commands that come meanwhile. It
            # waits five seconds each time, which may be over on a crowded machine.
            waits = raw.send(query(session, service, after=self.command_output(first).index + 50))
            end(node)
            sent = [raw.send(increment(session, service, number)) for number in (1, 2, 3)]
            node.start()
            answers = [raw.answer(number) for number in sent]
            self.assertEqual(answers[0], first)
            self.assertEqual([self.value(answer) for answer in answers], [1, 2, 3])
            sent = [(number, raw.send(increment(session, service, number))) for number in range(4, 54)]
            for number, line in sent:
                self.assertEqual(self.value(raw.answer(line)), number)
            queried = raw.answer(waits)
            if not queried[0].startswith("TIMEOUT"):
                self.assertGreaterEqual(self.queried(queried), 3)
            self.assertEqual(raw.finish(), (0, [], ""))

    def test_the_node_is_killed_and_comes_back(self):
        self.comes_back(Node.kill)

    def test_the_node_is_stopped_and_comes_back(self):
        self.comes_back(Node.stop)

    def test_the_node_does_not_come_back(self):
        with Node() as node, Raw(node, "--timeout", "200ms") as raw:
            session, service = self.counter(raw)
            raw.send(query(session, service, after=1 << 40))
            self.assertEqual(node.stop(), 0)
            status = raw.process.wait(60)
            self.assertEqual(status, 3)
            self.assertRegex(raw.process.stderr.read().decode(), "^NO_NODE: ")
            self.assertEqual(raw.process.stdout.read(), b"")

    def test_another_node_is_not_taken_for_it(self):
        with Node("--durability", "memory") as node, Raw(node, "--timeout", "60s") as raw:
            session, service = self.counter(raw)
            raw.send(query(session, service, after=1 << 40))
            node.stop()
            node.start()
            self.assertEqual(raw.process.wait(60), 3)
            self.assertIn("does not have its state", raw.process.stderr.read().decode())


if __name__ == "__main__":
    unittest.main()
