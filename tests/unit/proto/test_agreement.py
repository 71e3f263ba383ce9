#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Does our reader read what protobuf reads, and our writer write what protobuf writes?

Makes messages of every form the wire allows (any field order, repeated and split fields, unknown fields and groups,
wrong wire types, padded varints, bad UTF-8, nesting up to the limit and past it) and mutations of them, has both
Debian's protobuf (its C++ runtime) and `test_agreement --dump` read each, and compares what they read, field by field;
then what our writer makes of it with protobuf's deterministic serialization.

Environment: MILLRACE_AGREEMENT_CASES, how many; MILLRACE_AGREEMENT_SEED, to run another set.
"""

import os
import random
import subprocess
import sys
import time
import unittest
import warnings

OUT = os.environ.get("MILLRACE_OUT", "build")
sys.path.insert(0, os.path.join(OUT, "gen-py"))

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message, message_factory, timestamp_pb2
from google.protobuf.internal import api_implementation

from atomix.multiraft.v1 import fsm_pb2

CASES = int(os.environ.get("MILLRACE_AGREEMENT_CASES", "60000"))
SEED = int(os.environ.get("MILLRACE_AGREEMENT_SEED", "20240607"))
AT_ONCE = 20000  # cases in one run of our program
PROGRAM = os.path.join(OUT, "tests", "unit", "proto", "test_agreement")

AMBIGUOUS = 255
VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)

# Of `input` and of `output` alike.
MEMBERS = ["open_session", "keep_alive", "close_session", "session_command"]
SESSION_MEMBERS = ["create_service", "close_service", "service_command"]

KINDS = {
    "command": fsm_pb2.PartitionCommandInput,
    "query": fsm_pb2.PartitionQueryInput,
    "command_output": fsm_pb2.PartitionCommandOutput,
    "query_output": fsm_pb2.PartitionQueryOutput,
}


def without_oneofs():
    """The same classes, but members of a `oneof` are plain fields, so that one can see that several were there."""
    file = descriptor_pb2.FileDescriptorProto()
    fsm_pb2.DESCRIPTOR.CopyToProto(file)
    for kind in file.message_type:
        kind.ClearField("oneof_decl")
        for field in kind.field:
            field.ClearField("oneof_index")
    pool = descriptor_pool.DescriptorPool()
    for needed in (duration_pb2, timestamp_pb2):
        pool.AddSerializedFile(needed.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    factory = message_factory.MessageFactory(pool)
    return {name: factory.GetPrototype(pool.FindMessageTypeByName(kind.DESCRIPTOR.full_name))
            for name, kind in KINDS.items()}


PLAIN = without_oneofs()


# -- what protobuf reads, in the words of test_agreement.c ---------------------------------------------------------


def parse(kind, data):
    """The message, or None. Where a tag ends a message that is nobody's sub-message (0, or a group's end), the C++
    parser says false and Python's binding merely warns: malformed all the same."""
    result = kind()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            result.ParseFromString(data)
        except message.DecodeError:
            return None
    return None if said else result


def member(plain, names):
    """(number, name) of the member that is set, or (AMBIGUOUS, None), or (0, None)."""
    there = [name for name in names if plain.HasField(name)]
    if len(there) > 1:
        return AMBIGUOUS, None
    return (plain.DESCRIPTOR.fields_by_name[there[0]].number, there[0]) if there else (0, None)


def duration(holder, name):
    value = getattr(holder, name)
    return f"{value.seconds}:{value.nanos}" if holder.HasField(name) else "none"


def line(**fields):
    return "".join(f" {name}={value}" for name, value in fields.items())


