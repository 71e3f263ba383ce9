# SPDX-License-Identifier: Apache-2.0
"""Lines for `millrace raw`, encoded by Python's protobuf, and what is asserted of its answers."""

import ctypes
import pathlib
import unittest

from atomix.multiraft.counter.v1 import counter_pb2
from atomix.multiraft.map.v1 import map_pb2
from atomix.multiraft.v1 import fsm_pb2

from node import Node, Raw

XXH3 = ctypes.CDLL("libxxhash.so.0").XXH3_64bits_withSeed  # (bytes, size, seed)
XXH3.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
XXH3.restype = ctypes.c_uint64

COUNTER = "atomix.multiraft.counter.v1.Counter"
MAP = "atomix.multiraft.map.v1.Map"
Status = fsm_pb2.OperationOutput.Status


def line(word, message):
    return f"{word} {message.SerializeToString().hex() or '-'}"


def command(partition=1, **fields):
    return line("command", fsm_pb2.PartitionCommandInput(partition_id=partition,
                                                         command=fsm_pb2.CommandInput(**fields)))


def open_session(partition=1, seconds=3600):
    """One that nobody renews should outlive its test on the slowest machine: its end is an entry of the log, too."""
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
        self.assertRegex(lines[0][:200], f"^{status} - .")
        for word in words:
            self.assertIn(word, lines[0])


class ServiceTest(RawTest):
    """Besides, a conversation of one's own on a node that all tests of the class share, started by the first."""
    NODE_OPTIONS = ()
    node = None

    @classmethod
    def the_node(cls):
        if cls.node is None:
            cls.node = Node(*cls.NODE_OPTIONS)
            cls.node.__enter__()
        return cls.node

    @classmethod
    def tearDownClass(cls):
        if cls.node is not None:
            cls.node.__exit__()

    def raw(self, *options, node=None):
        raw = Raw(node or self.the_node(), *options)
        self.addCleanup(raw.__exit__)
        return raw

    def open(self, raw, seconds=3600):
        """A new session."""
        output = self.command_output(raw.ask(open_session(seconds=seconds)))
        self.assertTrue(output.HasField("open_session"))
        return output.open_session.session_id

    def service(self, raw, session, kind=COUNTER, name=None):
        """A service in it, named after this test and its type."""
        output = self.command_output(raw.ask(create_service(session, kind, name or f"{self.id()} {kind}")))
        self.assertTrue(output.session_command.HasField("create_service"))
        return output.session_command.create_service.service_id

    def both(self, raw, kind=COUNTER):
        """A new session and a service in it."""
        session = self.open(raw)
        return session, self.service(raw, session, kind)

    def plain(self, lines, member):
        """The answer of a command that has nothing to say but that it is done."""
        self.assertTrue(self.command_output(lines).HasField(member))

    def frames(self, raw, number, count):
        """The next outputs printed for a line, decoded."""
        return [self.command_output([raw.next_of(number)]) for _ in range(count)]

    def put(self, session, service, number, key, value=b"v", **fields):
        return operation(session, service, number, "Put", map_pb2.PutInput(key=key, value=map_pb2.Value(value=value),
                                                                          **fields))

    def events(self, session, service, number, key="", replay=False):
        return operation(session, service, number, "Events", map_pb2.EventsInput(key=key, replay=replay))


def bloom(numbers, bits=1024, probes=7):
    """KeepAliveInput.input_filter over the numbers."""
    array = bytearray(bits // 8)
    for number in numbers:
        data = number.to_bytes(8, "big")
        first, second = XXH3(data, 8, 0), XXH3(data, 8, 1) | 1
        for probe in range(probes):
            bit = (first + probe * second) % 2**64 % bits
            array[bit // 8] |= 1 << bit % 8
    return bytes([1, probes]) + bytes(array)


def forget(session, last, keep=(), outputs=None):
    """A KeepAlive that lets go of all up to `last` but the numbers in `keep`."""
    return command(keep_alive=fsm_pb2.KeepAliveInput(
        session_id=session, last_input_sequence_num=last, input_filter=bloom(keep) if keep else b"",
        last_output_sequence_nums=outputs or {}))


def close_service(session, service):
    return session_command(session, close_service=fsm_pb2.CloseServiceInput(service_id=service))


def close_session(session):
    return command(close_session=fsm_pb2.CloseSessionInput(session_id=session))


def damage(node, text):
    """Changes a byte of what was acknowledged, in a segment of the first partition; gives its path and where."""
    for path in sorted(pathlib.Path(node.directory).rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        at = data.find(text)
        if at >= 0:
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(bytes([data[at] ^ 1]))
            return path, at
    raise AssertionError("no segment has it")
