#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the client library shows: the calls of the public headers, all of them, and no other symbol; and no global
state. The check is tried first on made-up symbol lists that it must report."""

import os
import re
import subprocess
import sys
import unittest

TOP = os.environ.get("MILLRACE_TOP") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
OUT = os.environ.get("MILLRACE_OUT") or os.path.join(TOP, "build")
SANITIZED = bool(os.environ.get("MILLRACE_SANITIZE"))


def declared():
    """The calls that the public headers declare."""
    names = set()
    folder = os.path.join(TOP, "include", "millrace")
    for header in os.listdir(folder):
        with open(os.path.join(folder, header), encoding="utf-8") as file:
            text = re.sub(r"/\*.*?\*/", " ", file.read(), flags=re.DOTALL)
        for declaration in re.findall(r"\bMR_API\b([^;{]*);", text):
            names.add(re.search(r"(\w+)\s*\(", declaration)[1])
    return names


def symbols(*arguments):
    """(type, name) of each symbol that nm lists."""
    output = subprocess.run(["nm", *arguments], check=True, capture_output=True, text=True).stdout
    return [(fields[-2], fields[-1].split("@")[0]) for fields in map(str.split, output.splitlines())
            if len(fields) >= 2 and len(fields[-2]) == 1]


def complaints(exported, calls):
    names = {name for kind, name in exported}
    return ([f"{name} is shown, and in no header" for name in sorted(names - calls)]
            + [f"{name} stands in a header, and is not shown" for name in sorted(calls - names)])


class Symbols(unittest.TestCase):
    def test_the_check_itself(self):
        self.assertEqual(complaints([("T", "mr_run")], {"mr_run"}), [])
        self.assertEqual(len(complaints([("T", "mr_run"), ("T", "ring_peek")], {"mr_run"})), 1)
        self.assertEqual(len(complaints([], {"mr_run"})), 1)
        self.assertIn("mr_counter_increment_start", declared())
        self.assertIn("mr_commit", declared())
        self.assertGreater(len(declared()), 40)

    def test_the_shared_library_shows_the_calls_and_nothing_else(self):
        exported = symbols("-D", "--defined-only", os.path.join(OUT, "libmillrace.so"))
        if SANITIZED:
            exported = [(kind, name) for kind, name in exported if not re.match("_*(asan|ubsan|tsan|odr)", name)]
        self.assertEqual(complaints(exported, declared()), [])

    def test_so_does_the_archive(self):
        exported = symbols("-g", "--defined-only", os.path.join(OUT, "libmillrace.a"))
        self.assertEqual(complaints(exported, declared()), [])

    @unittest.skipIf(SANITIZED, "a sanitizer keeps data of its own")
    def test_there_is_no_global_state(self):
        # Tables that are constant but for the addresses in them stand in .data.rel.ro, read-only once loaded.
        output = subprocess.run(["size", "-A", os.path.join(OUT, "libmillrace.a")], check=True, capture_output=True,
                                text=True).stdout
        sizes = dict(line.split()[:2] for line in output.splitlines() if line.startswith("."))
        self.assertIn(".text", sizes)
        writable = {name: size for name, size in sizes.items()
                    if re.match(r"\.(data|bss|tdata|tbss)\b(?!\.rel\.ro)", name) and size != "0"}
        self.assertEqual(writable, {})


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=1))
