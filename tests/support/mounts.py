# SPDX-License-Identifier: Apache-2.0
"""Small file systems of a test's own: for root only, and gone with the test's processes, since they are mounted in a
mount namespace that nobody else has."""

import ctypes
import os
import subprocess
import tempfile
import unittest

CLONE_NEWNS = 0x20000


def run(*words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
    if done.returncode != 0:
        raise unittest.SkipTest(f"{' '.join(words)}: {done.stdout.strip()}")
    return done.stdout


def private_mounts():
    """From now on this process and its children mount for themselves alone. Skips where it is not allowed."""
    if os.getuid() != 0:
        raise unittest.SkipTest("only root can mount a file system")
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        raise unittest.SkipTest("no mount namespace: " + os.strerror(ctypes.get_errno()))
    run("mount", "--make-rprivate", "/")


class Tmpfs:
    """Memory as a disk, of `megabytes`."""

    def __init__(self, megabytes):
        self.folder = tempfile.mkdtemp(prefix="disk-")
        self.path = self.folder
        run("mount", "-t", "tmpfs", "-o", f"size={megabytes}M", "none", self.path)

    def unmount(self):
        run("umount", self.path)
        os.rmdir(self.folder)

    def free(self):
        """Bytes."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave=0):
        """Takes all space but `leave` bytes, until empty()."""
        with open(self.path + "/ballast", "ab", buffering=0) as file:
            for piece in (65536, 4096):
                while self.free() - leave >= piece:
                    try:
                        if file.write(bytes(piece)) == 0:
                            return
                    except OSError:
                        break

    def empty(self):
        os.remove(self.path + "/ballast")
        os.sync()


class Ext4(Tmpfs):
    """An ext4 of `megabytes` on a loop device, whose file lies in a tmpfs (`below`): when that is full, the device
    fails writes to blocks that were never written to, or given up by dig()."""

    def __init__(self, megabytes, options="errors=continue"):
        self.below = Tmpfs(megabytes + 8)
        self.image = self.below.path + "/image"
        self.folder = self.path = self.below.path + "/ext4"
        os.mkdir(self.path)
        run("truncate", "-s", f"{megabytes}M", self.image)
        run("mkfs.ext4", "-q", "-F", "-m", "0", self.image)
        self.options = options
        self.mount()

    def mount(self):
        run("mount", "-o", "loop," + self.options, self.image, self.path)
        device = os.stat(self.path).st_dev
        self.major, self.minor = os.major(device), os.minor(device)
        self.device = os.path.basename(os.readlink(f"/sys/dev/block/{self.major}:{self.minor}"))

    def dig(self):
        """The file below gives up every block of zeros."""
        os.sync()
        run("fallocate", "--dig-holes", self.image)

    def unmount(self):
        run("umount", self.path)
        self.below.unmount()

    def _account(self, field):
        """A number of the kernel's account of the device; fields are counted from 0."""
        with open(f"/sys/dev/block/{self.major}:{self.minor}/stat", encoding="ascii") as file:
            return int(file.read().split()[field])

    def idle(self):
        """Is no request to the device under way?"""
        return self._account(8) == 0

    def flushes(self):
        """How many flush requests the device has completed."""
        return self._account(15)
