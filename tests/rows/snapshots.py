# SPDX-License-Identifier: Apache-2.0
"""The rows of a snapshot: a test for each, by the name that rows.txt gives."""

import unittest

from atomix.multiraft.counter.v1 import counter_pb2
from atomix.multiraft.v1 import fsm_pb2
from millrace.v1 import snapshot_pb2

from protocol import COUNTER, MAP, Status
from rows import program


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

    # What the PartitionSnapshot has no field for: no row of fsm.proto, but its second half.
    def test_extra(self):
        lines = dict(text.split(" ") for text in (program("fsm/test_snapshot_rows", "--print") or "").splitlines())
        extra = snapshot_pb2.SnapshotExtra.FromString(bytes.fromhex(lines["extra"]))
        self.assertEqual(extra.session_output_limit, 1 << 20)
        self.assertEqual([(session.session_id, session.uid, session.given_up, session.highest)
                          for session in extra.sessions], [(1, 1000, 0, 0), (2, 1000, 2, 2)])
        self.assertEqual([(held.sequence_num, held.index, held.last_output, held.stream)
                          for held in extra.sessions[1].commands], [(1, 6, 1, False), (2, 7, 1, False)])
        self.assertEqual(extra.SerializeToString(deterministic=True).hex(), lines["extra"])

    # The code of the services there are does not fail; that of one that is only made for tests does.
    def test_status_error(self):
        held = self.snapshot("error").sessions[0].commands[0]
        self.assertEqual(held.pending_outputs[0].operation.status, Status.ERROR)
        self.assertNotEqual(held.pending_outputs[0].operation.message, "")
