#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make bench-instructions`: instructions per command, client and worker together, nobody waiting for anybody
# (bench/instructions.c), counted by callgrind. The figures last accepted stand in bench/instructions/, a file for each
# compiler version and machine; more than 3 % above them fails. UPDATE=1 writes the file anew: say why in the commit.
set -u -o pipefail
export LC_ALL=C
program=${MILLRACE_INSTRUCTIONS:?run it by: make bench-instructions}
compiler=${CC:-gcc}
version=$("$compiler" -dumpfullversion -dumpversion) || exit 1
name=$(basename "$compiler")-$version-$(uname -m)
accepted=${ACCEPTED:-$(dirname "$0")/instructions/$name.txt}
commands=20000
counted=$(mktemp) || exit 1
trap 'rm -f -- "$counted"' EXIT

for operation in increment put get events; do
    for depth in 1 100; do
        out=$(valgrind --tool=callgrind --toggle-collect=measured --callgrind-out-file=/dev/null \
            "$program" "$operation" "$depth" $((commands / depth)) 2>&1) || { printf '%s\n' "$out" >&2; exit 1; }
        printf '%s\n' "$out" | awk -v commands=$commands -v what="$operation $depth" \
            '/Collected :/ { printf "%s %.1f\n", what, $NF / commands; found = 1 } END { exit !found }' >>"$counted" ||
            { echo "bench-instructions: callgrind gave no figure" >&2; exit 1; }
    done
done

if [ "${UPDATE:-}" = 1 ]; then
    mkdir -p "$(dirname "$accepted")"
    cp "$counted" "$accepted"
    echo "accepted: $accepted"
fi
if [ ! -e "$accepted" ]; then
    echo "No figures have been accepted for $name; these are today's (UPDATE=1 accepts them):"
    printf '%-12s %6s %12s\n' operation depth instructions
    awk '{ printf "%-12s %6d %12.1f\n", $1, $2, $3 }' "$counted"
    exit 0
fi
printf '%-12s %6s %12s %12s %8s\n' operation depth instructions accepted change
paste -d ' ' "$counted" "$accepted" | awk '{
    change = ($3 / $6 - 1) * 100
    printf "%-12s %6d %12.1f %12.1f %+7.2f%%%s\n", $1, $2, $3, $6, change, (change > 3 ? "  MORE" : "")
    if ($1 != $4 || $2 != $5) { print "the file of accepted figures does not fit"; bad = 1 }
    if (change > 3) bad = 1
} END { exit bad }' || { echo "bench-instructions: more than 3 % above $accepted" >&2; exit 1; }
