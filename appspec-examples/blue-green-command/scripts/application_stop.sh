#!/bin/sh
# Ends the version of this slot, and waits until it has answered what it accepted. It may be missing.
set -eu

file=/run/shop/${SLOT:-blue}.pid
if ! [ -e "$file" ]; then
    echo "nothing runs in the slot ${SLOT:-blue}"
    exit 0
fi
pid=$(cat "$file")
# A process that has ended has no command line, whether anybody has reaped it or not.
runs() { grep -qs server.py "/proc/$pid/cmdline"; }
if runs; then
    kill "$pid"
fi
for _ in $(seq 300); do
    if ! runs; then
        rm "$file"
        exit 0
    fi
    sleep 0.1
done
echo "the process $pid has not ended 30 s after SIGTERM" >&2
exit 1
