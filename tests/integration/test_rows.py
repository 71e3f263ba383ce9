#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every row of fsm.proto does what the protocol says: one test for each line of tests/rows/rows.txt, by the name that
stands there. Each is small and looks at its own row, so that it fails when MR_DROP has the node treat that row as absent
(`make rows` tries them all). What a frame shows is asked of a node by `millrace raw`; a snapshot is read by Python's
protobuf from what test_snapshot_rows.c prints; the rest is asked of a program of ours that reads or writes it.

Without arguments it also holds the list against fsm.proto's descriptor, and fails if a row's test did not run."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from atomix.multiraft.counter.v1 import counter_pb2
from atomix.multiraft.map.v1 import map_pb2
from atomix.multiraft.v1 import fsm_pb2

from node import BIN, Node, Raw
from protocol import (COUNTER, MAP, ServiceTest, Status, close_service, close_session, command, create_service, damage,
                      forget, increment, keep_alive, line, on, open_session, operation, query, session_command)

TOP = pathlib.Path(os.environ["MILLRACE_TOP"])
OUT = pathlib.Path(os.environ["MILLRACE_OUT"])


def read_list():
    """[(row, number, type, test)] and the headings."""
    rows, headings = [], []
    for text in (TOP / "tests/rows/rows.txt").read_text(encoding="utf-8").splitlines():
        words = text.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("message", "enum"):
            headings.append(tuple(words))
        else:
            rows.append((words[0], words[1], " ".join(words[2:-1]), words[-1]))
    return rows, headings


