# SPDX-License-Identifier: Apache-2.0
"""The servers: a node of Millrace, Redis, etcd. Each is started in a directory of its own, on a socket of its own, as a
child of ours; what may run on this machine already is neither used nor touched. As context managers they stop what
they started and remove the directory."""

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

import programs
from programs import Trouble

START_LIMIT = 60  # seconds


def wait_until(ready, process, log, what):
    end = time.monotonic() + START_LIMIT
    while True:
        if process.poll() is not None or time.monotonic() > end:
            with open(log, encoding="utf-8", errors="replace") as file:
                said = file.read()[-1000:]
            raise Trouble(f"{what} did not start; it said:\n{said}")
        if ready():
            return
        time.sleep(0.02)


class Server:
    """What the three have in common. A Unix socket's path may have 107 bytes, so it stands in a short directory."""

    def __init__(self, place):
        self.place = place
        self.process = None

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix=type(self).__name__.lower() + ".", dir=self.place.directory)
        self.short = tempfile.mkdtemp(prefix="mrb.")
        self.socket = os.path.join(self.short, "s")
        self.log = os.path.join(self.directory, "log")
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process is not None:
            programs.stop(self.process, self.how_to_stop)
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.short, ignore_errors=True)

    how_to_stop = signal.SIGTERM

    def pids(self):
        """Of the processes whose processor time counts."""
        return [self.process.pid]


class Node(Server):
    """Millrace. The supervisor is not pinned, unless `pinned` is given: it does nothing while the node serves, and a
    worker spins for a moment before it sleeps only where the supervisor may use more cores than there are workers."""

    def __init__(self, place, durability, partitions=1, pinned=False, options=()):
        super().__init__(place)
        self.options = options
        self.durability, self.partitions, self.pinned = durability, partitions, pinned

    def start(self):
        self.data = os.path.join(self.directory, "node")
        self.process = programs.start(
            [self.place.millrace, "serve", "--dir", self.data, "--socket", self.socket, "--durability",
             self.durability, "--partitions", str(self.partitions), "--cpus", str(self.place.server_core),
             *map(str, self.options)],
            self.place.server_core if self.pinned else None, self.log, death=signal.SIGTERM)
        wait_until(self.ready, self.process, self.log, "the node")

    def status(self):
        done = subprocess.run([self.place.millrace, "status", "--json", "--socket", self.socket],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        return json.loads(done.stdout) if done.stdout else None

    def ready(self):
        status = self.status()
        if status is None or any(partition["state"] != "serving" for partition in status["partitions"]):
            return False
        self.workers = [int(partition["pid"]) for partition in status["partitions"]]
        return True

    def pids(self):
        return [self.process.pid] + self.workers


def read_answer(answers):
    line = answers.readline().rstrip(b"\r\n").decode()
    if line.startswith("-"):
        raise Trouble(f"Redis: {line[1:]}")
    if line.startswith("*"):
        return [read_answer(answers) for _ in range(int(line[1:]))]
    if not line.startswith("$"):
        return line[1:]
    size = int(line[1:])
    return None if size < 0 else answers.read(size + 2)[:-2].decode(errors="replace")


class Redis(Server):
    """`durability`: memory is Redis without persistence; sync has every answer after an fsync of its log. That log is
    not rewritten meanwhile, which would cost the server's core."""

    def __init__(self, place, durability):
        super().__init__(place)
        self.durability = durability

    how_to_stop = signal.SIGKILL  # what it has is not needed any more

    def start(self):
        kept = ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]
        self.process = programs.start(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "700", "--dir",
             self.directory, "--save", "", "--daemonize", "no", "--loglevel", "warning", "--logfile", "",
             *(kept if self.durability == "sync" else ["--appendonly", "no"])], self.place.server_core, self.log)
        wait_until(self.ready, self.process, self.log, "redis-server")

    def ready(self):
        try:
            return self.ask("PING") == "PONG"
        except OSError:
            return False

    @contextlib.contextmanager
    def connection(self):
        """A socket, and a file to read its answers from."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(120)
            connection.connect(self.socket)
            with connection.makefile("rb") as answers:
                yield connection, answers

    def ask(self, *words):
        """One command; its answer as text, None, or a list of such."""
        request = b"*%d\r\n" % len(words)
        for word in words:
            request += b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode())
        with self.connection() as (connection, answers):
            connection.sendall(request)
            return read_answer(answers)

    def fill(self, keys, value_size):
        """Every key that `redis-benchmark -t set -r keys` may touch, by a client's ordinary commands."""
        value, piece = b"x" * value_size, 10000
        with self.connection() as (connection, answers):
            for first in range(0, keys, piece):
                count = min(piece, keys - first)
                connection.sendall(b"".join(b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$%d\r\n%s\r\n"
                                            % (number, value_size, value) for number in range(first, first + count)))
                if answers.read(5 * count) != b"+OK\r\n" * count:
                    raise Trouble("Redis did not take what it was to be filled with")

    def used_memory(self):
        return int(next(line for line in self.ask("INFO", "memory").splitlines()
                        if line.startswith("used_memory_rss:")).split(":")[1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Etcd(Server):
    """A cluster of one, as it comes: every put is in its log, flushed, before the answer."""

    def start(self):
        self.client = f"http://127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}
        if platform.machine() not in ("x86_64", "amd64"):
            env["ETCD_UNSUPPORTED_ARCH"] = "arm64" if platform.machine() == "aarch64" else platform.machine()
        self.process = programs.start(
            ["etcd", "--name", "bench", "--data-dir", os.path.join(self.directory, "data"),
             "--listen-client-urls", self.client, "--advertise-client-urls", self.client,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", "bench=" + peer, "--quota-backend-bytes", str(8 << 30), "--log-level", "error"],
            self.place.server_core, self.log, env=env)
        wait_until(self.ready, self.process, self.log, "etcd")

    def ready(self):
        try:
            with urllib.request.urlopen(self.client + "/health", timeout=5) as answer:
                return json.load(answer).get("health") == "true"
        except (OSError, ValueError):
            return False

    def revision(self):
        """Which every put raises by one."""
        request = urllib.request.Request(self.client + "/v3/kv/range", data=b'{"key": "a2V5"}')
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(json.load(answer)["header"]["revision"])
