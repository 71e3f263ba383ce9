#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make bench`: Millrace beside Redis, etcd and the bare machine, one table of ratios. bench/README.md says how and
where the comparison limps.

goals.py has the goals and judges figures; work.py measures; servers.py, loads.py and programs.py start what is measured
and what loads it; batches.py looks at our log; costs.py and plots.py show more of the same. This file has the options,
the order, and what is written."""

import argparse
import collections
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import costs
import goals
import plots
import programs
import work

# Seconds, but for the turns. `turns`: of most work; `long_turns`: of what takes long and varies little; `reused`: work
# in `memory` before which a node's log is filled until it uses its segments again.
Pace = collections.namedtuple("Pace", "turns long_turns seconds warm_up idle_seconds point_seconds recovery_entries"
                                      " snapshot_bytes depths fractions reused")
FULL = Pace(5, 3, 3.0, 1.0, 20, 2.0, 10_000_000, 1 << 30, (1, 4, 16, 64, 250, 1000, 5000),
            (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
            ("counter", "map", "partitions", "depths"))
QUICK = Pace(3, 1, 0.4, 0.2, 10, 0.3, 2_000_000, 1 << 30, (1, 16, 250, 5000), (0.2, 0.5, 0.8),
             ("counter", "map", "partitions"))
# Proves that it works, and nothing else.
SHORTEST = Pace(1, 1, 0.1, 0.05, 0.2, 0.1, 20_000, 16 << 20, (1, 100), (0.1, 0.3), ())


class Place:
    """Where and with what it is measured."""

    def __init__(self, programs_directory, directory, pace):
        self.programs_directory, self.directory, self.pace = programs_directory, directory, pace
        self.millrace = self.program("millrace")
        self.server_core, self.load_core = programs.pick_cores(directory)

    def program(self, name):
        return os.path.join(self.programs_directory, name)


def first_line(command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
        return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""
    except OSError:
        return "missing"


def machine(place):
    """What the figures were taken on."""
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo", encoding="ascii") as file:
        kilobytes = int(file.readline().split()[1])
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"), "processor": model, "cores": os.cpu_count(),
        "server_core": place.server_core, "load_core": place.load_core, "memory_gib": round(kilobytes / 2**20, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "filesystem": first_line(["stat", "--file-system", "--format=%T", place.directory]),
        "load_before": os.getloadavg()[0],
        "millrace": first_line([place.millrace, "--version"]), "redis": first_line(["redis-server", "--version"]),
        "etcd": first_line(["etcd", "--version"]), "h2load": first_line(["h2load", "--version"]),
    }


def describe(found):
    return (f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB, {found['system']}, "
            f"{found['filesystem']}; server on core {found['server_core']}, load on core {found['load_core']}; "
            f"{found['date']}")


def warn(found):
    if found["cores"] == 1 or found["server_core"] == found["load_core"]:
        print("There is one core only: servers and load share it, and the figures say little.", file=sys.stderr)
    if found["load_before"] > 0.7:
        print(f"Something else is running here (load {found['load_before']:.1f}): the figures will be off.",
              file=sys.stderr)
    if found["filesystem"] in ("tmpfs", "ramfs"):
        print("The files stand in memory (tmpfs): nothing called sync is. Give --dir on a disk.", file=sys.stderr)


def draw_all(place, directory, say):
    """{name: {"series": ..., "files": [...], "error": ...}}"""
    drawn = {}
    for name, (_, measure, _) in plots.PLOTS.items():
        try:
            series = measure(place, say)
            drawn[name] = {"series": series, "files": plots.draw(name, series, directory), "error": None}
        except (programs.Trouble, OSError, ValueError, KeyError) as trouble:
            drawn[name] = {"series": {}, "files": [], "error": str(trouble)}
            say(f"plot of {name}: {trouble}")
    return drawn


def write_report(path, report):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


def make_sayer(quiet):
    begun = time.monotonic()

    def say(text):
        if not quiet:
            print(f"[{time.monotonic() - begun:6.1f} s] {text}", file=sys.stderr, flush=True)
    return say


def parse(arguments):
    parser = argparse.ArgumentParser(description="Millrace beside Redis, etcd and the bare machine.")
    parser.add_argument("--programs", default="build", metavar="DIR", help="with millrace, millrace-bench and the rest")
    parser.add_argument("--out", metavar="DIR", help="for report.json, table.txt and plots (PROGRAMS/bench)")
    parser.add_argument("--dir", metavar="DIR", help="for the servers' files (OUT); on the disk to be measured")
    parser.add_argument("--quick", action="store_true", help="about two minutes")
    parser.add_argument("--shortest", action="store_true", help="only to see that everything works")
    parser.add_argument("--turns", type=int, metavar="N", help="of each side, of most work")
    parser.add_argument("--seconds", type=float, metavar="S", help="of one measuring")
    parser.add_argument("--only", metavar="WORK,...", help="of: " + ", ".join(work.ALL))
    parser.add_argument("--no-plots", action="store_true")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",") if options.only else list(work.ALL)
    for name in options.only:
        if name not in work.ALL:
            parser.error(f"there is no work `{name}`, but: {', '.join(work.ALL)}")
    pace = SHORTEST if options.shortest else QUICK if options.quick else FULL
    options.pace = pace._replace(turns=options.turns or pace.turns, long_turns=options.turns or pace.long_turns,
                                 seconds=options.seconds or pace.seconds)
    options.out = os.path.abspath(options.out or os.path.join(options.programs, "bench"))
    return options


def main(arguments=None):
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    missing = programs.missing_packages()
    if missing:
        print("These packages of Debian are missing:\n\n    apt-get install -y --no-install-recommends "
              + " ".join(missing) + "\n", file=sys.stderr)
        return 1
    os.makedirs(options.out, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="work.", dir=options.dir or options.out)
    say = make_sayer(options.quiet)
    try:
        place = Place(os.path.abspath(options.programs), directory, options.pace)
        report = {"machine": machine(place), "pace": options.pace._asdict(), "work": {}, "goals": [], "plots": {}}
        warn(report["machine"])
        path = os.path.join(options.out, "report.json")
        for name in options.only:
            report["work"][name] = work.measure(place, name, say)
            lines = goals.judge_all(report["work"])
            report["goals"] = goals.as_json(lines)
            write_report(path, report)
        if not options.no_plots:
            report["plots"] = draw_all(place, options.out, say)
            write_report(path, report)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    lines = [line for line in lines if line.goal.work in options.only]
    text = describe(report["machine"]) + "\n\n" + goals.table(lines) + costs.table(report["work"])
    for name, suffix in (("table.txt", text), ("table.md", goals.markdown(lines))):
        with open(os.path.join(options.out, name), "w", encoding="utf-8") as file:
            file.write(suffix)
    print(text)
    print(f"{path}" + "".join(f"\n{made}" for plot in report["plots"].values() for made in plot["files"]))
    well = all(line.met is not None for line in lines) and not any(p["error"] for p in report["plots"].values())
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
