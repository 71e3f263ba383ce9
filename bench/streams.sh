#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make bench-streams`: what a listener that sleeps, and a walk over a large map, cost others. Starts a node of its own in
# a temporary directory. EVENTS (10 million), ENTRIES (a million).
set -u -o pipefail
bin=${MILLRACE_BIN:?run it by: make bench-streams}
streams=${MILLRACE_STREAMS:?run it by: make bench-streams}
dir=$(mktemp -d "${TMPDIR:-/tmp}/millrace-streams.XXXXXX") || exit 1
"$bin" serve --dir "$dir/node" --durability async >"$dir/out" 2>"$dir/log" &
node=$!
trap '{ kill -KILL $node; wait $node; } 2>/dev/null; rm -rf -- "$dir"' EXIT
export MILLRACE_SOCKET=$dir/node/millrace.sock
"$bin" status --wait 10s >/dev/null || { cat "$dir/log" >&2; exit 1; }
worker=$("$bin" status --json | grep -o '"pid": *[0-9]*' | sed -n '2s/[^0-9]*//p')
"$streams" sleeper "$worker" "${EVENTS:-10000000}" && "$streams" walk "${ENTRIES:-1000000}"
