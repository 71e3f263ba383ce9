#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom: TABLE, and every #include of the tree held against it. The check is tried first on planted
includes that it must report, and on some that it must not."""

import os
import re
import sys
import unittest

TOP = os.environ.get("MILLRACE_TOP") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What a directory's files may include. "x/" is every header that stands directly in x, "x/y.h" that header alone;
# "generated:NAME" is what protobuf-c makes of proto/NAME.proto, "generated:*" all of them; ANYTHING is no restriction,
# also for folders below. A file in a directory that is not here is an error.
ANYTHING = object()
VALUES = ["include/millrace/limits.h", "include/millrace/status.h"]
ASSERTIONS = ["ipc/error.h", "ipc/planted.h"]
INSIDE = ["ipc/error.h", "ipc/sys.h", "ipc/planted.h"]
CONTROL = "generated:millrace/v1/control"
TABLE = {
    "include/millrace": ["include/millrace/"],
    "proto": ["include/millrace/", "proto/"],
    "ipc": ["include/millrace/", "proto/", "ipc/", CONTROL],
    "ipc/client": ["include/millrace/", "proto/", "ipc/", "ipc/client/", CONTROL],
    "engine/fsm": VALUES + ["proto/", "engine/fsm/"] + ASSERTIONS,
    "engine/services": VALUES + ["proto/", "engine/fsm/", "engine/services/"] + ASSERTIONS,
    "engine/io": ["include/millrace/", "engine/io/"] + INSIDE,
    "engine/log": ["include/millrace/", "engine/io/", "engine/log/"] + INSIDE,
    "engine/node": VALUES + ["proto/", "ipc/", CONTROL, "engine/fsm/", "engine/services/", "engine/io/", "engine/log/",
                             "engine/node/"],
    "engine/cli": ["include/millrace/", "proto/", "engine/cli/", "engine/node/serve.h", "engine/node/values.h",
                   "generated:*"] + INSIDE,
    "bench": ANYTHING,
    "tests": ANYTHING,
}
# What single files may include beyond their directory's row.
ALSO = {
    # Tools that look into a data directory without a node. What the directory is, is node/'s to say.
    "engine/cli/directory.h": ["engine/log/", "engine/io/"],
    "engine/cli/directory.c": ["engine/log/", "engine/io/", "engine/node/identity.h"],
    "engine/cli/verify.c": ["engine/log/", "engine/io/"],
    "engine/cli/log_dump.c": ["engine/log/", "engine/io/"],
    "engine/cli/snapshot_dump.c": ["engine/log/", "engine/io/"],
}
# Directories that do no I/O, read no clock and use no randomness: the system headers they may see, and what of
# those they may not call all the same.
PURE = {"engine/fsm", "engine/services"}
PURE_HEADERS = {"stdbool.h", "stddef.h", "stdint.h", "string.h", "limits.h", "inttypes.h", "stdlib.h",
                "stdio.h", "xxhash.h"}  # <stdio.h> for snprintf() alone
IMPURE_CALL = re.compile(r"\b(rand|rand_r|srand|random|srandom|[delmnj]rand48|arc4random\w*|getenv|secure_getenv|system"
                         r"|getloadavg|mkstemp|strerror\w*|f?printf|puts|fputs|fopen|fwrite|perror|remove|rename)\s*\(")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]*)"|<([^>\n]*)>|([^\n]*))', re.MULTILINE)
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def blank(text, strings):
    """The text with its comments, and if asked its strings, replaced by blanks; lines stay where they are."""
    def replacement(match):
        return match[0] if match[0][0] in "\"'" and not strings else re.sub(r"[^\n]", " ", match[0])
    return COMMENT_OR_STRING.sub(replacement, text)


def row_of(path):
    """The table's directory that a file stands in, or None."""
    directory = os.path.dirname(path)
    if directory in TABLE:
        return directory
    for parent, allowed in TABLE.items():
        if allowed is ANYTHING and directory.startswith(parent + "/"):
            return parent
    return None


def target_of(name, exists):
    """What an include that is not a system header means: a path from the root, "generated:NAME", or None."""
    if name.startswith("millrace/") and exists("include/" + name):
        return "include/" + name
    if name.endswith(".pb-c.h"):
        base = name[: -len(".pb-c.h")]
        return "generated:" + base if base.startswith("google/protobuf/") or exists(f"proto/{base}.proto") else None
    return name if exists(name) else None


def allows(allowed, target):
    return any(target == entry or entry == "generated:*" and target.startswith("generated:")
               or entry.endswith("/") and os.path.dirname(target) + "/" == entry for entry in allowed)


def check(path, text, exists):
    """The complaints about one file, each "path:line: what". `exists` tells whether a path stands in the tree."""
    row = row_of(path)
    if row is None:
        return [f"{path}:1: its directory has no row in the table of tests/unit/test_includes.py"]
    allowed = TABLE[row]
    if allowed is ANYTHING:
        return []
    allowed = allowed + ALSO.get(path, [])
    complaints = []

    def complain(offset, what):
        complaints.append(f"{path}:{text.count(chr(10), 0, offset) + 1}: {what}")

    for match in INCLUDE.finditer(blank(text, strings=False)):
        quoted, angled, other = match.groups()
        if other is not None:
            complain(match.start(), f"cannot tell what it includes: {other.strip()}")
        elif quoted is None and not angled.startswith("millrace/") and not angled.endswith(".pb-c.h"):
            if row in PURE and angled not in PURE_HEADERS:
                complain(match.start(), f"{row} is pure and may not include <{angled}>")
        else:
            name = quoted if quoted is not None else angled
            target = target_of(name, exists)
            if target is None:
                complain(match.start(), f'"{name}" is not a path from the root of the tree')
            elif not allows(allowed, target):
                complain(match.start(), f"{path if path in ALSO else row} may not include {target}")
    if row in PURE:
        for match in IMPURE_CALL.finditer(blank(text, strings=True)):
            complain(match.start(), f"{row} is pure and may not call {match[1]}()")
    return complaints


