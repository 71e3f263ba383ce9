#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`--user`: a node that root starts and that goes on as somebody else. Only root can try it."""

import os
import pwd
import shutil
import subprocess
import tempfile
import unittest

from node import BIN, WAIT, Node

OTHER = "nobody"


def users_of(pid):
    """Real, effective, saved and file-system user of a process."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("Uid:"):
                return {int(word) for word in line.split()[1:]}
    raise AssertionError("no line with the users")


class User(unittest.TestCase):
    def refused(self, *options, run_as=None):
        folder = tempfile.mkdtemp(dir="/tmp")
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o777)
        done = subprocess.run([BIN, "serve", "--dir", folder + "/data", *options], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, timeout=WAIT, check=False, user=run_as)
        self.assertEqual(done.returncode, 1)
        self.assertFalse(os.path.exists(folder + "/data"))
        return done.stderr.decode()

    def test_an_unknown_user(self):
        self.assertIn("--user no-such-one: there is no such user", self.refused("--user", "no-such-one"))

    @unittest.skipUnless(os.geteuid() == 0, "takes root")
    def test_the_node_becomes_that_user(self):
        other = pwd.getpwnam(OTHER)
        node = Node("--user", OTHER)
        self.addCleanup(node.__exit__)
        # Where the tests' files lie may be closed to that user.
        place = tempfile.mkdtemp(dir="/tmp")
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        os.chmod(place, 0o711)
        node.directory = place + "/data"
        node.socket = place + "/data/millrace.sock"
        os.mkdir(node.directory, 0o700)
        os.chown(node.directory, other.pw_uid, other.pw_gid)
        node.start()
        self.assertEqual(users_of(node.process.pid), {other.pw_uid})
        self.assertEqual(users_of(node.worker(1)), {other.pw_uid})
        for name in os.listdir(node.directory):
            self.assertEqual(os.stat(f"{node.directory}/{name}").st_uid, other.pw_uid, name)
        node.output("counter", "increment", "c", "1")
        node.kill_worker(1)
        self.assertEqual(node.output("counter", "get", "c").strip(), b"1")
        # What it was refused; a kernel may lack Landlock.
        lacking = [line for line in node.log().splitlines() if "the worker goes on" in line and "Landlock" not in line]
        self.assertEqual(lacking, [])
        self.assertEqual(node.stop(), 0)

    @unittest.skipUnless(os.geteuid() == 0, "takes root")
    def test_another_users_directory(self):
        """Is not for root to put files of its own into."""
        other = pwd.getpwnam(OTHER)
        place = tempfile.mkdtemp(dir="/tmp")
        self.addCleanup(shutil.rmtree, place)
        os.chown(place, other.pw_uid, other.pw_gid)
        done = subprocess.run([BIN, "serve", "--dir", place], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              timeout=WAIT, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"belongs to user {other.pw_uid}", done.stderr.decode())
        self.assertEqual(os.listdir(place), [])

    @unittest.skipUnless(os.geteuid() == 0, "takes root")
    def test_a_new_directory_is_that_users(self):
        other = pwd.getpwnam(OTHER)
        place = tempfile.mkdtemp(dir="/tmp")
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        os.chmod(place, 0o711)
        with open(place + "/log", "wb") as log:
            process = subprocess.Popen([BIN, "serve", "--dir", place + "/data", "--user", str(other.pw_uid),
                                        "--cpus", "none", "--segment-bytes", "4M"], stdout=subprocess.PIPE, stderr=log)
        self.addCleanup(process.kill)
        self.assertTrue(process.stdout.readline().startswith(b"ready "))
        status = os.stat(place + "/data")
        self.assertEqual((status.st_uid, status.st_mode & 0o7777), (other.pw_uid, 0o700))
        process.terminate()
        self.assertEqual(process.wait(WAIT), 0)
        process.stdout.close()

    @unittest.skipUnless(os.geteuid() == 0, "takes root")
    def test_who_is_not_root_cannot(self):
        if not os.access(BIN, os.X_OK) or subprocess.run(["test", "-x", BIN], user=OTHER, check=False).returncode != 0:
            self.skipTest("the program is out of that user's reach")
        self.assertIn("--user root: only root can", self.refused("--user", "root", run_as=OTHER))


if __name__ == "__main__":
    unittest.main()
