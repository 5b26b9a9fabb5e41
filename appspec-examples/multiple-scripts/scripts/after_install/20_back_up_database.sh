#!/bin/sh
# Keeps the database as it was before this deployment's migration; the three newest copies stay.
set -eu

DATA=/var/lib/inventory
KEEP=3

if ! [ -e "$DATA/inventory.db" ]; then
    echo "no database yet: nothing to back up"
    exit 0
fi

# Under a temporary name first: a backup with its final name is complete.
PARTIAL=$DATA/backups/.partial
trap 'rm -f "$PARTIAL"' EXIT
rm -f "$PARTIAL"
/opt/inventory/inventory.py "$DATA/inventory.db" back-up "$PARTIAL"
mv "$PARTIAL" "$DATA/backups/$(date -u +%Y%m%dT%H%M%SZ)-before-$DEPLOYMENT_ID.db"

# The names begin with the time, so that sorting by name is sorting by age.
find "$DATA/backups" -name '*-before-*.db' | sort -r | tail -n "+$((KEEP + 1))" | while IFS= read -r old; do
    rm -- "$old"
done
