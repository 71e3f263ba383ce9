#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Each system call that a node makes, made to fail at each place where it is made.

A scene is a node's life with clients in it: a start, commands in a session by `millrace raw` and by the command line, a
snapshot, a worker's SIGKILL with requests on the way, more commands, an orderly stop. One is played for each kind of
call (SYS_CALLS in ipc/sys.h) and each n: MR_FAULT makes the n-th call of that kind fail, in whichever process makes it.
Then the node either ends by itself, with another exit status than 0 and a message, or goes on and serves again. In both
cases it is started once more, without a fault, and every command that was ever sent is sent again, with its number:
what had been answered is answered alike, nothing is applied twice, nothing is missing. Nothing hangs, no assertion
fails, no sanitizer finds anything.

`make test` plays some of them, drawn from a seed, the same every time (EVERY_CALL_SEED=n draws others);
`make every-call-fails` all. EVERY_CALL=fsync:3:EIO plays one, and EVERY_CALL=fsync all of a kind."""

import collections
import concurrent.futures
import errno
import json
import os
import pwd
import random
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from atomix.multiraft.counter.v1 import counter_pb2
from atomix.multiraft.v1 import fsm_pb2

from node import BIN, WAIT, Node, Raw, millrace, wait_until
from protocol import COUNTER, create_service, increment, open_session

TOP = os.environ["MILLRACE_TOP"]
OPTIONS = ["--segment-bytes", "256K", "--batch-bytes", "8K", "--max-payload", "8K", "--ring-bytes", "64K"]
SAMPLE = 120       # scenes in `make test`
SAMPLE_LIMIT = 15  # seconds after which it draws no more
MOST = 400         # of one kind; where so many are reached the scene goes round in a loop

WRONG_MOST = 12    # of one kind

# What a kind may really fail with; the rest fails with EIO. Several: each is tried.
ERRORS = collections.defaultdict(lambda: ["EIO"], {
    "open": ["EMFILE", "EACCES"], "openat": ["EMFILE", "EACCES"], "close": ["EIO"], "read": ["EIO", "EINTR"],
    "write": ["ENOSPC"], "pwrite": ["ENOSPC"], "fallocate": ["ENOSPC"], "ftruncate": ["ENOSPC"],
    "flock": ["ENOLCK", "EINTR"],
    "mkdir": ["EACCES"], "mkdirat": ["ENOSPC"], "unlink": ["EACCES"], "unlinkat": ["EROFS"],
    "renameat": ["ENOSPC"], "mmap": ["ENOMEM"], "munmap": ["ENOMEM"], "madvise": ["EINVAL"],
    "memfd_create": ["EMFILE"], "eventfd": ["EMFILE"], "signalfd": ["EMFILE"], "socket": ["EMFILE"],
    "fdopendir": ["ENOMEM"],
    "socketpair": ["EMFILE"], "bind": ["EADDRINUSE"], "listen": ["EADDRINUSE"], "accept4": ["EMFILE", "ECONNABORTED"],
    "sendmsg": ["ENOBUFS", "EPIPE"], "recvmsg": ["ENOMEM", "ECONNRESET"], "getsockopt": ["ENOMEM"], "poll": ["EINTR"],
    "epoll_create1": ["EMFILE"], "epoll_ctl": ["ENOSPC"], "epoll_wait": ["EINTR", "EBADF"], "fork": ["EAGAIN"],
    "kill": ["EPERM"], "waitpid": ["EINTR", "ECHILD"], "prctl": ["EPERM"], "sched_setaffinity": ["EINVAL"],
    "sched_getaffinity": ["ENOSYS"], "setpriority": ["EPERM"], "getrlimit": ["EPERM"], "setrlimit": ["EPERM"],
    "sigaction": ["EINVAL"], "sigprocmask": ["EINVAL"], "getrandom": ["ENOSYS"], "io_uring_setup": ["EPERM"],
    "io_uring_register": ["ENOMEM"], "uring_read": ["EIO"], "uring_write": ["EIO", "ENOSPC"], "uring_sync": ["EIO"], "uring_watch": ["ENOMEM"],
    "uring_wake": ["EIO"], "fcntl": ["EPERM"],
    "fstat": ["EIO"], "dup": ["EMFILE"],
    "landlock_create_ruleset": ["ENOSYS", "EOPNOTSUPP", "EMFILE"], "landlock_add_rule": ["EINVAL"],
    "landlock_restrict_self": ["EPERM", "E2BIG"], "seccomp": ["EINVAL", "ENOMEM"], "fchownat": ["EPERM"],
    "initgroups": ["EPERM"], "setgid": ["EPERM"], "setuid": ["EAGAIN"],
    "drop_capabilities": ["EPERM"],
})


# What only a node meets that root starts for another user, with a group for its socket and users that may connect.
OTHER_USER = "nobody"
OF_OTHER_USER = ["mkdir", "fchownat", "setrlimit", "initgroups", "setgid", "setuid", "getsockopt"]


def kinds():
    with open(TOP + "/ipc/sys.h", encoding="utf-8") as file:
        return re.findall(r"^ +CALL\([A-Z0-9_]+, (\w+)\)", file.read(), re.MULTILINE)


class Wrong(Exception):
    """What must not be."""


class Line(Raw):
    """A `millrace raw` that waits no longer than its node lives: it would itself, for a node that comes back."""

    def __init__(self, node):
        super().__init__(node, "--timeout", "0s")
        self.node = node

    def _read(self):
        end = time.monotonic() + WAIT
        while not select.select([self.process.stdout], [], [], 0.05)[0]:
            if self.node.process is None or self.node.process.poll() is not None:
                raise OSError("the node has ended")
            if time.monotonic() > end:
                raise Wrong(f"a request is not answered in {WAIT} s: {self.node.log()}")
        super()._read()


def command(node, *words):
    """The command's end; None: the node's came first."""
    with subprocess.Popen([BIN, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=dict(os.environ, MILLRACE_SOCKET=node.socket)) as process:
        end = time.monotonic() + WAIT
        while process.poll() is None:
            gone = node.process.poll() is not None
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                if gone:
                    process.kill()
                    return None
                if time.monotonic() > end:
                    process.kill()
                    raise Wrong(f"{words} has no end in {WAIT} s: {node.log()}") from None
        output, error = process.stdout.read(), process.stderr.read()
        return subprocess.CompletedProcess(process.args, process.returncode, output, error)


class Conversation:
    """Numbered commands in one session, 1, 2, 3 ...: each adds 1 to a counter, so number n gives n. Keeps what was
    answered, over any number of channels and nodes."""

    def __init__(self):
        self.session = self.service = None
        self.sent = 0
        self.answers = {}  # number -> the line that answered it
        self.raw = None

    def close(self):
        if self.raw is not None:
            self.raw.__exit__()
        self.raw = None

    def _connected(self, node):
        if self.raw is None:
            self.raw = Line(node)
        return self.raw

    def _seen(self, answers):
        """A channel that the node closed is not opened again by `raw`."""
        if any("the channel is closed" in line for frames in answers for line in frames):
            self.close()
        return answers

    def ask(self, node, *lines):
        """The answers to these lines, each a list of frames; None: the channel or the node went away."""
        try:
            raw = self._connected(node)
            return self._seen([raw.answer(number) for number in [raw.send(line) for line in lines]])
        except (AssertionError, OSError):
            self.close()
            return None

    def begin(self, node):
        """A session and a counter in it. False: not this time."""
        for what, line in [("session", lambda: open_session(seconds=3600)),
                           ("service", lambda: create_service(self.session, COUNTER, "numbered"))]:
            if getattr(self, what) is not None:
                continue
            answers = self.ask(node, line())
            if not answers or len(answers[0]) != 1 or not answers[0][0].startswith("OK "):
                return False
            output = self.output(answers[0][0])
            setattr(self, what, output.open_session.session_id if what == "session" else
                    output.session_command.create_service.service_id)
        return True

    @staticmethod
    def output(line):
        return fsm_pb2.PartitionCommandOutput.FromString(bytes.fromhex(line.split(" ")[1])).command

    def value(self, line):
        output = self.output(line).session_command.service_command.operation
        if output.status != fsm_pb2.OperationOutput.Status.OK:
            raise Wrong(f"status {output.status}: {output.message}")
        return counter_pb2.IncrementOutput.FromString(output.payload).value

    def line(self, number):
        return increment(self.session, self.service, number)

    def note(self, number, frames):
        """An answer. A refusal is none; the number will be asked again."""
        if len(frames) != 1 or frames[0].split(" ")[0] == "UNAVAILABLE":
            return False
        if not frames[0].startswith("OK "):
            raise Wrong(f"number {number}: {frames}")
        if self.answers.setdefault(number, frames[0]) != frames[0]:
            raise Wrong(f"number {number} was answered {self.answers[number]}, now {frames[0]}")
        return True

    def more(self, node, count, between=None):
        """So many new numbers at once; between() is called when they are on their way."""
        if not self.begin(node):
            return
        numbers = range(self.sent + 1, self.sent + count + 1)
        self.sent += count
        try:
            raw = self._connected(node)
            lines = [raw.send(self.line(number)) for number in numbers]
            if between is not None:
                between()
            for number, frames in zip(numbers, self._seen([raw.answer(line) for line in lines])):
                self.note(number, frames)
        except (AssertionError, OSError):
            self.close()

    def settle(self, node):
        """Every number that was ever sent, again and in order, until each is answered; then their values. False: the
        node has ended by then, as one may whose fault came late."""
        def all_answered():
            if not self.begin(node):
                return False
            answers = self.ask(node, *[self.line(number) for number in range(1, self.sent + 1)])
            return answers is not None and all([self.note(n, frames) for n, frames in enumerate(answers, 1)])
        if wait_until(lambda: all_answered() and "answered" or node.process.poll() is not None and "ended",
                      "every number answered") == "ended":
            return False
        # Those that were refused came later than others: in some order each value once.
        values = [self.value(self.answers[number]) for number in range(1, self.sent + 1)]
        if sorted(values) != list(range(1, self.sent + 1)):
            raise Wrong(f"numbers 1 to {self.sent} gave {values}")
        return True


class Counted:
    """Increments by the command line, where a command that was not answered may or may not be applied."""

    def __init__(self):
        self.least = self.most = 0

    def increment(self, node):
        done = command(node, "counter", "increment", "counted")
        self.most += 1
        if done is None:
            return False
        if done.returncode == 0:
            value = int(done.stdout)
            if not self.least < value <= self.most:
                raise Wrong(f"counted {value}, should be from {self.least + 1} to {self.most}")
            self.least = value
        elif done.returncode not in (1, 3):
            raise Wrong(f"counter increment: {done}")
        return done.returncode == 0

    def check(self, node):
        value = int(node.output("counter", "get", "counted"))
        if not self.least <= value <= self.most:
            raise Wrong(f"counted {value}, should be from {self.least} to {self.most}")


class Scene:
    """One life under a fault, and the one after it."""

    def __init__(self, fault, durability="sync", prepared=None, user=None):
        self.fault, self.durability, self.prepared, self.user = fault, durability, prepared, user
        self.node = Node(*OPTIONS, "--durability", durability)
        if user is not None:
            # Where tests' files lie may be closed to that user.
            self.place = tempfile.TemporaryDirectory(prefix="every-", dir="/tmp")
            os.chmod(self.place.name, 0o711)
            self.node.directory = self.place.name + "/data"
            self.node.socket = self.node.directory + "/millrace.sock"
            group = str(pwd.getpwnam(user).pw_gid)
            self.node.options += ["--user", user, "--socket-group", group, "--allow-uid", user, "--allow-gid", group]
        if prepared is not None:
            shutil.copytree(prepared, self.node.directory)
        self.conversation, self.counted = Conversation(), Counted()

    def start(self):
        """True: it is ready. False: it has ended."""
        node = self.node
        with open(node.folder.name + "/log", "ab") as log:
            node.process = subprocess.Popen([BIN, "serve", "--dir", node.directory, *node.options], stderr=log,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            env=dict(os.environ, MR_FAULT=self.fault))
        os.set_blocking(node.process.stdout.fileno(), False)
        wait_until(lambda: self.ready() or node.process.poll() is not None, f"ready or ended: {node.log()}")
        return node.process.poll() is None

    def ready(self):
        """`status` says so as well, where the ready line itself was what could not be written."""
        return (self.node.process.stdout.read() or b"").startswith(b"ready ") or \
            getattr(command(self.node, "status"), "returncode", 1) == 0

    def running(self):
        return self.node.process.poll() is None

    def partition(self):
        done = command(self.node, "status", "--json")
        return json.loads(done.stdout)["partitions"][0] if done is not None and done.stdout else None

    def kill_worker(self):
        partition = self.partition()
        if partition is not None and partition["pid"] != 0:
            try:
                os.kill(partition["pid"], signal.SIGKILL)
            except ProcessLookupError:
                pass

    def play(self):
        """The life itself; any of it may go wrong."""
        node, conversation = self.node, self.conversation
        if not self.start():
            return
        conversation.more(node, 4)
        self.counted.increment(node)
        command(node, "snapshot")
        conversation.more(node, 4, between=self.kill_worker)
        self.counted.increment(node)
        conversation.more(node, 2)
        command(node, "map", "put", "map", "key", "value")
        # The one fault is over, or was never met: whoever has not given up serves again.
        wait_until(lambda: not self.running() or self.counted.increment(node), f"serves or ended: {node.log()}")
        if self.running():
            conversation.settle(node)
        conversation.close()

    def stop(self):
        """Its exit status, and whether it ended by itself."""
        node = self.node
        alone = not self.running()
        node.process.send_signal(signal.SIGTERM)
        try:
            status = node.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            raise Wrong(f"does not stop in {WAIT} s: {node.log()}") from None
        node.process.stdout.close()
        node.process = None
        return status, alone

    def messages(self):
        return [line for line in self.node.log().splitlines() if not line.startswith("MR_FAULT")]

    def judge(self, status, alone):
        text = "\n".join(self.messages())
        for bad in ["assertion failed", "Sanitizer", "runtime error", "signal 6", "signal 11", "signal 7"]:
            if bad in text:
                raise Wrong(f"{bad}: {text}")
        if status < 0 or (alone and status == 0):
            raise Wrong(f"ended with {status}: {text}")
        # The message itself may be what could not be written.
        if status != 0 and not self.fault.startswith("write:") and not re.search("error|cannot|millrace", text):
            raise Wrong(f"ended with {status} and said nothing: {text}")

    def after(self):
        """Without a fault, on what is left."""
        node = self.node
        if self.durability == "memory":
            return
        node.start()
        if not self.conversation.settle(node):
            raise Wrong("ended without a fault")
        self.counted.check(node)
        if not self.counted.increment(node):
            raise Wrong(f"does not count: {node.log()}")
        self.conversation.close()
        if node.stop() != 0:
            raise Wrong(f"did not stop in order: {node.log()}")
        if millrace("verify", "--help").returncode == 0:
            done = millrace("verify", node.directory)
            if done.returncode != 0:
                raise Wrong(f"verify: {done}\n{node.log()}")

    def run(self):
        """True: the call was reached. What is wrong is raised."""
        try:
            try:
                self.play()
                if self.conversation.sent == 0:
                    self.conversation.sent = 1  # for the life after
                status, alone = self.stop()
                self.judge(status, alone)
                self.ended = alone
                self.after()
            except (AssertionError, Wrong, ValueError, IndexError, subprocess.TimeoutExpired) as wrong:
                raise Wrong(f"EVERY_CALL={self.fault} ({self.durability}{', prepared' if self.prepared else ''}"
                            f"{', as ' + self.user if self.user else ''}): {wrong}\n{self.node.log()}") from wrong
            return "MR_FAULT: " + self.fault.split(":")[0] + " fails" in self.node.log()
        finally:
            self.end()

    def end(self):
        self.conversation.close()
        self.node.__exit__()
        if self.user is not None:
            wait_until(self.removed, "the directory removed")

    def removed(self):
        try:
            self.place.cleanup()
        except OSError:
            return False
        return True


def counts(*stage):
    """How often a scene without a fault makes each call."""
    scene = Scene("count", *stage)
    try:
        scene.play()
        status, _ = scene.stop()
        if status != 0:
            raise AssertionError(scene.node.log())
        line = re.search("^MR_FAULT: calls (.*)$", scene.node.log(), re.MULTILINE)[1]
        return {kind: int(count) for kind, count in (word.split(":") for word in line.split())}
    finally:
        scene.end()


class EveryCall(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """A directory in which some was done: what a start reads."""
        folder = tempfile.TemporaryDirectory(prefix="every-")
        cls.addClassCleanup(folder.cleanup)
        cls.prepared = folder.name + "/prepared"
        with Node(*OPTIONS) as node:
            for _ in range(20):
                node.output("counter", "increment", "before")
            node.run("snapshot")
            node.output("counter", "increment", "before")
            node.stop()
            shutil.copytree(node.directory, cls.prepared)
        # Others that are played: the ways to keep the log, and a directory that is there already.
        cls.stages = [("sync", None), ("sync", cls.prepared), ("async", cls.prepared), ("memory", None)]
        if os.geteuid() == 0:
            cls.stages.append(("sync", None, OTHER_USER))

    @staticmethod
    def concerns(kind, stage):
        return len(stage) < 3 or kind in OF_OTHER_USER

    def sweep(self, kind, code, stage):
        """All n of a kind; gives how many were reached, how often the node ended by itself, what was wrong."""
        tried = ended = 0
        wrong = []
        for n in range(1, MOST + 1):
            if len(wrong) >= WRONG_MOST:
                wrong.append(f"EVERY_CALL={kind}: so much is wrong that n from {n} on is left out")
                break
            scene = Scene(f"{kind}:{n}:{code}", *stage)
            try:
                if not scene.run():
                    break
                ended += scene.ended
            except Wrong as what:
                wrong.append(str(what))
            tried += 1
        return tried, ended, wrong

    def all(self, only):
        jobs = [(kind, code, stage) for stage in self.stages for kind in kinds() for code in ERRORS[kind]
                if only in ("all", kind) and self.concerns(kind, stage)]
        total, total_ended, wrong = 0, 0, []
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(max_workers=3) as pool:
            for (kind, code, stage), (tried, ended, bad) in zip(jobs, pool.map(lambda job: self.sweep(*job), jobs)):
                total, total_ended = total + tried, total_ended + ended
                wrong += bad
                if tried:
                    print(f"{kind:20} {code:12} {stage[0]:6} "
                          f"{'existing' if stage[1] else OTHER_USER if stage[2:] else 'new':8} {tried:4} places, "
                          f"the node ended itself {ended} times, {len(bad)} wrong", flush=True)
                for what in bad:
                    print(what, flush=True)
        print(f"{total} failing calls in {time.monotonic() - began:.0f} s: the node ended itself, saying why, "
              f"{total_ended} times, went on {total - total_ended - len(wrong)} times; {len(wrong)} wrong")
        self.assertGreater(total, 0)
        self.assertEqual(len(wrong), 0)

    def one(self, fault):
        for stage in self.stages:
            if self.concerns(fault.split(":")[0], stage):
                Scene(fault, *stage).run()

    def sample(self):
        seed = int(os.environ.get("EVERY_CALL_SEED") or 1)
        print(f"EVERY_CALL_SEED={seed}")
        source = random.Random(seed)
        places = {stage: [(kind, n) for kind, count in counts(*stage).items() if self.concerns(kind, stage)
                          for n in range(1, min(count, MOST) + 1)]
                  for stage in self.stages}
        began, tried, reached = time.monotonic(), 0, 0
        # Where so few are played that it is chance how many are reached, as on a crowded machine, more are.
        while tried < SAMPLE and (time.monotonic() - began < SAMPLE_LIMIT or reached <= tried // 3):
            stage = source.choice(self.stages)
            kind = source.choice(sorted({kind for kind, _ in places[stage]}))
            n = source.choice([n for other, n in places[stage] if other == kind])
            reached += Scene(f"{kind}:{n}:{source.choice(ERRORS[kind])}", *stage).run()
            tried += 1
        print(f"{tried} scenes, in {reached} the call was reached")
        self.assertGreater(reached, tried // 3)

    def test_each_fails(self):
        which = os.environ.get("EVERY_CALL")
        if which is None:
            self.sample()
        elif ":" in which:
            self.one(which)
        else:
            self.all(which)

    def test_the_kinds_are_known(self):
        """No error is named that does not exist, none for a kind that does not."""
        self.assertLessEqual(set(ERRORS), set(kinds()))
        self.assertLessEqual(set(OF_OTHER_USER), set(kinds()))
        for codes in list(ERRORS.values()):
            for code in codes:
                self.assertTrue(hasattr(errno, code), code)

    def test_a_wrong_node_is_seen(self):
        """The checks themselves: an answer forgotten, one given twice, an end without a word."""
        conversation = Conversation()
        conversation.note(1, ["OK 00"])
        self.assertRaises(Wrong, conversation.note, 1, ["OK 01"])
        self.assertRaises(Wrong, conversation.note, 2, ["INTERNAL - no"])
        self.assertFalse(conversation.note(3, ["UNAVAILABLE - disk full"]))

    def test_an_end_while_it_settles_is_seen(self):
        """Also when the fault comes so late that nothing is left to do but to ask again."""
        conversation = Conversation()
        with Node(*OPTIONS) as node:
            conversation.more(node, 2)
            self.assertTrue(conversation.settle(node))
            conversation.close()  # a worker may outlive its supervisor by a moment, and answer
            node.process.kill()
            node.process.wait()
            self.assertFalse(conversation.settle(node))


if __name__ == "__main__":
    unittest.main()
