#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make demo`: a node with two partitions in a temporary directory counts the words of a real text, over a worker's
# death and a restart, and every count is compared with one made by other means. FILE: the text. WORDS: how many to
# count. MILLRACE_BIN and MILLRACE_DEMO are the programs; make sets them.
set -u -o pipefail
export LC_ALL=C

file=${FILE:-/usr/share/common-licenses/GPL-3}
words=${WORDS:-1000000}
bin=${MILLRACE_BIN:?run it by: make demo}
demo=${MILLRACE_DEMO:?run it by: make demo}
dir= node= child=

cleanup() {
    trap '' INT TERM HUP
    {
        [ -z "$child" ] || kill -KILL "$child"
        [ -z "$node" ] || kill -KILL "$node"
        wait
    } 2>/dev/null
    [ -z "$dir" ] || rm -rf -- "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

fail() {
    echo "demo: $1" >&2
    [ -z "$dir" ] || [ ! -s "$dir/log" ] || { echo "what the node said last:" >&2; tail -n 5 "$dir/log" >&2; }
    exit "${2:-1}"
}

# Runs a program so that a signal is acted on at once, not only when the program has ended.
run() {
    "$@" <&0 &
    child=$!
    wait "$child"
    local status=$?
    child=
    return $status
}

start_node() {
    "$bin" serve --dir "$dir/data" --partitions 2 >>"$dir/ready" 2>>"$dir/log" </dev/null &
    node=$!
    run "$bin" status --wait 30s >/dev/null || fail "the node does not come up"
}

stop_node() {
    kill -TERM "$node" || fail "the node is gone"
    wait "$node" || fail "the node ended with status $?"
    node=
}

# Lines `PARTITION PID`.
workers() {
    run "$bin" status --json | sed 's/{/\n{/g' |
        sed -n 's/.*"partition": \([0-9]*\),.*"pid": \(-\{0,1\}[0-9]*\),.*/\1 \2/p'
}

# The words, one a line, without any of our own code: runs of letters, of which the first 64 count.
all_words() {
    tr -cs 'A-Za-z' '\n' <"$file" | tr 'A-Z' 'a-z' | cut -b 1-64 | grep .
}

# Lines `WORD COUNT LINE`: of `rounds` times the first `one_round` words, and then the first `rest` of them.
expected() {
    {
        all_words | head -n "$one_round" | sort | uniq -c | awk -v n="$rounds" '{ printf "%s %.0f\n", $2, $1 * n }'
        all_words | head -n "$rest" | sort | uniq -c | awk '{ printf "%s %.0f\n", $2, $1 }'
    } | awk '{ count[$1] += $2 } END { for (word in count) printf "%s %.0f\n", word, count[word] }' |
        sort >"$dir/counts"
    tr -c 'A-Za-z\n' ' ' <"$file" | tr 'A-Z' 'a-z' | awk -v one_round="$one_round" -v rest="$rest" '
        {
            for (i = 1; i <= NF && n < one_round; i++) {
                word = substr($i, 1, 64)
                if (++n <= rest)
                    again[word] = NR
                line[word] = NR
            }
        }
        END { for (word in line) print word, (word in again) ? again[word] : line[word] }' | sort >"$dir/lines"
    join "$dir/counts" "$dir/lines"
}

[[ $words =~ ^[1-9][0-9]{0,14}$ ]] || fail "WORDS=$words: a whole number from 1 to 999999999999999" 2
[ -f "$file" ] && [ -r "$file" ] || fail "FILE=$file: no file that can be read" 2
one_round=$(all_words | head -n "$words" | wc -l)
[ "$one_round" -gt 0 ] || fail "FILE=$file: there are no words in it (runs of the letters A to Z)" 2
rounds=$((words / one_round)) rest=$((words % one_round))

dir=$(mktemp -d "${TMPDIR:-/tmp}/millrace-demo.XXXXXX") || fail "no temporary directory"
export MILLRACE_SOCKET=$dir/data/millrace.sock
echo "starting a node with two partitions in $dir"
start_node
workers >"$dir/before"
run "$demo" count "$file" "$words" "$dir/report" $(cut -d ' ' -f 2 "$dir/before") || fail "counting failed"

run "$bin" status --wait 30s >/dev/null || fail "not all partitions serve after the kill"
workers >"$dir/after"
changed=$(join "$dir/before" "$dir/after" | awk '$2 != $3')
[ -n "$changed" ] && [ "$(echo "$changed" | wc -l)" = 1 ] ||
    fail "one worker should have a new pid: ${changed:-none has}"
echo "$changed" | awk '{ print "the worker of partition " $1 " came back as pid " $3 }'

echo "stopping the node, and starting it again on the same directory"
stop_node
start_node
echo "comparing with tr | sort | uniq -c"
expected >"$dir/expected"
run "$demo" compare <"$dir/expected" || fail "the counts differ"
stop_node
echo
cat "$dir/report"
echo "every count matches"
