# SPDX-License-Identifier: Apache-2.0
"""The list of rows (tests/rows/rows.txt), and the programs of ours that some of their tests ask."""

import os
import pathlib
import subprocess

TOP = pathlib.Path(os.environ["MILLRACE_TOP"])
OUT = pathlib.Path(os.environ["MILLRACE_OUT"])


def read_list():
    """[(row, number, type, test)] and [(`message` or `enum`, heading)]."""
    rows, headings, group = [], [], None
    for text in (TOP / "tests/rows/rows.txt").read_text(encoding="utf-8").splitlines():
        words = text.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) == 2:
            headings.append(tuple(words))
            group = words[1].split(".")[-1]
        else:
            row = group if words[0] == "-" else f"{group}.{words[0]}"
            rows.append((row, words[1], " ".join(words[2:-1]), words[-1]))
    return rows, headings


def program(path, *arguments):
    """Runs a test program of ours and gives what it prints; None: it failed."""
    done = subprocess.run([OUT / "tests/unit" / path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False, timeout=60)
    return done.stdout.decode() if done.returncode == 0 else None


def as_read(kind, message):
    """What our reader reads, field by field, in the words of test_agreement.c."""
    done = subprocess.run([OUT / "tests/unit/proto/test_agreement", "--dump"],
                          input=f"{kind} {message.SerializeToString().hex()}\n".encode(), stdout=subprocess.PIPE,
                          check=True)
    return done.stdout.decode().split("\n")[0].split()
