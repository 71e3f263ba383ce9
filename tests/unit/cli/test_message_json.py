#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The JSON that `log dump` and `snapshot dump` print, compared with protobuf's own: random messages, in the form that
protobuf writes and in others that it reads alike, are given to `test_message_json --print`, and what it prints must be
read by json_format.Parse as the same message. And the table of string fields that the printer needs is right."""

import os
import random
import re
import subprocess
import unittest

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from atomix.multiraft.v1 import fsm_pb2
from millrace.v1 import snapshot_pb2

PROGRAM = os.path.join(os.environ["MILLRACE_OUT"], "tests", "unit", "cli", "test_message_json")
SOURCE = os.path.join(os.environ["MILLRACE_TOP"], "engine", "cli", "message_json.c")
TYPES = [fsm_pb2.PartitionSnapshot, fsm_pb2.PartitionCommandInput, fsm_pb2.CommandInput,
         fsm_pb2.PartitionCommandOutput, fsm_pb2.PartitionQueryInput, fsm_pb2.PartitionQueryOutput,
         snapshot_pb2.SnapshotExtra]
NUMBERS = {FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1), FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
           FieldDescriptor.TYPE_INT64: (-2**63, 2**63 - 1), FieldDescriptor.TYPE_INT32: (-2**31, 2**31 - 1),
           FieldDescriptor.TYPE_BOOL: (0, 1)}
TEXT = ["", "x", "Put", 'quote" back\\slash', "line\nfeed\ttab\r\0\x1f\x7f", "é€𝄞\u2028\ufffd\ud7ff",
        "</script>", "a" * 300]


def nested(types):
    for kind in types:
        yield kind
        yield from nested(kind.nested_types)


class Messages:
    def __init__(self, seed):
        self.source = random.Random(seed)

    def number(self, least, most):
        kind = self.source.randrange(4)
        if kind == 0:
            return least if self.source.randrange(2) else most
        if kind == 1:
            return min(most, self.source.randrange(300))
        return self.source.randint(least, most)

    def time(self, message, is_time):
        source = self.source
        most = 253402300800 if is_time else 315576000000
        message.seconds = source.choice([0, 1, 1_700_000_000, source.randrange(most)])
        message.nanos = source.choice([0, 500_000_000, 1000, 1, 999_999_999, source.randrange(10**9)])
        if not is_time and source.randrange(2):
            message.seconds, message.nanos = -message.seconds, -message.nanos

    def value(self, field):
        source = self.source
        if field.type == FieldDescriptor.TYPE_STRING:
            return source.choice(TEXT)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return source.randbytes(source.choice([0, 1, 2, 3, 4, 100]))
        if field.type == FieldDescriptor.TYPE_ENUM:
            return source.choice([value.number for value in field.enum_type.values] + [77])
        return self.number(*NUMBERS[field.type])

    def fill(self, message, depth=0, oneofs=True):
        if message.DESCRIPTOR.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            self.time(message, message.DESCRIPTOR.name == "Timestamp")
            return message
        for field in message.DESCRIPTOR.fields:
            if self.source.randrange(4) == 0 or field.containing_oneof is not None and (
                    not oneofs or message.WhichOneof(field.containing_oneof.name)):
                continue
            repeated = field.label == FieldDescriptor.LABEL_REPEATED
            if repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
                for _ in range(self.source.randrange(4)):
                    getattr(message, field.name)[self.number(0, 2**64 - 1)] = self.number(0, 2**64 - 1)
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                for _ in range(self.source.randrange(4) if repeated else 1):
                    inner = getattr(message, field.name)
                    inner = inner.add() if repeated else inner
                    inner.SetInParent()
                    self.fill(inner, depth + 1, oneofs)
            elif repeated:
                getattr(message, field.name).extend(self.value(field) for _ in range(self.source.randrange(4)))
            else:
                setattr(message, field.name, self.value(field))
        return message

    def encoding(self, kind):
        """Bytes of one, perhaps with another merged in behind it, or with what is not known in between."""
        data = self.fill(kind()).SerializeToString()
        if self.source.randrange(3) == 0:
            data += self.fill(kind(), oneofs=False).SerializeToString()
        if self.source.randrange(4) == 0:
            data += b"\xf8\x7f\x05\xfa\x7f\x02hi"
        return data


class MessageJson(unittest.TestCase):
    def printed(self, cases):
        text = "".join(f"{kind.DESCRIPTOR.name} {data.hex()}\n" for kind, data in cases)
        done = subprocess.run([PROGRAM, "--print"], input=text.encode(), stdout=subprocess.PIPE, check=True, timeout=60)
        lines = done.stdout.decode().split("\n")[:-1]
        self.assertEqual(len(lines), len(cases))
        return [line.split(" ", 1) for line in lines]

    def test_random_messages(self):
        seed = int(os.environ.get("MILLRACE_SEED", "1"))
        messages = Messages(seed)
        cases = []
        for _ in range(6000):
            kind = messages.source.choice(TYPES)
            cases.append((kind, messages.encoding(kind)))
        printed = self.printed(cases)
        full = 0
        for (kind, data), (sound, text) in zip(cases, printed):
            self.assertEqual(sound, "1")
            expected = kind.FromString(data)
            expected.DiscardUnknownFields()
            self.assertEqual(json_format.Parse(text, kind()), expected, (seed, kind.DESCRIPTOR.name, data.hex(), text))
            full += len(text) > 100
        self.assertGreater(full, 2000)

    def test_in_the_order_of_the_fields_as_protobuf_writes_it(self):
        messages = Messages(2)
        cases = [(kind, messages.fill(kind()).SerializeToString(deterministic=True)) for kind in TYPES * 50]
        for (kind, data), (_, text) in zip(cases, self.printed(cases)):
            message = kind.FromString(data)
            ours = json_format.MessageToDict(json_format.Parse(text, kind()))
            self.assertEqual(ours, json_format.MessageToDict(message))

    def test_bytes_that_are_no_message(self):
        messages = Messages(3)
        cases = []
        for _ in range(3000):
            kind = messages.source.choice(TYPES)
            data = bytearray(messages.encoding(kind))
            if data:
                data[messages.source.randrange(len(data))] ^= 1 << messages.source.randrange(8)
            cases.append((kind, bytes(data[: messages.source.randrange(len(data) + 1)])))
        malformed = 0
        for (kind, data), (sound, text) in zip(cases, self.printed(cases)):
            try:
                kind.FromString(data)
            except Exception:  # protobuf's own kind of error is not the same everywhere
                malformed += 1
                self.assertEqual(sound, "0", (kind.DESCRIPTOR.name, data.hex(), text))
        self.assertGreater(malformed, 500)

    def test_the_table_of_strings(self):
        with open(SOURCE, encoding="utf-8") as file:
            table = re.search(r"strings\[\] = \{(.*?)\};", file.read(), re.DOTALL)[1]
        ours = re.findall(r'\{"(\w+)", "(\w+)"\}', table)
        self.assertEqual(len(ours), len(set(ours)))
        theirs = {(kind.name, field.name)
                  for module in (fsm_pb2, snapshot_pb2)
                  for kind in nested(module.DESCRIPTOR.message_types_by_name.values())
                  for field in kind.fields if field.type == FieldDescriptor.TYPE_STRING}
        self.assertEqual(set(ours), theirs)

    def test_the_types_that_are_known(self):
        """What there is more of in the files has to be taught to the printer first."""
        known = set(NUMBERS) | {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_ENUM,
                                FieldDescriptor.TYPE_MESSAGE}
        for module in (fsm_pb2, snapshot_pb2):
            for kind in nested(module.DESCRIPTOR.message_types_by_name.values()):
                for field in kind.fields:
                    self.assertIn(field.type, known, field.full_name)
                    if kind.GetOptions().map_entry:
                        self.assertEqual(field.type, FieldDescriptor.TYPE_UINT64, field.full_name)


if __name__ == "__main__":
    unittest.main()
