# SPDX-License-Identifier: Apache-2.0
"""The rows of OperationOutput.Status: a test for each, by the name that rows.txt gives."""

import os
import shutil
import subprocess
import tempfile

from atomix.multiraft.counter.v1 import counter_pb2
from atomix.multiraft.map.v1 import map_pb2

from node import BIN, Node, Raw
from protocol import (COUNTER, MAP, ServiceTest, Status, close_service, close_session, create_service, damage, forget,
                      increment, keep_alive, operation, query)
from rows import program


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