def sources():
    """Every C and C++ file of the tree but those of a build (known by its gen-proto/), as paths from the root."""
    for directory, folders, names in os.walk(TOP):
        folders[:] = [folder for folder in folders if not folder.startswith(".")
                      and not os.path.exists(os.path.join(directory, folder, "gen-proto"))]
        for name in names:
            if name.endswith((".c", ".h", ".cc", ".hh", ".cpp", ".hpp", ".inc")):
                yield os.path.relpath(os.path.join(directory, name), TOP)


class Includes(unittest.TestCase):
    TREE = {"include/millrace/limits.h", "include/millrace/status.h", "include/millrace/map.h", "proto/reader.h",
            "proto/millrace/v1/control.proto", "proto/atomix/multiraft/v1/fsm.proto", "ipc/error.h", "ipc/sys.h",
            "ipc/ring.h", "ipc/client/client.h", "engine/fsm/fsm.h", "engine/services/counter.h", "engine/io/io.h",
            "engine/log/log.h", "engine/node/serve.h", "engine/node/worker.h", "engine/cli/cli.h"}

    def complaints(self, path, text):
        return check(path, text, self.TREE.__contains__)

    def test_planted_includes_are_reported(self):
        for path, text in [
            ("include/millrace/map.h", '#include "ipc/ring.h"'),
            ("include/millrace/map.h", '#include "proto/reader.h"'),
            ("proto/reader.c", '#include "ipc/ring.h"'),
            ("ipc/ring.c", '#include "ipc/client/client.h"'),
            ("ipc/ring.c", '#include "engine/io/io.h"'),
            ("ipc/ring.c", '#include "atomix/multiraft/v1/fsm.pb-c.h"'),
            ("ipc/client/call.c", '#include "engine/fsm/fsm.h"'),
            ("engine/fsm/fsm.c", '#include "engine/services/counter.h"'),
            ("engine/fsm/fsm.c", '#include "engine/log/log.h"'),
            ("engine/fsm/fsm.c", "#include <millrace/map.h>"),
            ("engine/fsm/fsm.c", "#include <time.h>"),
            ("engine/fsm/fsm.c", "#  include <sys/mman.h>"),
            ("engine/fsm/fsm.c", "#include <stdlib.h>\nint f(void) { return rand (); }"),
            ("engine/services/map.c", "#include <time.h>"),
            ("engine/services/map.c", "#include <liburing.h>"),
            ("engine/services/map.c", '#include "ipc/ring.h"'),
            ("engine/services/map.c", '#include "millrace/v1/control.pb-c.h"'),
            ("engine/io/io.c", '#include "engine/log/log.h"'),
            ("engine/log/log.c", '#include "engine/fsm/fsm.h"'),
            ("engine/log/log.c", '#include "ipc/ring.h"'),
            ("engine/node/worker.c", '#include "engine/cli/cli.h"'),
            ("engine/node/worker.c", '#include "ipc/client/client.h"'),
            ("engine/node/worker.c", "#include <millrace/map.h>"),
            ("engine/cli/main.c", '#include "engine/node/worker.h"'),
            ("engine/cli/main.c", '#include "engine/log/log.h"'),
            ("engine/cli/main.c", '#include "ipc/client/client.h"'),
            ("engine/log/log.c", '#include "log.h"'),
            ("engine/log/log.c", "#include HEADER"),
            ("engine/new/thing.c", ""),
            ("thing.c", ""),
        ]:
            with self.subTest(path=path, text=text):
                self.assertEqual(len(self.complaints(path, text)), 1)

    def test_planted_lines_are_numbered(self):
        text = '/* one\n two */\n#include "proto/reader.h"\n#include "engine/log/log.h"\n'
        self.assertRegex(self.complaints("engine/fsm/fsm.c", text)[0], r"^engine/fsm/fsm\.c:4: .*engine/log/log\.h")

    def test_what_is_allowed_is_not_reported(self):
        for path, text in [
            ("engine/fsm/fsm.c", '#include "engine/fsm/fsm.h"\n#include <millrace/limits.h>\n#include <xxhash.h>'),
            ("engine/fsm/fsm.c", '/* #include "engine/log/log.h"\n#include <time.h>\n*/\n// rand()\n'),
            ("engine/fsm/fsm.c", 'const char *s = "rand()"; int operand(int x); int y = operand(1);'),
            ("ipc/hello.c", '#include "millrace/v1/control.pb-c.h"\n#include <sys/socket.h>'),
            ("engine/cli/main.c", '#include "engine/node/serve.h"\n#include "atomix/multiraft/v1/fsm.pb-c.h"'),
            ("engine/cli/verify.c", '#include "engine/log/log.h"'),
            ("tests/unit/log/test_log.c", '#include "engine/log/log.h"\n#include "ipc/client/client.h"'),
        ]:
            with self.subTest(path=path, text=text):
                self.assertEqual(self.complaints(path, text), [])

    def test_the_tree_obeys(self):
        found = sorted(sources())
        self.assertIn("include/millrace/limits.h", found)
        complaints = []
        for path in found:
            with open(os.path.join(TOP, path), encoding="utf-8") as file:
                complaints += check(path, file.read(), lambda name: os.path.isfile(os.path.join(TOP, name)))
        self.assertFalse(complaints, "\n" + "\n".join(complaints))


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=1))
