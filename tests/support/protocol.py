# SPDX-License-Identifier: Apache-2.0
"""Lines for `millrace raw`, encoded by Python's protobuf, and what is asserted of its answers."""

import unittest

from atomix.multiraft.counter.v1 import counter_pb2
from atomix.multiraft.v1 import fsm_pb2

COUNTER = "atomix.multiraft.counter.v1.Counter"
MAP = "atomix.multiraft.map.v1.Map"
Status = fsm_pb2.OperationOutput.Status


def line(word, message):
    return f"{word} {message.SerializeToString().hex() or '-'}"


def command(partition=1, **fields):
    return line("command", fsm_pb2.PartitionCommandInput(partition_id=partition,
                                                         command=fsm_pb2.CommandInput(**fields)))


def open_session(partition=1, seconds=60):
    request = fsm_pb2.OpenSessionInput()
    request.timeout.seconds = seconds
    return command(partition, open_session=request)


def keep_alive(session, partition=1):
    return command(partition, keep_alive=fsm_pb2.KeepAliveInput(session_id=session))


def session_command(session, partition=1, **fields):
    return command(partition, session_command=fsm_pb2.SessionCommandInput(session_id=session, **fields))


def create_service(session, kind, name, partition=1):
    spec = fsm_pb2.ServiceSpec(service=kind, namespace="raw", name=name)
    return session_command(session, partition, create_service=fsm_pb2.CreateServiceInput(spec=spec))


def operation(session, service, number, name, payload=None, partition=1):
    what = fsm_pb2.OperationInput(name=name, payload=payload.SerializeToString() if payload else b"")
    return session_command(session, partition, service_command=fsm_pb2.ServiceCommandInput(
        service_id=service, sequence_num=number, operation=what))


def increment(session, service, number, delta=1, partition=1):
    return operation(session, service, number, "Increment", counter_pb2.IncrementInput(delta=delta), partition)


def query(session, service, name="Get", payload=None, partition=1, after=0, sync=False):
    message = fsm_pb2.PartitionQueryInput(partition_id=partition, sync=sync)
    message.query.max_received_index = after
    message.query.session_query.session_id = session
    message.query.session_query.service_query.service_id = service
    message.query.session_query.service_query.operation.name = name
    if payload:
        message.query.session_query.service_query.operation.payload = payload.SerializeToString()
    return "query " + message.SerializeToString().hex()


def on(partition, line):
    """The same with @P."""
    word, body = line.split(" ")
    return f"{word}@{partition} {body}"


class RawTest(unittest.TestCase):
    def command_output(self, lines):
        self.assertEqual(len(lines), 1, lines)
        status, body = lines[0].split(" ")
        self.assertEqual(status, "OK")
        return fsm_pb2.PartitionCommandOutput.FromString(bytes.fromhex(body)).command

    def operation_output(self, lines):
        return self.command_output(lines).session_command.service_command.operation

    def value(self, lines):
        """Of a counter's command."""
        output = self.operation_output(lines)
        self.assertEqual(output.status, Status.OK)
        return counter_pb2.IncrementOutput.FromString(output.payload).value

    def query_output(self, lines):
        self.assertEqual(len(lines), 1, lines)
        status, body = lines[0].split(" ")
        self.assertEqual(status, "OK")
        return fsm_pb2.PartitionQueryOutput.FromString(bytes.fromhex(body)).query.session_query.service_query.operation

    def queried(self, lines):
        output = self.query_output(lines)
        self.assertEqual(output.status, Status.OK)
        return counter_pb2.GetOutput.FromString(output.payload).value

    def counter(self, raw, name="c", partition=1):
        """A session and in it a counter."""
        session = self.command_output(raw.ask(open_session(partition))).open_session.session_id
        output = self.command_output(raw.ask(create_service(session, COUNTER, name, partition)))
        return session, output.session_command.create_service.service_id

    def refused(self, lines, status, *words):
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], f"^{status} - .")
        for word in words:
            self.assertIn(word, lines[0])