def show_command(real, plain):
    command, flat = real.command, plain.command
    kind, name = member(flat, MEMBERS)
    text = line(partition_id=real.partition_id, has_command=int(real.HasField("command")), kind=kind,
                timestamp=duration(command, "timestamp"))
    if kind == AMBIGUOUS:
        return text
    session_kind, session_name = 0, None
    if name == "session_command":
        session_kind, session_name = member(flat.session_command, SESSION_MEMBERS)
    session_id = 0 if name in (None, "open_session") else getattr(command, name).session_id
    text += line(session_id=session_id, session_kind=session_kind)
    if session_kind == AMBIGUOUS:
        return text
    session, keep_alive = command.session_command, command.keep_alive
    entries = keep_alive.last_output_sequence_nums
    spec = session.create_service.spec
    service_command = session.service_command
    service_id = session.close_service.service_id if session_name == "close_service" else service_command.service_id
    return text + line(
        timeout=duration(command.open_session, "timeout"), input_filter=keep_alive.input_filter.hex(),
        last_input_sequence_num=keep_alive.last_input_sequence_num, has_map=int(len(entries) > 0),
        map="".join(f"{key}:{entries[key]}," for key in sorted(entries)),
        service=spec.service.encode().hex(), namespace=spec.namespace.encode().hex(),
        spec_name=spec.name.encode().hex(), service_id=service_id, sequence_num=service_command.sequence_num,
        name=service_command.operation.name.encode().hex(), payload=service_command.operation.payload.hex())


def show_query(real, plain):
    query = real.query
    session = query.session_query
    service = session.service_query
    return line(partition_id=real.partition_id, sync=int(real.sync), has_query=int(real.HasField("query")),
                max_received_index=query.max_received_index, query_members=int(query.HasField("session_query")),
                session_query_members=int(session.HasField("service_query")), session_id=session.session_id,
                service_id=service.service_id, name=service.operation.name.encode().hex(),
                payload=service.operation.payload.hex())


def show_operation_output(output):
    return line(status=output.status, payload=output.payload.hex(), message=output.message.encode().hex())


def show_command_output(real, plain):
    command, flat = real.command, plain.command
    kind, name = member(flat, MEMBERS)
    text = line(index=command.index, kind=kind)
    if kind == AMBIGUOUS:
        return text
    session_kind = 0
    if name == "session_command":
        session_kind, _ = member(flat.session_command, SESSION_MEMBERS)
        session_kind += 1 if 0 < session_kind < AMBIGUOUS else 0
    text += line(session_kind=session_kind)
    if session_kind == AMBIGUOUS:
        return text
    session = command.session_command
    number = command.open_session.session_id if name == "open_session" else session.create_service.service_id
    return text + line(id=number, sequence_num=session.service_command.sequence_num) + show_operation_output(
        session.service_command.operation)


def show_query_output(real, plain):
    return show_operation_output(real.query.session_query.service_query.operation)


SHOW = {"command": show_command, "query": show_query, "command_output": show_command_output,
        "query_output": show_query_output}


def complete(kind, real):
    """Adds the sub-messages that our writer always writes, and takes away what it does not know."""
    if kind == "command":
        session = real.command.session_command if real.command.HasField("session_command") else None
        if session is not None and session.HasField("create_service"):
            session.create_service.spec.SetInParent()
        if session is not None and session.HasField("service_command"):
            session.service_command.operation.SetInParent()
    elif kind == "query":
        real.query.session_query.service_query.operation.SetInParent()
    elif kind == "command_output":
        real.command.SetInParent()
        if real.command.session_command.HasField("service_command"):
            real.command.session_command.service_command.operation.SetInParent()
    else:
        real.query.session_query.service_query.operation.SetInParent()
    real.DiscardUnknownFields()
    return real


def expected(kind, data):
    """The two lines that test_agreement --dump should print."""
    real, plain = parse(KINDS[kind], data), parse(PLAIN[kind], data)
    assert (real is None) == (plain is None)
    if real is None:
        return "MALFORMED", "-"
    text = SHOW[kind](real, plain)
    if f"kind={AMBIGUOUS}" in text:
        return text, "-"
    return text, complete(kind, real).SerializeToString(deterministic=True).hex()


# -- messages of every form ----------------------------------------------------------------------------------------


