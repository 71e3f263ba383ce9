#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The device gets the flush before anyone gets the answer, seen from below: the kernel's own trace of the requests that
a disk of the test's own is given and completes, and that disk's count of flushes. For root, where the kernel lets it
mount and trace."""

import os
import re
import time
import unittest

import mounts
from node import Node, Raw
from protocol import RawTest, increment

TRACING = "/sys/kernel/tracing"
COMMANDS = 40
EVENT = re.compile(r" (\d+\.\d+): block_rq_(issue|complete): \d+,\d+ ([A-Z]+) ")


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


class Trace:
    """What one disk is asked for and has done, by CLOCK_MONOTONIC."""

    def __init__(self, disk):
        if not os.path.isdir(TRACING + "/events/block"):
            mounts.run("mount", "-t", "tracefs", "none", TRACING)
        self.path = f"{TRACING}/instances/millrace-{os.getpid()}"
        os.mkdir(self.path)
        write(self.path + "/trace_clock", "mono")
        write(self.path + "/buffer_size_kb", "4096")
        for event in ("block_rq_issue", "block_rq_complete"):
            write(f"{self.path}/events/block/{event}/filter", f"dev == {disk.major << 20 | disk.minor}")
            write(f"{self.path}/events/block/{event}/enable", "1")

    def events(self):
        """(when, "issue" or "complete", what), in order."""
        with open(self.path + "/trace", encoding="ascii", errors="replace") as file:
            return [(float(when), which, what) for when, which, what in EVENT.findall(file.read())]

    def close(self):
        for event in ("block_rq_issue", "block_rq_complete"):
            write(f"{self.path}/events/block/{event}/enable", "0")
        os.rmdir(self.path)


def durable(events):
    """Was something written, and then flushed, from the first event to the last? A request's letters are R, W, F (a
    flush), with F before it for a flush first, F behind it for one with it, S for sync."""
    written = flushing = False
    for _, which, what in events:
        is_write, is_flush = "W" in what, what.startswith("F") and "W" not in what
        if which == "complete" and is_write:
            if "F" in what[what.index("W"):]:
                return True
            written = True
        elif which == "issue" and is_flush:
            flushing = written
        elif which == "complete" and is_flush and flushing:
            return True
    return False


class DeviceFlush(RawTest):
    @classmethod
    def setUpClass(cls):
        try:
            mounts.private_mounts()
            cls.disk = mounts.Ext4(48)
            cls.addClassCleanup(cls.disk.unmount)
        except unittest.SkipTest as why:
            print(f"SKIPPED flushes of a device: {why}")
            raise

    def commands(self, *options):
        """Commands one at a time: when each was sent and answered, and how many flushes there were meanwhile."""
        node = Node(*options)
        node.directory = f"{self.disk.path}/{options[1]}"
        node.socket = node.folder.name + "/socket"
        node.options += ["--socket", node.socket]
        with node:
            with Raw(node) as raw:
                session, service = self.counter(raw)
                times = []
                before = self.disk.flushes()
                for number in range(1, COMMANDS + 1):
                    sent = time.monotonic()
                    self.value(raw.ask(increment(session, service, number)))
                    times.append((sent, time.monotonic()))
                flushes = self.disk.flushes() - before
            node.stop()
        return times, flushes

    def trace(self):
        try:
            trace = Trace(self.disk)
        except (OSError, unittest.SkipTest) as why:
            print(f"SKIPPED the trace of a device: {why}")
            return None
        self.addCleanup(trace.close)
        return trace

    def test_sync(self):
        trace = self.trace()
        times, flushes = self.commands("--durability", "sync")
        self.assertGreaterEqual(flushes, COMMANDS)
        if trace is None:
            return
        events = trace.events()
        for sent, answered in times:
            self.assertTrue(durable([event for event in events if sent < event[0] < answered]),
                            (sent, answered, [event for event in events if sent - 0.01 < event[0] < answered + 0.01]))
        print(f"{COMMANDS} commands: each answered after its write and a flush behind it were complete on the device; "
              f"{flushes} flushes")

    def test_async(self):
        """The same look at what does not promise it: so it can see the difference."""
        trace = self.trace()
        times, flushes = self.commands("--durability", "async", "--flush-interval", "60s")
        self.assertLess(flushes, COMMANDS // 2)
        if trace is None:
            return
        events = trace.events()
        early = sum(not durable([event for event in events if sent < event[0] < answered]) for sent, answered in times)
        self.assertGreater(early, COMMANDS // 2)

    def test_the_judgement(self):
        def look(*events):
            return durable([(n, *event.split()) for n, event in enumerate(events)])
        self.assertTrue(look("issue WS", "complete WS", "issue FF", "complete FF"))
        self.assertTrue(look("issue WFS", "complete WFS"))
        self.assertFalse(look("issue WS", "complete WS"))
        self.assertFalse(look("issue WS", "issue FF", "complete WS", "complete FF"))
        self.assertFalse(look("issue FF", "complete FF", "issue WS", "complete WS"))
        self.assertFalse(look("issue WS", "complete WS", "issue FF"))


if __name__ == "__main__":
    unittest.main()
