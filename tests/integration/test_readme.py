#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""README.md says what is so: its `sh` blocks are run in order, in one shell, with what was built; its program is
tests/examples/blocking.c, and short; the options, make targets and paths that it names are there.

What differs from a reader's terminal: `build/` is a folder of links to what the tests were built from, /tmp/millrace
is a fresh directory, a crowded machine is waited for longer, `cc` adds the sanitizer with which the library was built,
if any, and `make install` goes to another root than the system's."""

import os
import re
import shlex
import signal
import subprocess
import tempfile
import unittest

from node import WAIT, millrace, wait_until

TOP = os.environ["MILLRACE_TOP"]
OUT = os.environ["MILLRACE_OUT"]
SANITIZE = os.environ.get("MILLRACE_SANITIZE", "")
DIRECTORY = "/tmp/millrace"
MARK = "-- end of command"

# What commands in the `sh` blocks print: the whole of standard output as a pattern. Every other command prints what it
# likes; all must succeed.
PRINTS = {
    "./visit": r"visit 1, by nobody\n",
    "build/millrace counter increment visits 1": r"2\n",
    "build/millrace counter get visits": r"2\n",
    "build/millrace map put notes greeting 'hello, world' --ttl 1h": r"\d+\n",
    "build/millrace map get notes greeting --json":
        r'\{"key": ?"greeting", ?"value": ?"hello, world", ?"index": ?\d+, ?"ttl": ?"?[\w.]+"?\}\n',
}


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


README = read("README.md")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
SPANS = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", PROSE)]
INDENTED = re.findall(r"^    (\S.*)$", README, re.MULTILINE)


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


def section(title):
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


