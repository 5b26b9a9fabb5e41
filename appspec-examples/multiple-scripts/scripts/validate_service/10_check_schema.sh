#!/bin/sh
# The schema of the database must be the newest one of this revision.
set -eu

newest=$(find /opt/inventory/migrations -name '*.sql' | sort | tail -n 1)
expected=$(basename "$newest" .sql)
found=$(/opt/inventory/inventory.py /var/lib/inventory/inventory.db version)
if [ "$found" != "$expected" ]; then
    echo "the database is at migration $found, this revision needs $expected" >&2
    exit 1
fi
echo "the database is at migration $found"
