# SPDX-License-Identifier: Apache-2.0
"""The rows of what comes out, which the node writes: a test for each, by the name that rows.txt gives."""

from atomix.multiraft.counter.v1 import counter_pb2
from atomix.multiraft.v1 import fsm_pb2

from protocol import (COUNTER, ServiceTest, Status, close_service, close_session, create_service, increment, keep_alive,
                      open_session, operation, query)


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
