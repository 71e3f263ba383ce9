#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What `make install` gives to a user's program: the library shows only mr_ names, millrace.pc is enough to build with
it in C and C++, against the shared library and the archive, and `make uninstall` takes everything away again."""

import os
import subprocess
import tempfile
import unittest

TOP = os.environ["MILLRACE_TOP"]
SANITIZE = os.environ.get("MILLRACE_SANITIZE", "")
COMPILER = {"c": os.environ.get("MILLRACE_CC", "gcc"), "cc": os.environ.get("MILLRACE_CXX", "g++")}
PREFIX = "/usr/local"


def output(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def make(target, directory, *more, **options):
    output("make", target, f"DESTDIR={directory}", f"PREFIX={PREFIX}", *more, cwd=TOP, **options)


def files(directory):
    return {os.path.relpath(os.path.join(where, name), directory)
            for where, _, names in os.walk(directory) for name in names}


def names(*command):
    """The symbols that nm lists."""
    return {line.split()[-1].split("@")[0] for line in output("nm", *command).splitlines() if len(line.split()) == 3}


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.work = temporary.name
        cls.root = os.path.join(cls.work, "root")
        cls.there = cls.root + PREFIX
        make("install", cls.root)

    def pkg_config(self, *arguments):
        env = dict(os.environ, PKG_CONFIG_PATH=self.there + "/lib/pkgconfig", PKG_CONFIG_SYSROOT_DIR=self.root)
        return output("pkg-config", *arguments, "millrace", env=env).split()

    def test_what_is_installed(self):
        found = files(self.there)
        for name in ["bin/millrace", "lib/libmillrace.a", "lib/libmillrace.so", "lib/pkgconfig/millrace.pc"]:
            self.assertIn(name, found)
        headers = {"include/millrace/" + name for name in os.listdir(TOP + "/include/millrace") if name.endswith(".h")}
        self.assertEqual(headers, {name for name in found if name.startswith("include/")})
        self.assertIn(self.pkg_config("--modversion")[0], output(self.there + "/bin/millrace", "--version"))

    def test_only_mr_names_are_shown(self):
        shared = names("-D", "--defined-only", self.there + "/lib/libmillrace.so")
        archive = names("-g", "--defined-only", self.there + "/lib/libmillrace.a")
        self.assertIn("mr_connect", shared)
        self.assertEqual({name for name in shared | archive if not name.startswith("mr_")}, set())
        # What every object of ours may call must not be seen from outside, and each public call must be in both.
        self.assertEqual(shared, archive)

    def test_a_program_builds_and_runs(self):
        headers = sorted(os.listdir(self.there + "/include/millrace"))
        text = "".join(f"#include <millrace/{name}>\n" for name in headers) + (
            "#include <stdio.h>\nint main(void) { puts(mr_status_name(MR_CONFLICT)); return 0; }\n")
        flags = ["-Wall", "-Wextra", "-Werror"] + ([f"-fsanitize={SANITIZE}"] if SANITIZE else [])
        env = dict(os.environ, LD_LIBRARY_PATH=self.there + "/lib")
        for language, compiler in COMPILER.items():
            source = f"{self.work}/program.{language}"
            with open(source, "w", encoding="utf-8") as file:
                file.write(text)
            shared = self.pkg_config("--libs")
            static = [name if name != "-lmillrace" else "-l:libmillrace.a"
                      for name in self.pkg_config("--static", "--libs")]
            for libraries in (shared, static):
                with self.subTest(language=language, libraries=libraries):
                    program = f"{self.work}/program"
                    output(*compiler.split(), *flags, *self.pkg_config("--cflags"), source, "-o", program, *libraries)
                    self.assertEqual(output(program, env=env), "CONFLICT\n")

    def test_uninstall_leaves_nothing(self):
        directory = os.path.join(self.work, "other")
        make("install", directory)
        self.assertTrue(files(directory))
        make("uninstall", directory)
        self.assertEqual(files(directory), set())

    def test_another_folder_for_libraries_and_a_strict_umask(self):
        directory = os.path.join(self.work, "with a space")
        make("install", directory, f"LIBDIR={PREFIX}/lib/here", umask=0o077)
        there = directory + PREFIX
        found = files(there)
        self.assertGreaterEqual(found, {"bin/millrace", "lib/here/libmillrace.a", "lib/here/libmillrace.so",
                                        "lib/here/pkgconfig/millrace.pc", "include/millrace/map.h"})
        for name in found:
            self.assertEqual(os.stat(os.path.join(there, name)).st_mode & 0o444, 0o444, name)
        env = dict(os.environ, PKG_CONFIG_PATH=there + "/lib/here/pkgconfig")
        self.assertEqual(output("pkg-config", "--variable=libdir", "millrace", env=env).strip(), PREFIX + "/lib/here")
        make("uninstall", directory, f"LIBDIR={PREFIX}/lib/here")
        self.assertEqual(files(directory), set())


if __name__ == "__main__":
    unittest.main()
