#!/bin/sh
# Auditors look into the shared folder and change nothing.
set -eu

DATA=/srv/team-data
fail() {
    echo "$(id -un): $1; compare permissions in appspec.yml with: getfacl -R $DATA" >&2
    exit 1
}

ls "$DATA/shared" >/dev/null || fail "cannot list shared/"
if [ -w "$DATA/shared" ]; then fail "can write to shared/"; fi
if cat "$DATA/service.env" >/dev/null 2>&1; then fail "can read service.env"; fi
