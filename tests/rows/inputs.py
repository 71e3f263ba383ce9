# SPDX-License-Identifier: Apache-2.0
"""The rows of what goes in, which the node reads: a test for each, by the name that rows.txt gives."""

from atomix.multiraft.map.v1 import map_pb2
from atomix.multiraft.v1 import fsm_pb2

from protocol import (COUNTER, MAP, ServiceTest, Status, close_service, close_session, command, create_service, forget,
                      increment, keep_alive, line, on, open_session, query, session_command)
from rows import as_read


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