def program(path, *arguments):
    """Runs a test program of ours and gives what it prints; None: it failed."""
    done = subprocess.run([OUT / "tests/unit" / path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False, timeout=60)
    return done.stdout.decode() if done.returncode == 0 else None


def as_read(kind, message):
    """What our reader reads, field by field, in the words of test_agreement.c."""
    done = subprocess.run([OUT / "tests/unit/proto/test_agreement", "--dump"],
                          input=f"{kind} {message.SerializeToString().hex()}\n".encode(), stdout=subprocess.PIPE,
                          check=True)
    return done.stdout.decode().split("\n")[0].split()


class Inputs(ServiceTest):
    """What goes in: the node's reader."""

    def test_partition_command_input_partition_id(self):
        raw = self.raw()
        self.open(raw)
        message = fsm_pb2.PartitionCommandInput(partition_id=1)
        message.command.open_session.timeout.seconds = 60
        for partition in (0, 2, 2**32 - 1):
            message.partition_id = partition
            self.refused(raw.ask(on(1, line("command", message))), "INVALID")

    def test_partition_command_input_command(self):
        raw = self.raw()
        self.refused(raw.ask(line("command", fsm_pb2.PartitionCommandInput(partition_id=1))), "INVALID")
        self.open(raw)

    def test_command_input_timestamp(self):
        message = fsm_pb2.PartitionCommandInput(partition_id=1)
        message.command.timestamp.seconds = 2**40
        message.command.timestamp.nanos = 5
        message.command.open_session.timeout.seconds = 60
        self.assertIn(f"timestamp={2**40}:5", as_read("command", message))
        # The node ignores a client's: time does not move, nothing expires.
        raw = self.raw()
        session, service = self.both(raw, MAP)
        value = map_pb2.Value(value=b"v")
        value.ttl.seconds = 3600
        message.command.session_command.CopyFrom(fsm_pb2.SessionCommandInput(session_id=session))
        what = message.command.session_command.service_command
        what.service_id, what.sequence_num = service, 1
        what.operation.name = "Put"
        what.operation.payload = map_pb2.PutInput(key="k", value=value).SerializeToString()
        self.assertEqual(self.operation_output(raw.ask(line("command", message))).status, Status.OK)
        output = self.query_output(raw.ask(query(session, service, payload=map_pb2.GetInput(key="k"))))
        left = map_pb2.GetOutput.FromString(output.payload).entry.value.ttl.seconds
        self.assertTrue(3000 < left <= 3600, left)

    def test_command_input_open_session(self):
        raw = self.raw()
        self.plain(raw.ask(open_session()), "open_session")

    def test_command_input_keep_alive(self):
        raw = self.raw()
        self.plain(raw.ask(keep_alive(self.open(raw))), "keep_alive")

    def test_command_input_close_session(self):
        raw = self.raw()
        self.plain(raw.ask(close_session(self.open(raw))), "close_session")

    def test_command_input_session_command(self):
        raw = self.raw()
        self.service(raw, self.open(raw))

    def test_open_session_input_timeout(self):
        raw = self.raw()
        self.open(raw, seconds=24 * 3600)
        self.refused(raw.ask(open_session(seconds=24 * 3600 + 1)), "INVALID")
        self.refused(raw.ask(open_session(seconds=0)), "INVALID")

    def test_keep_alive_input_session_id(self):
        raw = self.raw()
        session = self.open(raw)
        self.plain(raw.ask(keep_alive(session)), "keep_alive")
        self.refused(raw.ask(keep_alive(session + 1000000)), "FORBIDDEN")

    def three(self, raw, session, service):
        return [raw.ask(increment(session, service, number)) for number in (1, 2, 3)]

    def test_keep_alive_input_last_input_sequence_num(self):
        raw = self.raw()
        session, service = self.both(raw)
        before = self.three(raw, session, service)
        self.plain(raw.ask(forget(session, 2)), "keep_alive")
        for number in (1, 2):
            self.refused(raw.ask(increment(session, service, number)), "CONFLICT")
        self.assertEqual(raw.ask(increment(session, service, 3)), before[2])

    def test_keep_alive_input_input_filter(self):
        raw = self.raw()
        session, service = self.both(raw)
        before = self.three(raw, session, service)
        self.plain(raw.ask(forget(session, 3, keep=[2])), "keep_alive")
        self.assertEqual(raw.ask(increment(session, service, 2)), before[1])
        for number in (1, 3):
            self.refused(raw.ask(increment(session, service, number)), "CONFLICT")

    def outputs_after(self, acknowledged):
        """A listener has three outputs and is kept, acknowledged like this: the numbers with which a repeat begins."""
        raw = self.raw()
        session, service = self.both(raw, MAP)
        listens = raw.send(self.events(session, service, 1))
        self.frames(raw, listens, 1)
        for number, key in ((2, "a"), (3, "b")):
            self.operation_output(raw.ask(self.put(session, service, number, key)))
        seen = self.frames(raw, listens, 2)
        numbers = [output.session_command.service_command.sequence_num for output in seen]
        self.assertEqual(numbers, [2, 3])
        self.plain(raw.ask(forget(session, 3, keep=[1], outputs=acknowledged)), "keep_alive")
        again = self.raw()
        first, = self.frames(again, again.send(self.events(session, service, 1)), 1)
        self.refused(raw.answer(listens), "CANCELED", "taken over")
        return first.session_command.service_command.sequence_num

    def test_keep_alive_input_last_output_sequence_nums(self):
        self.assertEqual(self.outputs_after({1: 2}), 3)
        self.assertEqual(self.outputs_after({}), 1)

    def test_last_output_sequence_nums_entry_key(self):
        self.assertEqual(self.outputs_after({1: 1, 2: 5, 2**64 - 1: 7}), 2)
        self.assertEqual(self.outputs_after({2: 2}), 1)

    def test_last_output_sequence_nums_entry_value(self):
        self.assertEqual(self.outputs_after({1: 1}), 2)
        self.assertEqual(self.outputs_after({1: 0}), 1)

    def test_close_session_input_session_id(self):
        raw = self.raw()
        stays, goes = self.open(raw), self.open(raw)
        self.plain(raw.ask(close_session(goes)), "close_session")
        self.refused(raw.ask(keep_alive(goes)), "FORBIDDEN")
        self.plain(raw.ask(keep_alive(stays)), "keep_alive")

    def test_session_command_input_session_id(self):
        raw = self.raw()
        session = self.open(raw)
        self.service(raw, session)
        self.refused(raw.ask(create_service(session + 1000000, COUNTER, "x")), "FORBIDDEN")

    def test_session_command_input_create_service(self):
        raw = self.raw()
        self.assertGreater(self.service(raw, self.open(raw)), 0)

    def test_session_command_input_close_service(self):
        raw = self.raw()
        session, service = self.both(raw)
        output = self.command_output(raw.ask(close_service(session, service)))
        self.assertTrue(output.session_command.HasField("close_service"))
        self.refused(raw.ask(increment(session, service, 1)), "FORBIDDEN")

    def test_session_command_input_service_command(self):
        raw = self.raw()
        self.assertEqual(self.value(raw.ask(increment(*self.both(raw), 1, 7))), 7)

    def test_create_service_input_spec(self):
        raw = self.raw()
        session = self.open(raw)
        self.service(raw, session)
        self.refused(raw.ask(session_command(session, create_service=fsm_pb2.CreateServiceInput())), "INVALID")

    def created(self, raw, session, **spec):
        return raw.ask(session_command(session, create_service=fsm_pb2.CreateServiceInput(
            spec=fsm_pb2.ServiceSpec(**spec))))

    def test_service_spec_service(self):
        raw = self.raw()
        session = self.open(raw)
        self.refused(self.created(raw, session, service="no.such.Type", name="x"), "NOT_SUPPORTED")
        output = self.command_output(self.created(raw, session, service=MAP, name=self.id()))
        service = output.session_command.create_service.service_id
        output = self.operation_output(raw.ask(self.put(session, service, 1, "k")))
        self.assertEqual(output.status, Status.OK)

    def test_service_spec_namespace(self):
        raw = self.raw()
        session = self.open(raw)
        ids = [self.command_output(self.created(raw, session, service=COUNTER, namespace=namespace, name="same"))
               .session_command.create_service.service_id for namespace in ("", "a", "b", "a")]
        self.assertEqual(len(set(ids)), 3)
        self.assertEqual(ids[1], ids[3])

    def test_service_spec_name(self):
        raw = self.raw()
        session = self.open(raw)
        ids = [self.command_output(self.created(raw, session, service=COUNTER, namespace="names", name=name))
               .session_command.create_service.service_id for name in ("a", "b", "a")]
        self.assertNotEqual(ids[0], ids[1])
        self.assertEqual(ids[0], ids[2])
        self.refused(self.created(raw, session, service=COUNTER, namespace="names"), "INVALID")

    def test_close_service_input_service_id(self):
        raw = self.raw()
        session = self.open(raw)
        stays, goes = self.service(raw, session), self.service(raw, session, MAP, "another")
        self.command_output(raw.ask(close_service(session, goes)))
        self.refused(raw.ask(self.put(session, goes, 1, "k")), "FORBIDDEN")
        self.assertEqual(self.value(raw.ask(increment(session, stays, 1))), 1)

    def test_service_command_input_service_id(self):
        raw = self.raw()
        session = self.open(raw)
        one, other = self.service(raw, session), self.service(raw, session, name="a second")
        self.assertEqual(self.value(raw.ask(increment(session, one, 1, 5))), 5)
        self.assertEqual(self.value(raw.ask(increment(session, other, 2, 6))), 6)

    def test_service_command_input_sequence_num(self):
        raw = self.raw()
        session, service = self.both(raw)
        answers = [raw.ask(increment(session, service, number)) for number in (1, 2, 1)]
        self.assertEqual(self.value(answers[1]), 2)
        self.assertEqual(answers[2], answers[0])
        self.refused(raw.ask(increment(session, service, 0)), "INVALID")

    def test_service_command_input_operation(self):
        raw = self.raw()
        self.assertEqual(self.value(raw.ask(increment(*self.both(raw), 1, 9))), 9)

    def test_operation_input_name(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.assertEqual(self.value(raw.ask(increment(session, service, 1, 9))), 9)
        self.assertEqual(self.queried(raw.ask(query(session, service))), 9)

    def test_operation_input_payload(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.assertEqual(self.value(raw.ask(increment(session, service, 1, -3))), -3)

    # -- queries

    def test_partition_query_input_partition_id(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.assertEqual(self.queried(raw.ask(query(session, service))), 0)
        for partition in (0, 2):
            self.refused(raw.ask(on(1, query(session, service, partition=partition))), "INVALID")

    def test_partition_query_input_query(self):
        raw = self.raw()
        self.refused(raw.ask(line("query", fsm_pb2.PartitionQueryInput(partition_id=1))), "INVALID")
        self.assertEqual(self.queried(raw.ask(query(*self.both(raw)))), 0)

    def test_partition_query_input_sync(self):
        message = fsm_pb2.PartitionQueryInput(partition_id=1, sync=True)
        self.assertIn("sync=1", as_read("query", message))
        # What anyone has an answer to is seen by a query that is sent afterwards.
        one, other = self.raw(), self.raw()
        session, service = self.both(one)
        for number in range(1, 51):
            self.assertEqual(self.value(one.ask(increment(session, service, number))), number)
            self.assertEqual(self.queried(other.ask(query(session, service, sync=True))), number)

    def test_query_input_max_received_index(self):
        raw = self.raw()
        session, service = self.both(raw)
        index = self.command_output(raw.ask(increment(session, service, 1))).index
        waits = raw.send(query(session, service, after=index + 1))
        self.assertEqual(self.queried(raw.ask(query(session, service, after=index))), 1)
        self.assertFalse([number for number, _ in raw.lines if number == waits], "it did not wait")
        self.assertEqual(self.value(raw.ask(increment(session, service, 2))), 2)
        self.assertEqual(self.queried(raw.answer(waits)), 2)

    def test_query_input_session_query(self):
        raw = self.raw()
        self.refused(raw.ask(line("query", fsm_pb2.PartitionQueryInput(partition_id=1, query=fsm_pb2.QueryInput()))),
                     "INVALID")
        self.assertEqual(self.queried(raw.ask(query(*self.both(raw)))), 0)

    def test_session_query_input_session_id(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.assertEqual(self.queried(raw.ask(query(session, service))), 0)
        self.refused(raw.ask(query(session + 1000000, service)), "FORBIDDEN")

    def test_session_query_input_service_query(self):
        raw = self.raw()
        session, service = self.both(raw)
        message = fsm_pb2.PartitionQueryInput(partition_id=1)
        message.query.session_query.session_id = session
        self.refused(raw.ask(line("query", message)), "INVALID")
        self.assertEqual(self.queried(raw.ask(query(session, service))), 0)

    def test_service_query_input_service_id(self):
        raw = self.raw()
        session = self.open(raw)
        one, other = self.service(raw, session), self.service(raw, session, name="queried")
        self.value(raw.ask(increment(session, other, 1, 4)))
        self.assertEqual(self.queried(raw.ask(query(session, one))), 0)
        self.assertEqual(self.queried(raw.ask(query(session, other))), 4)

    def test_service_query_input_operation(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.value(raw.ask(increment(session, service, 1, 4)))
        self.assertEqual(self.queried(raw.ask(query(session, service))), 4)


class Outputs(ServiceTest):
    """What comes out: the node's writer."""

    def body(self, lines):
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], "^OK ")
        return bytes.fromhex(lines[0].split(" ")[1].replace("-", ""))

    def opened(self):
        return fsm_pb2.PartitionCommandOutput.FromString(self.body(self.raw().ask(open_session())))

    def test_partition_command_output_command(self):
        self.assertTrue(self.opened().HasField("command"))

    def test_command_output_index(self):
        raw = self.raw()
        session, service = self.both(raw)
        answers = [raw.ask(increment(session, service, number)) for number in (1, 2, 1)]
        first, second, again = [self.command_output(answer).index for answer in answers]
        self.assertTrue(0 < first < second)
        self.assertEqual(again, first)  # of the command that the output belongs to

    def test_command_output_open_session(self):
        self.assertTrue(self.opened().command.HasField("open_session"))

    def test_command_output_keep_alive(self):
        raw = self.raw()
        self.assertEqual(self.command_output(raw.ask(keep_alive(self.open(raw)))).WhichOneof("output"), "keep_alive")

    def test_command_output_close_session(self):
        raw = self.raw()
        self.assertEqual(self.command_output(raw.ask(close_session(self.open(raw)))).WhichOneof("output"),
                         "close_session")

    def test_command_output_session_command(self):
        raw = self.raw()
        output = self.command_output(raw.ask(increment(*self.both(raw), 1)))
        self.assertEqual(output.WhichOneof("output"), "session_command")

    def test_open_session_output_session_id(self):
        output = self.opened().command
        self.assertEqual(output.open_session.session_id, output.index)

    # A message without fields has nothing to show but that it is there.
    def test_keep_alive_output(self):
        raw = self.raw()
        self.assertEqual(self.command_output(raw.ask(keep_alive(self.open(raw)))).keep_alive,
                         fsm_pb2.KeepAliveOutput())
        self.test_command_output_keep_alive()

    def test_close_session_output(self):
        self.test_command_output_close_session()

    def test_close_service_output(self):
        self.test_session_command_output_close_service()

    def test_session_command_output_create_service(self):
        raw = self.raw()
        output = self.command_output(raw.ask(create_service(self.open(raw), COUNTER, self.id())))
        self.assertEqual(output.session_command.WhichOneof("output"), "create_service")

    def test_session_command_output_close_service(self):
        raw = self.raw()
        output = self.command_output(raw.ask(close_service(*self.both(raw))))
        self.assertEqual(output.session_command.WhichOneof("output"), "close_service")

    def test_session_command_output_service_command(self):
        raw = self.raw()
        output = self.command_output(raw.ask(increment(*self.both(raw), 1)))
        self.assertEqual(output.session_command.WhichOneof("output"), "service_command")

    def test_create_service_output_service_id(self):
        raw = self.raw()
        output = self.command_output(raw.ask(create_service(self.open(raw), COUNTER, self.id())))
        self.assertEqual(output.session_command.create_service.service_id, output.index)

    def test_service_command_output_sequence_num(self):
        raw = self.raw()
        output = self.command_output(raw.ask(increment(*self.both(raw), 9)))
        self.assertEqual(output.session_command.service_command.sequence_num, 1)

    def test_service_command_output_operation(self):
        raw = self.raw()
        output = self.command_output(raw.ask(increment(*self.both(raw), 1)))
        self.assertTrue(output.session_command.service_command.HasField("operation"))

    def test_operation_output_status(self):
        raw = self.raw()
        self.assertEqual(self.operation_output(raw.ask(increment(*self.both(raw), 1))).status, Status.OK)

    def test_operation_output_payload(self):
        raw = self.raw()
        output = self.operation_output(raw.ask(increment(*self.both(raw), 1, 6)))
        self.assertEqual(output.payload, counter_pb2.IncrementOutput(value=6).SerializeToString())

    def test_operation_output_message(self):
        raw = self.raw()
        output = self.operation_output(raw.ask(operation(*self.both(raw), 1, "Nothing")))
        self.assertNotEqual(output.message, "")
        self.assertEqual(output.payload, b"")

    def asked(self):
        raw = self.raw()
        return fsm_pb2.PartitionQueryOutput.FromString(self.body(raw.ask(query(*self.both(raw)))))

    def test_partition_query_output_query(self):
        self.assertTrue(self.asked().HasField("query"))

    def test_query_output_session_query(self):
        self.assertEqual(self.asked().query.WhichOneof("output"), "session_query")

    def test_session_query_output_service_query(self):
        self.assertEqual(self.asked().query.session_query.WhichOneof("output"), "service_query")

    def test_service_query_output_operation(self):
        self.assertTrue(self.asked().query.session_query.service_query.HasField("operation"))


class Snapshots(unittest.TestCase):
    """A state of two sessions and two services, made by test_snapshot_rows.c, as Python's protobuf reads it."""

    def snapshot(self, which="snapshot"):
        for text in (program("fsm/test_snapshot_rows", "--print") or "").splitlines():
            word, data = text.split(" ")
            if word == which:
                return fsm_pb2.PartitionSnapshot.FromString(bytes.fromhex(data))
        self.fail("no snapshot")

    def test_partition_snapshot_index(self):
        self.assertEqual(self.snapshot().index, 8)

    def test_partition_snapshot_timestamp(self):
        timestamp = self.snapshot().timestamp
        self.assertEqual((timestamp.seconds, timestamp.nanos), (8, 9))

    def test_partition_snapshot_sessions(self):
        self.assertEqual(len(self.snapshot().sessions), 2)

    def test_partition_snapshot_services(self):
        self.assertEqual(len(self.snapshot().services), 2)

    def test_session_snapshot_session_id(self):
        self.assertEqual([session.session_id for session in self.snapshot().sessions], [1, 2])

    def test_session_snapshot_timeout(self):
        timeouts = [session.timeout for session in self.snapshot().sessions]
        self.assertEqual([(timeout.seconds, timeout.nanos) for timeout in timeouts], [(20, 1), (3600, 0)])

    def test_session_snapshot_last_updated(self):
        times = [session.last_updated for session in self.snapshot().sessions]
        self.assertEqual([(time.seconds, time.nanos) for time in times], [(5, 6), (8, 9)])

    def test_session_snapshot_commands(self):
        self.assertEqual([len(session.commands) for session in self.snapshot().sessions], [0, 2])

    def commands(self):
        return self.snapshot().sessions[1].commands

    def test_command_snapshot_command_sequence_num(self):
        self.assertEqual([held.command_sequence_num for held in self.commands()], [1, 2])

    def test_command_snapshot_state(self):
        self.assertEqual([held.state for held in self.commands()], [fsm_pb2.COMMAND_COMPLETE] * 2)

    def test_command_snapshot_pending_outputs(self):
        # The first one's is acknowledged.
        first, second = self.commands()
        self.assertEqual(len(first.pending_outputs), 0)
        self.assertEqual([output.sequence_num for output in second.pending_outputs], [1])
        self.assertEqual(second.pending_outputs[0].operation.status, Status.CONFLICT)

    def test_command_state_command_complete(self):
        self.assertEqual(self.commands()[1].state, fsm_pb2.COMMAND_COMPLETE)

    # An open command is in the snapshot that test_dump.c makes and reads.
    def test_command_snapshot_input(self):
        self.assertIsNotNone(program("fsm/test_dump"))

    def test_command_state_command_open(self):
        self.assertIsNotNone(program("fsm/test_dump"))

    def services(self):
        return self.snapshot().services

    def test_service_snapshot_service_id(self):
        self.assertEqual([service.service_id for service in self.services()], [3, 4])

    def test_service_snapshot_spec(self):
        self.assertEqual([(service.spec.service, service.spec.namespace, service.spec.name)
                          for service in self.services()], [(COUNTER, "default", "counter"), (MAP, "default", "map")])

    def test_service_snapshot_data(self):
        self.assertEqual(counter_pb2.CounterSnapshot.FromString(self.services()[0].data).value, 77)

    def test_service_snapshot_sessions(self):
        self.assertEqual([list(service.sessions) for service in self.services()], [[2], [1, 2]])

    # The code of the services there are does not fail; that of one that is only made for tests does.
    def test_status_error(self):
        held = self.snapshot("error").sessions[0].commands[0]
        self.assertEqual(held.pending_outputs[0].operation.status, Status.ERROR)
        self.assertNotEqual(held.pending_outputs[0].operation.message, "")


class Statuses(ServiceTest):
    """Each status where the protocol gives it."""

    def test_status_unknown(self):
        # Never sent; a reader takes it as failure.
        self.assertIsNotNone(program("client/test_answer"))

    def test_status_ok(self):
        raw = self.raw()
        self.assertEqual(self.operation_output(raw.ask(increment(*self.both(raw), 1))).status, Status.OK)

    def test_status_canceled(self):
        raw = self.raw()
        session, service = self.both(raw, MAP)
        listens = raw.send(self.events(session, service, 1))
        self.frames(raw, listens, 1)
        self.command_output(raw.ask(close_service(session, service)))
        last = self.operation_output(raw.answer(listens))
        self.assertEqual(last.status, Status.CANCELED)
        self.assertNotEqual(last.message, "")

    def test_status_not_found(self):
        raw = self.raw()
        session, service = self.both(raw, MAP)
        key = map_pb2.GetInput(key="k")
        self.assertEqual(self.query_output(raw.ask(query(session, service, payload=key))).status, Status.NOT_FOUND)

    def test_status_already_exists(self):
        raw = self.raw()
        session, service = self.both(raw, MAP)
        insert = map_pb2.InsertInput(key="k", value=map_pb2.Value(value=b"v"))
        statuses = [self.operation_output(raw.ask(operation(session, service, number, "Insert", insert))).status
                    for number in (1, 2)]
        self.assertEqual(statuses, [Status.OK, Status.ALREADY_EXISTS])

    def test_status_unauthorized(self):
        if os.getuid() != 0:
            self.skipTest("only root can be another user")
        folder = tempfile.mkdtemp(prefix="mr-open-", dir="/tmp")  # ours in TMPDIR are closed to others
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o755)
        shutil.copy(BIN, folder + "/millrace")
        node = Node("--socket", folder + "/socket")
        node.socket = folder + "/socket"
        with node:
            os.chmod(node.socket, 0o666)
            raw = self.raw(node=node)
            session, service = self.both(raw)
            for request in (keep_alive(session), close_session(session), increment(session, service, 1),
                            query(session, service), close_service(session, service),
                            create_service(session, COUNTER, "x")):
                done = subprocess.run([folder + "/millrace", "raw", "--socket", node.socket], user=65534, group=65534,
                                      extra_groups=[], input=request.encode(), stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, check=False, timeout=60)
                first, end = done.stdout.decode().splitlines()
                self.assertEqual(end, "1 end")
                self.refused([first.split(" ", 1)[1]], "UNAUTHORIZED")
            self.assertEqual(self.value(raw.ask(increment(session, service, 1))), 1)

    def test_status_forbidden(self):
        raw = self.raw()
        self.refused(raw.ask(keep_alive(2**63)), "FORBIDDEN")

    def test_status_conflict(self):
        raw = self.raw()
        session, service = self.both(raw)
        compare = counter_pb2.CompareAndSetInput(compare=1, update=2)
        output = self.operation_output(raw.ask(operation(session, service, 1, "CompareAndSet", compare)))
        self.assertEqual(output.status, Status.CONFLICT)
        self.plain(raw.ask(forget(session, 1)), "keep_alive")
        self.refused(raw.ask(increment(session, service, 1)), "CONFLICT")

    def test_status_invalid(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.refused(raw.ask(increment(session, service, 0)), "INVALID")
        self.assertEqual(self.operation_output(raw.ask(operation(session, service, 1, "Get"))).status, Status.INVALID)

    def test_status_unavailable(self):
        # Over the limit of 64 MiB of outputs that are not acknowledged.
        raw = self.raw()
        session, service = self.both(raw, MAP)
        value = bytes(1000000)
        for number in range(1, 72):
            lines = raw.ask(self.put(session, service, number, "k", value))
            if not lines[0].startswith("OK"):
                break
        self.refused(lines, "UNAVAILABLE", str(64 << 20))

    def test_status_not_supported(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.refused(raw.ask(create_service(session, "no.such.Type", "x")), "NOT_SUPPORTED")
        self.assertEqual(self.operation_output(raw.ask(operation(session, service, 1, "Nothing"))).status,
                         Status.NOT_SUPPORTED)

    def test_status_timeout(self):
        raw = self.raw()
        self.refused(raw.ask(query(*self.both(raw), after=2**40)), "TIMEOUT")

    def test_status_internal(self):
        with Node() as node:
            raw = Raw(node)
            session, service = self.both(raw, MAP)
            for number, key in ((1, "to-be-damaged"), (2, "behind it")):
                self.operation_output(raw.ask(self.put(session, service, number, key)))
            raw.__exit__()
            node.kill()
            damage(node, b"to-be-damaged")
            node.start(serving=False)
            self.refused(self.raw(node=node).ask(keep_alive(session)), "INTERNAL")


# -- the list ------------------------------------------------------------------------------------------------------


def described():
    """The rows of fsm.proto's descriptor, without their tests, and the headings."""
    file = fsm_pb2.DESCRIPTOR
    prefix = file.package + "."
    messages, enums = list(file.message_types_by_name.values()), list(file.enum_types_by_name.values())
    for message in list(messages):
        messages += message.nested_types
        enums += message.enum_types
    rows, headings = set(), set()
    for message in messages:
        headings.add(("message", message.full_name[len(prefix):]))
        if not message.fields:
            rows.add((message.name, "-", "empty"))
        for field in message.fields:
            scalar = {field.TYPE_UINT64: "uint64", field.TYPE_UINT32: "uint32", field.TYPE_BYTES: "bytes",
                      field.TYPE_STRING: "string", field.TYPE_BOOL: "bool"}.get(field.type)
            kind = scalar or (field.message_type or field.enum_type).full_name
            kind = kind[len(prefix):] if kind.startswith(prefix) else kind
            repeated = "repeated " if field.label == field.LABEL_REPEATED else ""
            rows.add((f"{message.name}.{field.name}", str(field.number), repeated + kind))
    for enum in enums:
        headings.add(("enum", enum.full_name[len(prefix):]))
        rows |= {(f"{enum.name}.{value.name}", str(value.number), "value") for value in enum.values}
    return rows, headings


class TheList(unittest.TestCase):
    def test_the_list_is_the_protocol(self):
        rows, headings = read_list()
        there, there_headings = described()
        self.assertEqual({row[:3] for row in rows}, there)
        self.assertEqual(set(headings), there_headings)
        self.assertEqual(len(rows), len(there), "a row stands there twice")
        self.assertEqual(sum(kind == "message" for kind, _ in headings), 34)  # 33 and the map's entry

    def test_every_row_has_a_test_of_its_own(self):
        tests = [test for *_, test in read_list()[0]]
        self.assertEqual(len(set(tests)), len(tests))
        for test in tests:
            self.assertIn(test, METHODS)

    def test_every_row_can_be_dropped(self):
        environment = {name: value for name, value in os.environ.items() if name != "MR_DROP"}
        for row, *_ in read_list()[0]:
            done = subprocess.run([BIN, "--help"], env={**environment, "MR_DROP": row}, stdout=subprocess.DEVNULL,
                                  check=False)
            self.assertEqual(done.returncode, 0, row)
        done = subprocess.run([BIN, "--help"], env={**environment, "MR_DROP": "KeepAliveInput.nothing"},
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"KeepAliveInput.nothing", done.stderr)

    def test_what_is_built_for_users_drops_nothing(self):
        self.assertIn(b"MR_DROP", pathlib.Path(BIN).read_bytes())
        for name in ("millrace", "libmillrace.a", "libmillrace.so"):
            self.assertNotIn(b"MR_DROP", (OUT / name).read_bytes(), name)


METHODS = {method: kind for kind in (Inputs, Outputs, Snapshots, Statuses) for method in dir(kind)
           if method.startswith("test_")}


class Result(unittest.TextTestResult):
    """Remembers which tests ran to a good end."""
    passed = set()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed.add(test.id().split(".")[-1])


def main():
    """All tests, or the one that is named by its method."""
    runner = unittest.TextTestRunner(resultclass=Result)
    if len(sys.argv) > 1:
        suite = unittest.TestSuite(METHODS[name](name) for name in sys.argv[1:])
        result = runner.run(suite)
        return 0 if result.wasSuccessful() and result.passed == set(sys.argv[1:]) else 1
    good = runner.run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])).wasSuccessful()
    left = [f"{row}: {test}" for row, _, _, test in read_list()[0] if test not in Result.passed]
    if left:
        print("These rows have no test that passed:", *left, sep="\n    ")
    return 0 if good and not left else 1


if __name__ == "__main__":
    sys.exit(main())