class Commands(unittest.TestCase):
    """One shell in a temporary directory that looks like the source tree to whom follows the README."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="readme-")
        self.addCleanup(folder.cleanup)
        self.work = folder.name
        os.mkdir(self.work + "/bin")
        os.mkdir(self.work + "/build")
        for name in ["millrace", "libmillrace.a", "libmillrace.so"]:
            os.symlink(os.path.join(OUT, name), f"{self.work}/build/{name}")
        for name in ["include", "tests"]:
            os.symlink(os.path.join(TOP, name), f"{self.work}/{name}")
        if SANITIZE:
            self.script("cc", f'exec {os.environ.get("MILLRACE_CC", "gcc")} -fsanitize={SANITIZE} "$@"')
        self.environment = {name: value for name, value in os.environ.items()
                            if name not in ("MILLRACE_SOCKET", "MILLRACE_BIN", "OUT", "MAKEFLAGS")}
        self.environment["PATH"] = self.work + "/bin:" + os.environ["PATH"]

    def script(self, name, line):
        with open(f"{self.work}/bin/{name}", "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{line}\n")
        os.chmod(f"{self.work}/bin/{name}", 0o755)

    def shell(self, lines):
        """Runs the commands; gives what each printed. The first that fails ends the shell, and the test."""
        data = self.work + "/millrace"
        text = "set -e\ntrap 'kill $(jobs -p) 2>/dev/null || :; wait' EXIT\n"
        for line in lines:
            text += line.replace(DIRECTORY, data).replace("--wait 10s", f"--wait {WAIT:g}s") + f"\necho; echo '{MARK}'\n"
        with open(self.work + "/errors", "wb") as errors:
            process = subprocess.Popen(["bash", "-c", text], cwd=self.work, env=self.environment,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                       start_new_session=True)
            try:
                output = process.communicate(timeout=2 * WAIT)[0].decode()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        with open(self.work + "/errors", encoding="utf-8") as file:
            errors = file.read()
        printed = output.split(f"\n{MARK}\n")
        done = printed[:-1]
        last = lines[min(len(done), len(lines) - 1)]
        self.assertEqual(process.returncode, 0, f"'{last}' failed:\n{output}\n{errors}")
        self.assertEqual(len(done), len(lines))
        return done

    def test_blocks_run_in_order(self):
        lines = [line for block in blocks("sh") for line in block.splitlines() if line and not line.startswith("#")]
        self.assertTrue(any(line.startswith("build/millrace serve") for line in lines))
        for line in PRINTS:
            self.assertIn(line, lines, "PRINTS in this test names a command that is not in README.md")
        done = self.shell(lines)
        self.assertRegex("".join(done), r"ready socket=\S+ partitions=\d+ pid=\d+\n")
        for line, printed in zip(lines, done):
            if line in PRINTS:
                with self.subTest(command=line):
                    # The node says that it is ready whenever it is, in between.
                    printed = re.sub(r"ready socket=.*\n", "", printed)
                    self.assertRegex(printed, rf"\A{PRINTS[line]}\Z")
        data = self.work + "/millrace"
        wait_until(lambda: millrace("status", "--socket", data + "/millrace.sock").returncode == 3, "the node ended")

    def test_after_make_install(self):
        """`cc ... $(pkg-config ...)`, as it stands in the text."""
        (line,) = [span for span in SPANS if "pkg-config" in span]
        root = self.work + "/root"
        subprocess.run(["make", "install", f"DESTDIR={root}", "PREFIX=/usr/local"], cwd=TOP, check=True,
                       stdout=subprocess.DEVNULL)
        self.environment.update(PKG_CONFIG_PATH=root + "/usr/local/lib/pkgconfig", PKG_CONFIG_SYSROOT_DIR=root,
                                LD_LIBRARY_PATH=root + "/usr/local/lib", MILLRACE_SOCKET="/nowhere/s")
        self.shell([line, "! ./a.out 2>refused"])
        with open(self.work + "/refused", encoding="utf-8") as file:
            self.assertRegex(file.read(), r"^NO_NODE: .*/nowhere/s")


class Words(unittest.TestCase):
    def test_the_program_is_the_example(self):
        (program,) = blocks("c")
        self.assertEqual(program, read("tests/examples/blocking.c"))
        self.assertLess(len(program.splitlines()), 40)

    def test_blocks_are_of_known_kinds(self):
        """A block of another kind, or none, would be run by nobody; pictures and lists are plain."""
        self.assertEqual({kind for kind, _ in BLOCKS} - {"sh", "c"}, set())
        others = re.sub(r"^```\w+\n.*?^```$", "", README, flags=re.M | re.S)
        for text in re.findall(r"^```\n(.*?)^```$", others, re.M | re.S):
            self.assertNotRegex(text, r"(?m)^\s*(\$ |build/millrace|make |cc )")

    def test_make_targets(self):
        targets = set(re.findall(r"^([a-z-]+):", read("Makefile") + read("tests/checks.mk"), re.MULTILINE))
        named = {words[1] for words in (shlex.split(text) for text in [*SPANS, *INDENTED] if text.startswith("make"))
                 if words[0] == "make" and len(words) > 1 and "=" not in words[1]}
        self.assertGreaterEqual(named, {"demo", "test", "install", "help"})
        self.assertEqual(named - targets, set())

    def test_options(self):
        def options(text):
            return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
        serve = options(millrace("serve", "--help").stdout.decode())
        others = set()
        for command in ["counter", "map", "status", "raw", "snapshot", "verify", "log", "snapshot dump", "log dump"]:
            others |= options(millrace(*command.split(), "--help").stdout.decode())
        others |= options(millrace("--help").stdout.decode()) | {"--version"}
        bench = subprocess.run([os.path.join(OUT, "millrace-bench"), "--help"], stdout=subprocess.PIPE, text=True, check=True)
        others |= options(bench.stdout)
        spans = [span for span in SPANS if "pkg-config" not in span and not span.startswith("make ")]
        text = "\n".join(spans + blocks("sh"))
        self.assertEqual(options(text) - serve - others, set())
        self.assertEqual(serve - options(README) - {"--help"}, set(), "options of the node that README.md does not name")
        operating = options(section("Operating it"))
        self.assertIn("--durability", operating)
        self.assertEqual(operating - serve - others, set())
        for block in blocks("sh"):
            for line in block.splitlines():
                if line.startswith("build/millrace serve"):
                    self.assertEqual(options(line) - serve, set(), line)

    def test_commands(self):
        """Every `millrace WORD` is one."""
        named = set(re.findall(r"\bmillrace ([a-z]+)\b", "\n".join(SPANS + blocks("sh"))))
        self.assertGreaterEqual(named, {"serve", "status", "counter", "map"})
        for word in named:
            self.assertEqual(millrace(word, "--help").returncode, 0, word)

    def test_paths(self):
        where = re.findall(r"^    (\S+/)\s{2,}(.*)$", section("Where what stands"), re.MULTILINE)
        self.assertGreaterEqual(len(where), 8)
        for path, what in where:
            self.assertTrue(os.path.isdir(os.path.join(TOP, path)), path)
            for name in re.findall(r"\b([\w.]+\.[ch]):", what):
                self.assertTrue(os.path.exists(os.path.join(TOP, path, name)), path + name)
        top = "|".join(name for name in sorted(os.listdir(TOP)) if os.path.isdir(os.path.join(TOP, name)) and
                       name not in ("build", ".git"))
        named = set(re.findall(rf"(?<![\w/])((?:{top})/[\w./]*\w)", README))
        self.assertIn("engine/node/worker.c", named)
        for path in named:
            self.assertTrue(os.path.exists(os.path.join(TOP, path)), path)
        for name in set(re.findall(r"\bbuild/([\w.]+\w)", README)):
            self.assertTrue(os.path.exists(os.path.join(OUT, name)), name)


if __name__ == "__main__":
    unittest.main()
