# SPDX-License-Identifier: Apache-2.0
"""Programs, cores and processor time: starts what is measured and what loads it, each on its core, and never leaves one
behind. Knows nothing of what the programs are."""

import collections
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import threading

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)

Finished = collections.namedtuple("Finished", "output cpu_seconds")


class Trouble(Exception):
    """Something could not be measured; the text is for people."""


# Debian's package, and a program that it brings.
PACKAGES = [("redis-server", "redis-server"), ("redis-tools", "redis-benchmark"), ("etcd-server", "etcd"),
            ("nghttp2-client", "h2load"), ("gnuplot-nox", "gnuplot")]


def missing_packages():
    return [package for package, program in PACKAGES if shutil.which(program) is None]


def pick_cores(directory):
    """The core of the servers and the core of all load: the first two that this process may run on. The servers get the
    one that the interrupts of the directory's disk come to, if they come to one of the two alone."""
    mine = sorted(os.sched_getaffinity(0))[:2]
    if len(mine) == 1:
        return mine[0], mine[0]
    before = interrupts()
    write_durably(directory)
    after = interrupts()
    first, second = (after[core] - before[core] for core in mine)
    return (mine[1], mine[0]) if second > DISK_WRITES // 2 > first else (mine[0], mine[1])


# So many that the interrupts of anything else meanwhile are few beside theirs.
DISK_WRITES = 200


def write_durably(directory):
    with tempfile.TemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, DISK_WRITES * 4096)
        os.fsync(file.fileno())
        for number in range(DISK_WRITES):
            os.pwrite(file.fileno(), b"x" * 4096, number * 4096)
            os.fdatasync(file.fileno())


def interrupts():
    """What came from devices so far, by core."""
    with open("/proc/interrupts", encoding="ascii", errors="replace") as file:
        return parse_interrupts(file.read())


def parse_interrupts(text):
    """Devices have a number where the kernel's own interrupts (clock, calls from core to core) have a name."""
    cores, *lines = text.splitlines()
    counts = {int(name.removeprefix("CPU")): 0 for name in cores.split()}
    for line in lines:
        name, _, rest = line.partition(":")
        if name.strip().isdigit():
            for core, count in zip(counts, rest.split()):
                counts[core] += int(count)
    return counts


def begin(core, death):
    """What a started process does first: it moves to its core and is to die with us."""
    def do():
        if core is not None:
            os.sched_setaffinity(0, {core})
        libc.prctl(PR_SET_PDEATHSIG, death)
    return do


def start(command, core, output, env=None, death=signal.SIGKILL, cwd=None):
    """A server, in the background. `core` None: it places itself. It says what it has to say to the file `output`."""
    try:
        with open(output, "ab") as file:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                                    env=env, cwd=cwd, preexec_fn=begin(core, death))
    except OSError as error:
        raise Trouble(f"cannot run {command[0]}: {error.strerror}") from error


def stop(process, how=signal.SIGTERM, limit=60):
    if process.poll() is None:
        process.send_signal(how)
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run(command, core, limit=600):
    """A load generator, to its end: what it printed, and the processor time of it and its children."""
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                       preexec_fn=begin(core, signal.SIGKILL))
        except OSError as error:
            raise Trouble(f"cannot run {command[0]}: {error.strerror}") from error
        timer = threading.Timer(limit, process.kill)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode != 0:
        name = os.path.basename(command[0])
        raise Trouble(f"{name} failed ({process.returncode}): {text.strip()[-600:]}")
    return Finished(text, usage.ru_utime + usage.ru_stime)


def cpu_seconds(pids):
    """Processor time of these processes' living threads, in seconds: the first number of each one's schedstat."""
    total = 0
    for pid in pids:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                    total += int(file.read().split()[0])
        except FileNotFoundError:
            continue  # it has ended
    return total / 1e9


def resident(pid):
    """Memory of a process by kind, in bytes: all, and of it anonymous, of files, shared."""
    kinds = {"VmRSS": "resident_bytes", "RssAnon": "anonymous_bytes", "RssFile": "file_bytes",
             "RssShmem": "shared_bytes"}
    found = {}
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            name, value = line.split(":", 1)
            if name in kinds:
                found[kinds[name]] = int(value.split()[0]) * 1024
    return found
