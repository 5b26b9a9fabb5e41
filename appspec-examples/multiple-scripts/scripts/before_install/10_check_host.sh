#!/bin/sh
# Fails before anything was changed when the host lacks what the application needs.
set -eu

if ! python3 -c 'import sqlite3'; then
    echo "python3 with sqlite3 is missing: install the package python3" >&2
    exit 1
fi

NEEDED_KIB=102400
FREE_KIB=$(df -Pk /var/lib | awk 'NR == 2 { print $4 }')
if [ "$FREE_KIB" -lt "$NEEDED_KIB" ]; then
    echo "/var/lib has $FREE_KIB KiB free, $NEEDED_KIB are needed: free some space" >&2
    exit 1
fi
