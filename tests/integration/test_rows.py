#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every row of fsm.proto does what the protocol says: one test for each line of tests/rows/rows.txt, in tests/rows/,
by the name that stands there. Each is small and looks at its own row, so that it fails when MR_DROP has the node treat
that row as absent (`make rows` tries them all). What a frame shows is asked of a node by `millrace raw`; a snapshot is
read by Python's protobuf from what test_snapshot_rows.c prints; the rest is asked of a program of ours.

Without arguments it also holds the list against fsm.proto's descriptor, and fails if a row's test did not pass; with
the name of a test it runs only that."""

import os
import pathlib
import subprocess
import sys
import unittest

from atomix.multiraft.v1 import fsm_pb2

from node import BIN
from rows import OUT, TOP, read_list

sys.path.insert(0, str(TOP / "tests/rows"))

from inputs import Inputs
from outputs import Outputs
from snapshots import Snapshots
from statuses import Statuses


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
            kind = kind.split(".")[-1] if kind.startswith(prefix) else kind
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
    """Remembers which tests ran to a good end, and which only root can run."""
    passed = set()
    for_root = set()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed.add(test.id().split(".")[-1])

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if os.geteuid() != 0:
            self.for_root.add(test.id().split(".")[-1])
            print(f"SKIPPED: {test.id().split('.')[-1]}: {reason}")


def main():
    """All tests, or the one that is named by its method."""
    runner = unittest.TextTestRunner(resultclass=Result)
    if len(sys.argv) > 1:
        suite = unittest.TestSuite(METHODS[name](name) for name in sys.argv[1:])
        result = runner.run(suite)
        return 0 if result.wasSuccessful() and result.passed == set(sys.argv[1:]) else 1
    good = runner.run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])).wasSuccessful()
    left = [f"{row}: {test}" for row, _, _, test in read_list()[0]
            if test not in Result.passed | Result.for_root]
    if left:
        print("These rows have no test that passed:", *left, sep="\n    ")
    return 0 if good and not left else 1


if __name__ == "__main__":
    sys.exit(main())
