#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a newcomer's make says: each target asks for all packages that it uses, before it uses them; the source tree may
lie under a path with spaces; a folder for what is made that cannot be is refused; whatever was compiled is compiled
again when a header changes. Nothing is built here."""

import glob
import os
import re
import subprocess
import tempfile
import unittest

TOP = os.environ["MILLRACE_TOP"]
OUT = os.environ["MILLRACE_OUT"]
# What shows in the commands of a target that it needs a package.
SHOWS = {r"(?m)^protoc-c ": "protobuf-c-compiler", r"(?m)^protoc ": "protobuf-compiler", r"-lcmocka": "libcmocka-dev",
         r"-ljemalloc": "libjemalloc-dev", r"/usr/bin/python3 ": "python3", r"(?m)^g\+\+ ": "g++",
         r"(?m)^clang-format ": "clang-format", r"\bclang ": "clang", r"checks/lint ": "clang-tidy",
         r"checks/lint .* tests/fuzz/": "libcmocka-dev", r"checks/memcheck ": "valgrind", r"tests/run ": "strace",
         r"bench/instructions\.sh": "valgrind", r"compare\.py --programs ": "redis-server"}
NEEDS_NOTHING = {"install", "uninstall", "clean", "help", "deps"}  # `install` is build's


def make(*arguments, directory=TOP, path=None):
    env = {"PATH": (path + ":" if path else "") + os.environ["PATH"]}  # no variable of the make that runs this
    done = subprocess.run(["make", "--no-print-directory", *arguments], cwd=directory, env=env, text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


class Make(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.out = f"OUT={self.folder}/out"

    def script(self, name, line):
        with open(f"{self.folder}/{name}", "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{line}\n")
        os.chmod(f"{self.folder}/{name}", 0o755)

    def test_each_target_asks_for_what_it_uses(self):
        self.script("dpkg-query", "exit 0")  # nothing is installed
        self.script("id", "echo 1000")
        targets = re.findall(r"^    make ([a-z-]+) ", make("help")[1], re.MULTILINE)
        self.assertGreater(len(targets), 20)
        for target in sorted(set(targets) - NEEDS_NOTHING):
            with self.subTest(target=target):
                more = [self.out, "TARGET=reader", "INPUT=file"]
                status, text = make(target, *more, path=self.folder)
                self.assertNotEqual(status, 0)
                asked = re.search(r"apt-get install .*?recommends ([^\n']+)", text)
                self.assertTrue(asked, text)
                commands = make("-n", target, *more)[1]
                # What other makes do that this one starts ask for themselves.
                if "--no-print-directory" in commands:
                    continue
                used = {package for shows, package in SHOWS.items() if re.search(shows, commands)}
                self.assertTrue(used, commands[-300:])
                self.assertEqual(used - set(asked[1].split()), set())

    def test_a_path_with_spaces(self):
        tree = self.folder + "/source tree"
        os.mkdir(tree)
        for name in os.listdir(TOP):
            if name not in (".git", "build"):
                os.symlink(os.path.join(TOP, name), os.path.join(tree, name))
        status, text = make("-n", "demo", directory=tree)
        self.assertEqual(status, 0, text)
        self.assertTrue(f"MILLRACE_BIN='{tree}/build/millrace'" in text, text[-300:])

    def test_folders_that_cannot_be(self):
        for out in [".", "..", "/", "build/../..", os.path.dirname(TOP), "", "of two words"]:
            with self.subTest(out=out):
                status, text = make("-n", "clean", "OUT=" + out)
                self.assertNotEqual(status, 0, text)
                self.assertIn(f"OUT={out} " if len(out.split()) == 1 else f"OUT='{out}'", text)
        self.assertEqual(make("-n", "clean", self.out)[0], 0)

    def test_headers_of_all_that_was_compiled_are_known(self):
        """What the compiler wrote of each object's headers is read by make."""
        with open(self.folder + "/list", "w", encoding="utf-8") as file:
            file.write("include Makefile\n$(info READ $(MAKEFILE_LIST))\n")
        text = make("-n", "-f", self.folder + "/list", "help", "OUT=" + OUT)[1]
        read = set(re.search(r"^READ (.*)$", text, re.MULTILINE)[1].split())
        written = {name for where in ("*.d", "examples/*.d", "obj/**/*.d")
                   for name in glob.glob(f"{OUT}/{where}", recursive=True)}
        gone = {name for name in written if (source := re.sub(r".*/obj/(release|test)/(.*)\.d$", r"\2.c", name)) != name
                and not os.path.exists(os.path.join(TOP, source))}  # left from a source that there was once
        self.assertGreater(len(written - gone), 100)
        self.assertEqual(written - gone - read, set())


if __name__ == "__main__":
    unittest.main()
