#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the protocol says of requests that cannot be granted, line by line of its table of errors: the status, where it
stands, that there is a message, whether an index was taken and whether a retry gets the same; and that a request sent
again after its worker's death gets the same answers. All as Python's protobuf sees it through `millrace raw`."""

import unittest

from atomix.multiraft.counter.v1 import counter_pb2
from atomix.multiraft.map.v1 import map_pb2
from atomix.multiraft.v1 import fsm_pb2

from node import Node, wait_until
from protocol import (COUNTER, MAP, ServiceTest, Status, close_service, close_session, command, create_service, damage,
                      forget, increment, keep_alive, line, on, open_session, operation, query, session_command)


def raw_filter(session, data):
    return command(keep_alive=fsm_pb2.KeepAliveInput(session_id=session, last_input_sequence_num=1, input_filter=data))


def timeout(seconds, nanos=0):
    request = fsm_pb2.OpenSessionInput()
    request.timeout.seconds, request.timeout.nanos = seconds, nanos
    return command(open_session=request)


def pieces(*messages, partition=1):
    """A PartitionCommandInput in pieces, one behind the other, which protobuf merges."""
    whole = b"".join(fsm_pb2.PartitionCommandInput(command=message).SerializeToString() for message in messages)
    return "command " + (fsm_pb2.PartitionCommandInput(partition_id=partition).SerializeToString() + whole).hex()


class Errors(ServiceTest):
    def index(self, raw):
        """The index of a command that is sent now."""
        return self.command_output(raw.ask(open_session())).index

    def unlogged(self, raw, request, status, *words):
        """Refused before the log: in the frame, taking no index."""
        before = self.index(raw)
        self.refused(raw.ask(request), status, *words)
        self.assertEqual(self.index(raw), before + 1, "it took an index")

    def logged(self, raw, request, status, *words):
        """Found out when it is applied: in the frame, taking an index."""
        before = self.index(raw)
        self.refused(raw.ask(request), status, *words)
        self.assertEqual(self.index(raw), before + 2, "it took no index")

    def recorded(self, raw, request, status):
        """In the operation's output, with a message and nothing else, and the same on a retry, with the same index."""
        lines = raw.ask(request)
        output = self.operation_output(lines)
        self.assertEqual(output.status, status)
        self.assertNotEqual(output.message, "")
        self.assertEqual(output.payload, b"")
        self.index(raw)
        self.assertEqual(raw.ask(request), lines)

    # -- INVALID in the frame

    def test_bytes_that_do_not_decode(self):
        raw = self.raw()
        good = bytes.fromhex(open_session().split(" ")[1])
        for data in (b"\xff", good + b"\x08", good[:-1], b"\x08\x01\x12\xff", good + b"\x00", good + b"\x0b",
                     good + b"\x0e\x00"):
            self.unlogged(raw, on(1, "command " + data.hex()), "INVALID")
        for data in (b"\xff", b"\x08\x01\x12\x05", b"\x0b", b"\x08"):
            self.unlogged(raw, on(1, "query " + data.hex()), "INVALID")
        session, service = self.both(raw)
        bad = fsm_pb2.PartitionCommandInput.FromString(bytes.fromhex(
            operation(session, service, 1, "@@").split(" ")[1])).SerializeToString().replace(b"@@", b"\xc3(")
        self.unlogged(raw, "command " + bad.hex(), "INVALID")  # a string that is not UTF-8

    def test_no_member_and_two(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.unlogged(raw, command(), "INVALID")
        self.unlogged(raw, line("command", fsm_pb2.PartitionCommandInput(partition_id=1)), "INVALID")
        self.unlogged(raw, session_command(session), "INVALID")
        opens = fsm_pb2.CommandInput()
        opens.open_session.timeout.seconds = 60
        keeps = fsm_pb2.CommandInput(keep_alive=fsm_pb2.KeepAliveInput(session_id=session))
        self.unlogged(raw, pieces(opens, keeps), "INVALID")
        self.unlogged(raw, pieces(keeps, opens), "INVALID")
        creates, closes = fsm_pb2.CommandInput(), fsm_pb2.CommandInput()
        creates.session_command.create_service.spec.name = "x"
        closes.session_command.close_service.service_id = service
        self.unlogged(raw, pieces(creates, closes), "INVALID")
        message = fsm_pb2.PartitionQueryInput(partition_id=1)
        for build in (lambda: None, message.query.SetInParent, message.query.session_query.SetInParent):
            build()
            self.unlogged(raw, line("query", message), "INVALID")

    def test_a_member_in_pieces_is_one(self):
        raw = self.raw()
        first, second = fsm_pb2.CommandInput(), fsm_pb2.CommandInput()
        first.open_session.timeout.seconds = 60
        second.open_session.timeout.nanos = 1
        self.plain(raw.ask(pieces(first, second)), "open_session")

    def test_another_partition(self):
        raw = self.raw()
        for partition in (0, 2, 2**32 - 1):
            self.unlogged(raw, on(1, open_session(partition)), "INVALID")
            self.unlogged(raw, on(1, query(1, 1, partition=partition)), "INVALID")

    def test_number_0(self):
        raw = self.raw()
        self.unlogged(raw, increment(*self.both(raw), 0), "INVALID")

    def test_bad_filters(self):
        raw = self.raw()
        session, service = self.both(raw)
        first = raw.ask(increment(session, service, 1))
        for data in (b"\1", b"\1\1", b"\1\1" + bytes(7), b"\0\1" + bytes(8), b"\2\1" + bytes(8), b"\1\0" + bytes(8),
                     b"\1\x11" + bytes(8), b"\1\xff" + bytes(100)):
            self.unlogged(raw, raw_filter(session, data), "INVALID")
        self.assertEqual(raw.ask(increment(session, service, 1)), first)  # nothing was changed
        self.plain(raw.ask(raw_filter(session, b"\1\x10" + b"\xff" * 8)), "keep_alive")
        self.plain(raw.ask(raw_filter(session, b"\1\1" + bytes(9))), "keep_alive")
        self.refused(raw.ask(increment(session, service, 1)), "CONFLICT")

    def test_bad_timeouts(self):
        raw = self.raw()
        for seconds, nanos in ((0, 0), (-1, 0), (0, -1), (1, -1), (86400, 1), (86401, 0), (2**62, 0), (1, 10**9)):
            self.unlogged(raw, timeout(seconds, nanos), "INVALID")
        self.unlogged(raw, command(open_session=fsm_pb2.OpenSessionInput()), "INVALID")
        for seconds, nanos in ((0, 1), (86400, 0)):
            self.plain(raw.ask(timeout(seconds, nanos)), "open_session")

    def test_bad_names(self):
        raw = self.raw()
        self.unlogged(raw, create_service(self.open(raw), COUNTER, ""), "INVALID")

    # -- what is found when a command is applied

    def test_sessions_that_are_not_there(self):
        raw = self.raw()
        closed = self.open(raw)
        self.plain(raw.ask(close_session(closed)), "close_session")
        expired = self.command_output(raw.ask(timeout(0, 1))).open_session.session_id
        wait_until(lambda: raw.ask(query(expired, 1))[0].startswith("FORBIDDEN") and
                   "session" in raw.ask(query(expired, 1))[0], "the session is gone")
        for session in (2**64 - 1, 0, closed, expired):
            for request in (keep_alive(session), close_session(session), increment(session, 1, 1),
                            create_service(session, COUNTER, "x"), close_service(session, 1)):
                self.logged(raw, request, "FORBIDDEN")
            self.unlogged(raw, query(session, 1), "FORBIDDEN")

    def test_services_that_are_not_open(self):
        raw = self.raw()
        session, service = self.both(raw)
        other = self.open(raw)
        for request in (increment(other, service, 1), increment(session, service + 10**6, 1),
                        close_service(other, service)):
            self.logged(raw, request, "FORBIDDEN")
        self.unlogged(raw, query(other, service), "FORBIDDEN")
        # The number is as it was.
        self.assertEqual(self.service(raw, other), service)
        self.assertEqual(self.value(raw.ask(increment(other, service, 1))), 1)
        self.assertEqual(self.service(raw, session), service)
        self.service(raw, session, name="taken")
        self.logged(raw, create_service(session, MAP, "taken"), "FORBIDDEN")

    def test_a_number_given_up(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.value(raw.ask(increment(session, service, 2)))
        self.plain(raw.ask(forget(session, 3)), "keep_alive")
        for number in (1, 2, 3):
            self.logged(raw, increment(session, service, number), "CONFLICT")
        # A later filter brings nothing back.
        self.plain(raw.ask(forget(session, 3, keep=[1, 2, 3])), "keep_alive")
        self.logged(raw, increment(session, service, 2), "CONFLICT")
        self.assertEqual(self.value(raw.ask(increment(session, service, 4))), 2)

    def test_the_limit_of_outputs(self):
        raw = self.raw()
        session, service = self.both(raw, MAP)
        for number in range(1, 72):
            lines = raw.ask(self.put(session, service, number, "k", bytes(1000000)))
            if not lines[0].startswith("OK"):
                break
        self.refused(lines, "UNAVAILABLE", str(64 << 20))
        self.logged(raw, self.put(session, service, number, "k"), "UNAVAILABLE")
        # What makes room is not refused, and the number was left as it was.
        self.plain(raw.ask(forget(session, number - 1)), "keep_alive")
        self.assertEqual(self.operation_output(raw.ask(self.put(session, service, number, "k"))).status, Status.OK)

    def test_taken_over(self):
        one, other = self.raw(), self.raw()
        session, service = self.both(one, MAP)
        listens = one.send(self.events(session, service, 1))
        first, = self.frames(one, listens, 1)
        again = other.send(self.events(session, service, 1))
        self.refused(one.answer(listens), "CANCELED", "taken over")
        self.assertEqual(self.frames(other, again, 1), [first])
        self.command_output(one.ask(self.put(session, service, 2, "k")))
        self.frames(other, again, 1)

    # -- what depends on the node

    def test_no_service_type(self):
        raw = self.raw()
        session = self.open(raw)
        for kind in ("", "no.such.Type", COUNTER + "s", COUNTER[:-1]):
            self.unlogged(raw, create_service(session, kind, "x"), "NOT_SUPPORTED")

    def test_a_request_that_is_too_large(self):
        with Node("--max-payload", "4K", "--ring-bytes", "64K") as node:
            raw = self.raw(node=node)
            session, service = self.both(raw, MAP)

            def of_size(size):
                low = bytes.fromhex(self.put(session, service, 1, "k", b"").split(" ")[1])
                for count in range(size - len(low) - 40, size):
                    request = self.put(session, service, 1, "k", bytes(count))
                    if (len(request) - len("command ")) // 2 == size:
                        return request
                raise AssertionError(size)
            self.unlogged(raw, of_size(4097), "INVALID", "4096", "4097")
            self.assertEqual(self.operation_output(raw.ask(of_size(4096))).status, Status.OK)

    def test_a_query_that_waits_too_long(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.refused(raw.ask(query(session, service, after=2**50)), "TIMEOUT")

    # -- recorded: in the operation

    def test_no_such_operation(self):
        raw = self.raw()
        session, service = self.both(raw)
        for number, name in enumerate(("", "increment", "Incremen", "Put"), 1):
            self.recorded(raw, operation(session, service, number, name), Status.NOT_SUPPORTED)
            output = self.query_output(raw.ask(query(session, service, name)))
            self.assertEqual(output.status, Status.NOT_SUPPORTED)
            self.assertNotEqual(output.message, "")

    def test_the_wrong_kind_of_operation(self):
        raw = self.raw()
        session, service = self.both(raw)
        self.recorded(raw, operation(session, service, 1, "Get"), Status.INVALID)
        for name in ("Set", "CompareAndSet", "Increment", "Decrement"):
            self.assertEqual(self.query_output(raw.ask(query(session, service, name))).status, Status.INVALID)
        session, service = self.both(raw, MAP)
        for number, name in enumerate(("Get", "Size", "Entries"), 1):
            self.recorded(raw, operation(session, service, number, name), Status.INVALID)
        for name in ("Put", "Insert", "Update", "Remove", "Clear", "Events"):
            self.assertEqual(self.query_output(raw.ask(query(session, service, name))).status, Status.INVALID)

    def bad_payload(self, session, service, number, name):
        what = fsm_pb2.OperationInput(name=name, payload=b"\xff")
        return session_command(session, service_command=fsm_pb2.ServiceCommandInput(
            service_id=service, sequence_num=number, operation=what))

    def test_payloads_that_do_not_decode(self):
        raw = self.raw()
        session, service = self.both(raw)
        for number, name in enumerate(("Set", "CompareAndSet", "Increment", "Decrement"), 1):
            self.recorded(raw, self.bad_payload(session, service, number, name), Status.INVALID)
        session, service = self.both(raw, MAP)
        for number, name in enumerate(("Put", "Insert", "Update", "Remove", "Clear", "Events"), 1):
            with self.subTest(name):
                self.recorded(raw, self.bad_payload(session, service, number, name), Status.INVALID)

    def refusals(self, raw):
        """Requests that a map and a counter refuse, each with its status."""
        session, counter = self.both(raw)
        things = self.service(raw, session, MAP, self.id() + " map")
        index = self.operation_output(raw.ask(self.put(session, things, 1, "k")))
        index = map_pb2.PutOutput.FromString(index.payload).entry.index
        value = map_pb2.Value(value=b"w")
        requests = [
            (counter, "CompareAndSet", counter_pb2.CompareAndSetInput(compare=1, update=2), Status.CONFLICT),
            (things, "Put", map_pb2.PutInput(key="k", value=value, index=index + 1), Status.CONFLICT),
            (things, "Insert", map_pb2.InsertInput(key="k", value=value), Status.ALREADY_EXISTS),
            (things, "Update", map_pb2.UpdateInput(key="none", value=value), Status.NOT_FOUND),
            (things, "Update", map_pb2.UpdateInput(key="k", value=value, index=index + 1), Status.CONFLICT),
            (things, "Remove", map_pb2.RemoveInput(key="none"), Status.NOT_FOUND),
            (things, "Remove", map_pb2.RemoveInput(key="k", index=index + 1), Status.CONFLICT)]
        return [(operation(session, service, number, name, what), status)
                for number, (service, name, what, status) in enumerate(requests, 2)]

    def test_what_a_service_refuses(self):
        raw = self.raw()
        for request, status in self.refusals(raw):
            self.recorded(raw, request, status)
        session, service = self.both(raw, MAP)
        output = self.query_output(raw.ask(query(session, service, payload=map_pb2.GetInput(key="none"))))
        self.assertEqual(output.status, Status.NOT_FOUND)
        self.assertNotEqual(output.message, "")


class Deaths(Errors):
    """The same once more, with a worker killed between a request and its retry."""
    # Only what says so below.
    locals().update({name: None for name in dir(Errors) if name.startswith("test_")})

    def setUp(self):
        self.fresh = Node()
        self.fresh.__enter__()
        self.addCleanup(self.fresh.__exit__)

    def test_a_retry_gets_what_the_request_got(self):
        raw = self.raw("--timeout", "60s", node=self.fresh)
        session, service = self.both(raw)
        requests = [increment(session, service, number, 3) for number in (1, 2, 3)]
        requests += [operation(session, service, 4, "Nothing"), operation(session, service, 5, "Get"),
                     self.bad_payload(session, service, 6, "Set")]
        requests += [request for request, _ in self.refusals(raw)]
        before = [raw.ask(request) for request in requests]
        for repeat in (raw, self.raw("--timeout", "60s", node=self.fresh)):
            self.fresh.kill_worker(1)
            self.assertEqual([repeat.ask(request) for request in requests], before)
        self.fresh.kill()
        self.fresh.start()
        last = self.raw(node=self.fresh)
        self.assertEqual([last.ask(request) for request in requests], before)
        self.assertEqual(self.queried(last.ask(query(session, service))), 9)

    def test_what_is_not_recorded_is_judged_again(self):
        raw = self.raw("--timeout", "60s", node=self.fresh)
        session, service = self.both(raw)
        self.value(raw.ask(increment(session, service, 1)))
        self.plain(raw.ask(forget(session, 1)), "keep_alive")
        self.command_output(raw.ask(close_service(session, service)))
        self.refused(raw.ask(increment(session, service, 2)), "FORBIDDEN")
        self.fresh.kill_worker(1)
        self.refused(raw.ask(increment(session, service, 2)), "FORBIDDEN")
        self.assertEqual(self.service(raw, session), service)
        self.refused(raw.ask(increment(session, service, 1)), "CONFLICT")
        self.assertEqual(self.value(raw.ask(increment(session, service, 2))), 2)

    def test_a_listener_goes_on(self):
        raw = self.raw("--timeout", "60s", node=self.fresh)
        session, service = self.both(raw, MAP)
        listens = raw.send(self.events(session, service, 1))
        first, = self.frames(raw, listens, 1)
        for number in range(2, 6):
            self.command_output(raw.ask(self.put(session, service, number, f"key {number}")))
            self.fresh.kill_worker(1)
        seen = [first] + self.frames(raw, listens, 4)
        self.assertEqual([output.session_command.service_command.sequence_num for output in seen], [1, 2, 3, 4, 5])
        again = self.raw("--timeout", "60s", node=self.fresh)
        self.assertEqual(self.frames(again, again.send(self.events(session, service, 1)), 5), seen)

    def test_a_partition_that_is_stopped(self):
        raw = self.raw(node=self.fresh)
        session, service = self.both(raw, MAP)
        for number, key in ((1, "to-be-damaged"), (2, "behind it")):
            self.command_output(raw.ask(self.put(session, service, number, key)))
        raw.__exit__()
        self.fresh.kill()
        path, at = damage(self.fresh, b"to-be-damaged")
        self.fresh.start(serving=False)
        raw = self.raw(node=self.fresh)
        for request in (keep_alive(session), self.put(session, service, 3, "k"), query(session, service, "Size"),
                        open_session(), "command ff"):
            lines = raw.ask(on(1, request))
            self.refused(lines, "INTERNAL", path.name)
            numbers = [int(word) for word in lines[0].replace(",", " ").replace(":", " ").split() if word.isdigit()]
            self.assertTrue(any(at - 65536 <= number <= at for number in numbers if number >= 4096), lines)
            self.assertIn("index", lines[0])


if __name__ == "__main__":
    unittest.main()