class Maker:
    NUMBERS = [0, 1, 2, 127, 128, 129, 255, 300, 16383, 16384, 2**21, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
               2**32 + 5, 2**35, 2**49, 2**56 - 1, 2**56, 2**63 - 1, 2**63, 2**64 - 1]
    TEXTS = [b"", b"x", b"Increment", b"0123456", b"01234567", b"012345678", b"a\0b", "\u00e9".encode(),
             "\u20ac".encode(), "\U0001f600".encode(), "\u07ff\u0800\uffff\U00010000\U0010ffff".encode(),
             b"\xed\x9f\xbf\xee\x80\x80", b"0123456789abcdef\xc3\xa9fedcba9876543210", b"n" * 127, b"n" * 128,
             "\u00e9".encode() * 200]
    BAD_TEXTS = [b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc3", b"\xc3(", b"\xe0\x80\x80", b"\xe0\x9f\xbf",
                 b"\xe2\x82", b"\xe2(\xa1", b"\xe2\x82(", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80",
                 b"\xf0\x8f\xbf\xbf", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff",
                 b"01234567\xff", b"0123456789\xed\xa0\x80"]
    # Bytes that make malformed whatever message they stand in: number 0, wire types 6 and 7, a group's end without a
    # beginning and the reverse, a tag whose bits are all dropped, half a tag.
    NEVER_VALID = [b"\x00", b"\x01\x00", b"\x02\x00", b"\x80\x00", b"\x0e", b"\x0f", b"\xa6\x06\x00", b"\xa7\x06\x00",
                   b"\x0c", b"\xa4\x06", b"\xa3\x06", b"\x80\x80\x80\x80\x10", b"\x80"]

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.wild = 0.0  # how often something happens that protobuf would not write itself

    def chance(self, probability):
        return self.random.random() < probability

    def odd(self, share=1.0):
        return self.random.random() < self.wild * share

    def number(self):
        if self.chance(0.5):
            return self.random.choice(self.NUMBERS)
        return self.random.getrandbits(self.random.randint(1, 64))

    def varint(self, value, limit=10):
        """The shortest form, or now and then a padded one, rarely one of more bytes than are allowed."""
        out = bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
        if self.odd(0.15) and len(out) < limit:
            longer = self.random.randint(1, limit - len(out))
            out[-1] |= 0x80
            out += b"\x80" * (longer - 1) + b"\x00"
        if self.odd(0.05) and len(out) == limit:  # bits that are dropped
            out[-1] = self.random.randrange(0x80)
        if self.odd(0.01):  # too long
            out[-1] |= 0x80
            out += b"\x80" * (limit - len(out)) + b"\x00"
        return bytes(out)

    def tag(self, number, wire):
        return self.varint(number << 3 | wire, 5)

    def bytes(self, data):
        length = len(data)
        if self.odd(0.01):
            length = max(0, length + self.random.choice([-1, 1, 2, 1000, 2**31 - 20, 2**31, 2**32, 2**33]))
        return self.varint(length, 5) + data

    def unknown_number(self, kind):
        while True:
            number = self.random.choice([self.random.randint(1, 20), self.random.randint(1, 2**29 - 1), 2**29 - 1, 16])
            if kind is None or number not in kind.fields_by_number:
                return number

    def raw(self, wire, number, depth):
        """A value of that wire type that means nothing."""
        if wire == VARINT:
            return self.varint(self.number())
        if wire == FIXED64:
            return self.random.randbytes(8)
        if wire == FIXED32:
            return self.random.randbytes(4)
        if wire == BYTES:
            return self.bytes(self.random.choice(self.TEXTS + self.BAD_TEXTS))
        inside = b"".join(self.unknown(None, depth + 1) for _ in range(self.random.randint(0, 2)))
        return inside + self.tag(number + (1 if self.odd(0.02) else 0), END_GROUP)

    def unknown(self, kind, depth):
        wires = [VARINT, FIXED64, BYTES, FIXED32] + ([GROUP] if depth < 8 else [])
        wire, number = self.random.choice(wires), self.unknown_number(kind)
        return self.tag(number, wire) + self.raw(wire, number, depth)

    def deep_group(self):
        number, count = self.random.randint(30, 40), self.random.randint(94, 101)
        return self.tag(number, GROUP) * count + self.tag(number, END_GROUP) * count

    def text(self):
        if self.odd(0.1):
            return self.random.choice(self.BAD_TEXTS)
        return self.random.choice(self.TEXTS)

    def data(self):
        return self.random.choice([b"", b"\x08\x01", self.random.randbytes(self.random.randint(0, 40)), bytes(127),
                                   self.random.randbytes(300)])

    def field(self, field, depth):
        """One occurrence of a field (of a sub-message: one piece)."""
        if self.odd(0.1):
            wire = self.random.choice([VARINT, FIXED64, BYTES, GROUP, FIXED32])
            right = BYTES if field.type in (field.TYPE_MESSAGE, field.TYPE_STRING, field.TYPE_BYTES) else VARINT
            if wire != right:
                return self.tag(field.number, wire) + self.raw(wire, field.number, depth)
        if field.type == field.TYPE_MESSAGE:
            return self.tag(field.number, BYTES) + self.bytes(self.fields(field.message_type, depth + 1))
        if field.type == field.TYPE_STRING:
            return self.tag(field.number, BYTES) + self.bytes(self.text())
        if field.type == field.TYPE_BYTES:
            return self.tag(field.number, BYTES) + self.bytes(self.data())
        value = self.random.randint(0, 14) if field.type == field.TYPE_ENUM and self.chance(0.8) else self.number()
        return self.tag(field.number, VARINT) + self.varint(value)

    def fields(self, kind, depth=0):
        """A message's bytes."""
        chosen = []
        for oneof in kind.oneofs:
            members = list(oneof.fields)
            count = 1 if not self.odd(0.15) else self.random.choice([0, 2])
            # Mostly the last: it is the one that goes on to the operation.
            chosen += [members[-1] if self.chance(0.6) else self.random.choice(members) for _ in range(count)]
        chosen += [field for field in kind.fields if field.containing_oneof is None and self.chance(0.85)]
        parts = []
        for field in sorted(chosen, key=lambda each: each.number):
            again = self.random.randint(2, 3) if self.odd(0.25) else 1
            if field.label == field.LABEL_REPEATED:
                again = self.random.randint(0, 4)
            parts += [self.field(field, depth) for _ in range(again)]
        while self.odd(0.2):
            parts.append(self.unknown(kind, depth))
        if self.odd(0.02):
            parts.append(self.deep_group())
        if self.odd(0.01):
            parts.append(self.random.choice(self.NEVER_VALID))
        if self.odd(0.5):
            self.random.shuffle(parts)
        return b"".join(parts)

    def mutate(self, data):
        data = bytearray(data)
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randrange(len(data) + 1)
            how = self.random.randrange(5)
            if how == 0:
                del data[at:]
            elif how == 1 and at < len(data):
                data[at] = self.random.choice([0, 1, 0x7F, 0x80, 0xFF, self.random.randrange(256), data[at] ^ 1])
            elif how == 2:
                data[at:at] = self.random.randbytes(self.random.randint(1, 3))
            elif how == 3:
                del data[at:at + self.random.randint(1, 3)]
            else:
                start = self.random.randrange(len(data) + 1)
                data[at:at] = data[start:start + self.random.randint(1, 12)]
        return bytes(data)

    def case(self):
        """(kind, bytes)."""
        kind = self.random.choice(["command", "command", "command", "query", "command_output", "query_output"])
        self.wild = self.random.choice([0.0, 0.2, 0.5, 1.0])
        data = self.fields(KINDS[kind].DESCRIPTOR)
        return kind, self.mutate(data) if self.chance(0.25) else data


# -- the comparison ------------------------------------------------------------------------------------------------


def dumps(cases):
    """The pair of lines that our program prints for each (kind, bytes)."""
    lines = "".join(f"{kind} {data.hex()}\n" for kind, data in cases)
    done = subprocess.run([PROGRAM, "--dump"], input=lines.encode(), stdout=subprocess.PIPE, check=False)
    out = done.stdout.decode().split("\n")[:-1]
    if done.returncode != 0 or len(out) != 2 * len(cases):
        at = min(len(out) // 2, len(cases) - 1)
        raise AssertionError(f"{PROGRAM} --dump ended with {done.returncode} at {cases[at][0]} {cases[at][1].hex()}")
    return list(zip(out[0::2], out[1::2]))


class Agreement(unittest.TestCase):
    def compare(self, cases):
        """Compares all, and returns how many were read and how many were malformed."""
        read = malformed = 0
        for (kind, data), got in zip(cases, dumps(cases)):
            want = expected(kind, data)
            if got != want:
                self.fail(f"{kind} {data.hex()}\nours:     {got[0]}\nprotobuf: {want[0]}\n"
                          f"ours written:     {got[1]}\nprotobuf written: {want[1]}")
            malformed += want[0] == "MALFORMED"
            read += want[0] != "MALFORMED"
        return read, malformed

    def test_runtime(self):
        self.assertEqual(api_implementation.Type(), "cpp", "another runtime has other rules")

    def test_made_messages(self):
        maker, started, read, malformed = Maker(SEED), time.monotonic(), 0, 0
        for done in range(0, CASES, AT_ONCE):
            some = self.compare([maker.case() for _ in range(min(AT_ONCE, CASES - done))])
            read, malformed = read + some[0], malformed + some[1]
        rate = CASES / (time.monotonic() - started)
        print(f"seed {SEED}: {read} messages read alike, {malformed} refused alike; {rate:.0f} a second")
        # Of both there must be enough to mean something.
        self.assertGreater(read, CASES // 4)
        self.assertGreater(malformed, CASES // 20)

    def test_every_prefix_and_byte(self):
        """All cuts of one canonical message of each kind, and every byte of it replaced."""
        maker = Maker(SEED)
        for kind, message_class in KINDS.items():
            data = b""
            while len(data) < 30:
                data = maker.fields(message_class.DESCRIPTOR)
            cut = [(kind, data[:size]) for size in range(len(data) + 1)]
            changed = [(kind, data[:at] + bytes([byte]) + data[at + 1:])
                       for at in range(min(len(data), 60)) for byte in (0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 7)]
            self.compare(cut + changed)

    def test_every_short_string_of_bytes(self):
        """Everything of up to two bytes, as a message and as a string in one."""
        short = [b""] + [bytes([a]) for a in range(256)] + [bytes([a, b]) for a in range(256) for b in range(0, 256, 5)]
        self.compare([("query", data) for data in short])

        def named(name):  # query { session_query { service_query { operation { name } } } }
            for tag in (0x0A, 0x12, 0x12, 0x12, 0x12):
                name = bytes([tag, len(name)]) + name
            return name

        self.compare([("query", named(data)) for data in short])

    def test_depth(self):
        """Groups nested in each message on the way to the operation, at the limit and around it."""
        cases = []
        for path in ([], [0x12], [0x12, 0x2A], [0x12, 0x2A, 0x22], [0x12, 0x2A, 0x22, 0x1A]):
            for count in range(94, 103):
                data = b"\xa3\x06" * count + b"\xa4\x06" * count
                for tag in reversed(path):
                    data = bytes([tag]) + Maker(SEED).bytes(data)
                cases.append(("command", data))
        read, malformed = self.compare(cases)
        self.assertTrue(read and malformed)


if __name__ == "__main__":
    # protobuf's C++ runtime complains on standard error of each string that is not UTF-8.
    quiet, loud = os.open(os.devnull, os.O_WRONLY), os.dup(2)
    os.dup2(quiet, 2)
    runner = unittest.TextTestRunner(stream=os.fdopen(loud, "w"))
    unittest.main(testRunner=runner)
