#!/bin/sh
# Ends the version of this slot, and waits until it has answered what it accepted. It may be missing.
set -eu

file=/run/shop/${SLOT:-blue}.pid
if ! [ -e "$file" ]; then
    echo "nothing runs in the slot ${SLOT:-blue}"
    exit 0
fi
pid=$(cat "$file")
if grep -qs server.py "/proc/$pid/cmdline"; then
    kill "$pid"
    timeout 30 tail --pid="$pid" -f /dev/null
fi
rm "$file"
