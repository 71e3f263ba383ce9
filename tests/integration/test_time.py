#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Time on a real node: sessions and TTLs end on an idle partition, at their deadline and not before, in order, and the
same after a restart; a node that is stopped or down for longer than a timeout loses no session."""

import json
import os
import signal
import time
import unittest

from google.protobuf import timestamp_pb2

from atomix.multiraft.map.v1 import map_pb2

from node import Node, Raw, millrace, wait_until
from protocol import (COUNTER, MAP, RawTest, Status, create_service, increment, keep_alive, open_session, operation,
                      query)


def sessions(node, partition=1):
    return int(node.status()["partitions"][partition - 1]["sessions"])


def pass_time(seconds):
    """Until so much time has passed, whatever the test's machine does meanwhile."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, f"{seconds} s to pass")


class Time(RawTest):
    def session(self, raw, seconds):
        return self.command_output(raw.ask(open_session(seconds=seconds))).open_session.session_id

    def alive(self, raw, session):
        self.assertTrue(self.command_output(raw.ask(keep_alive(session))).HasField("keep_alive"))

    def test_a_session_ends_on_an_idle_partition(self):
        with Node() as node, Raw(node) as raw:
            before = time.monotonic()
            session = self.session(raw, 1)
            # By `status`, of which the worker knows nothing. It may be over before it was ever seen.
            wait_until(lambda: sessions(node) == 1 or time.monotonic() > before + 1, "it is counted")
            wait_until(lambda: sessions(node) == 0, "the session's end")
            self.assertGreaterEqual(time.monotonic() - before, 1)
            # A query renews nothing; its service is not there either.
            wait_until(lambda: raw.ask(query(session, 1))[0].startswith(f"FORBIDDEN - session {session} "), "its end")
            self.refused(raw.ask(keep_alive(session)), "FORBIDDEN")

    def test_ttls_end_on_an_idle_partition_in_order(self):
        lives = {"late": 900, "soon": 300, "then": 600}  # milliseconds
        ends = {}
        with Node() as node, Raw(node) as raw:
            session = self.session(raw, 3600)
            service = self.command_output(raw.ask(create_service(session, MAP, "m"))) \
                .session_command.create_service.service_id
            events = raw.send(operation(session, service, 1, "Events", map_pb2.EventsInput()))
            self.event(raw, events)
            for number, (key, milliseconds) in enumerate(lives.items(), 2):
                value = map_pb2.Value(value=b"v")
                value.ttl.nanos = milliseconds * 10**6
                ends[key] = self.command_output(raw.ask(operation(session, service, number, "Put",
                                                                  map_pb2.PutInput(key=key, value=value)))).index
            seen = [self.event(raw, events) for _ in range(6)]
            self.assertEqual([event.entry.key for event in seen if event.type == map_pb2.Event.INSERT], list(lives))
            gone = [event.entry.key for event in seen if event.type == map_pb2.Event.REMOVE]
            # They were put so soon after each other as the machine let us: when, the log knows.
            self.assertEqual(node.stop(), 0)
            for entry in map(json.loads, millrace("log", "dump", node.directory, "--json").stdout.splitlines()):
                for key in lives:
                    if ends[key] == int(entry["index"]):
                        put = timestamp_pb2.Timestamp()
                        put.FromJsonString(entry["time"])
                        ends[key] = put.ToNanoseconds() + lives[key] * 10**6
            self.assertEqual(gone, sorted(lives, key=ends.get))

    def event(self, raw, number):
        output = self.operation_output([raw.next_of(number)])
        self.assertEqual(output.status, Status.OK)
        return map_pb2.EventsOutput.FromString(output.payload).event

    def test_a_worker_that_stands_still_loses_no_session(self):
        with Node() as node, Raw(node) as raw:
            session = self.session(raw, 6)
            worker = node.worker(1)
            os.kill(worker, signal.SIGSTOP)
            pass_time(7)
            renewal = raw.send(keep_alive(session))  # in the ring before the worker sees how late it is
            os.kill(worker, signal.SIGCONT)
            self.assertTrue(self.command_output([raw.next_of(renewal)]).HasField("keep_alive"))
            self.alive(raw, session)
            wait_until(lambda: sessions(node) == 0, "its end in the end")

    def test_a_node_that_is_down_loses_no_session(self):
        with Node() as node:
            with Raw(node) as raw:
                session = self.session(raw, 6)
                service = self.command_output(raw.ask(create_service(session, COUNTER, "c"))) \
                    .session_command.create_service.service_id
                self.assertEqual(self.value(raw.ask(increment(session, service, 1))), 1)
            for stop in (node.stop, node.kill):
                stop()
                pass_time(7)
                node.start()
                with Raw(node) as raw:
                    self.alive(raw, session)
                    self.assertEqual(self.value(raw.ask(increment(session, service, 1))), 1)
            wait_until(lambda: sessions(node) == 0, "its end in the end")


if __name__ == "__main__":
    unittest.main()
