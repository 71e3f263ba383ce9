# SPDX-License-Identifier: Apache-2.0
"""A node of one's own for a test written in Python, the `millrace` command run against it, and `millrace raw` as a
conversation. Everything waits for a condition, at most WAIT seconds."""

import json
import os
import select
import signal
import subprocess
import tempfile
import time

BIN = os.environ["MILLRACE_BIN"]
WAIT = float(os.environ.get("MILLRACE_WAIT", "60"))


def wait_until(condition, what):
    """Gives the first true value of condition()."""
    end = time.monotonic() + WAIT
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"in {WAIT} s not: {what}")
        select.select([], [], [], 0.005)


def millrace(*arguments, given=b"", env=None):
    """Runs the command to its end."""
    environment = {name: value for name, value in os.environ.items() if name != "MILLRACE_SOCKET"}
    environment.update(env or {})
    return subprocess.run([BIN, *arguments], input=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WAIT,
                          check=False, env=environment)


class Node:
    """A node in a temporary directory, with small rings and segments so that it starts at once. As a context manager it
    runs inside the `with`, and nothing is left behind."""

    def __init__(self, *options, partitions=1):
        self.folder = tempfile.TemporaryDirectory(prefix="node-")
        self.directory = self.folder.name + "/data"
        self.socket = self.directory + "/millrace.sock"
        self.options = ["--partitions", str(partitions), "--segment-bytes", "4M", "--cpus", "none", *options]
        self.process = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
        # Workers die with the supervisor, but not before it: the directory must not be emptied under their hands.
        wait_until(self._removed, "the directory removed")

    def _removed(self):
        try:
            self.folder.cleanup()
        except OSError:
            return False
        return True

    def start(self, serving=True):
        """Starts it; `serving`: and waits until every partition serves."""
        with open(self.folder.name + "/log", "ab") as log:
            self.process = subprocess.Popen([BIN, "serve", "--dir", self.directory, *self.options],
                                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        if not select.select([self.process.stdout], [], [], WAIT)[0]:
            raise AssertionError("the node does not come up: " + self.log())
        line = self.process.stdout.readline().decode()
        if not line.startswith("ready "):
            raise AssertionError(f"the node said {line!r}: " + self.log())
        ready = self.run("status", "--wait", f"{WAIT:g}s") if serving else None
        if ready and ready.returncode != 0:
            raise AssertionError(f"{ready}\n{self.log()}")

    def log(self):
        with open(self.folder.name + "/log", encoding="utf-8") as file:
            return file.read()

    def stop(self):
        """An orderly stop; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(WAIT)
        self.process.stdout.close()
        self.process = None
        return status

    def kill(self):
        """SIGKILL to the supervisor; its workers die with it."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None

    def wait_gone(self):
        """After kill(): until the last of its workers has let go of the directory."""
        wait_until(lambda: millrace("verify", self.directory).returncode != 3, "the workers are gone")

    def run(self, *arguments, given=b"", env=None):
        """The command, told the node's socket by the environment."""
        return millrace(*arguments, given=given, env={"MILLRACE_SOCKET": self.socket, **(env or {})})

    def output(self, *arguments, given=b""):
        """What a command that must succeed prints."""
        done = self.run(*arguments, given=given)
        if done.returncode != 0 or done.stderr:
            raise AssertionError(f"{arguments}: {done}\n{self.log()}")
        return done.stdout

    def status(self):
        """A supervisor that gets no processor for seconds answers the next question."""
        return json.loads(wait_until(lambda: self.run("status", "--json").stdout, "the node's status"))

    def settled(self):
        """The same once no session is left: of one whose commands have all ended, everything is logged, applied and
        shown by then. Who prints an answer may be ahead of what `status` shows; and a client ends without the answer to
        its session's end if that takes over a second."""
        def found():
            status = self.status()
            return all(partition["sessions"] == 0 for partition in status["partitions"]) and status
        return wait_until(found, "no session is left")

    def worker(self, partition):
        return self.status()["partitions"][partition - 1]["pid"]

    def kill_worker(self, partition):
        """SIGKILL to a worker; comes back when another one serves."""
        before = wait_until(lambda: self.worker(partition), "a worker")
        os.kill(before, signal.SIGKILL)

        def replaced():
            now = self.status()["partitions"][partition - 1]
            return now["state"] == "serving" and now["pid"] not in (0, before)
        wait_until(replaced, "another worker serves")


class Raw:
    """`millrace raw`, line by line."""

    def __init__(self, node, *options):
        self.process = subprocess.Popen([BIN, "raw", "--socket", node.socket, *options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines_sent = 0
        self.rest = b""
        self.lines = []  # (number, rest of the line) as they came and were not yet asked for

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def send(self, text):
        """One line; gives its number."""
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()
        self.lines_sent += 1
        return self.lines_sent

    def _read(self):
        if not select.select([self.process.stdout], [], [], WAIT)[0]:
            raise AssertionError(f"nothing came in {WAIT} s")
        some = os.read(self.process.stdout.fileno(), 65536)
        if not some:
            raise AssertionError("millrace raw has ended")
        *whole, self.rest = (self.rest + some).split(b"\n")
        for line in whole:
            number, what = line.decode().split(" ", 1)
            self.lines.append((int(number), what))

    def next_of(self, number):
        """The next line printed for an input line, without its number."""
        while True:
            for i, (of, what) in enumerate(self.lines):
                if of == number:
                    del self.lines[i]
                    return what
            self._read()

    def answer(self, number):
        """All lines printed for an input line, up to its `end`, which is left out."""
        lines = []
        while True:
            lines.append(self.next_of(number))
            if lines[-1] == "end":
                return lines[:-1]

    def ask(self, text):
        return self.answer(self.send(text))

    def finish(self):
        """Ends the input; gives exit status, what is left of the output, standard error."""
        self.process.stdin.close()
        self.process.stdin = None
        output, error = self.process.communicate(timeout=WAIT)
        left = self.lines + [tuple(line.split(" ", 1)) for line in (self.rest + output).decode().splitlines()]
        return self.process.returncode, left, error.decode()
