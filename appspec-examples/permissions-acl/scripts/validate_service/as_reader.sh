#!/bin/sh
# The one user with an ACL entry reads the secrets, but cannot change them nor see the rest.
set -eu

DATA=/srv/team-data
fail() {
    echo "$(id -un): $1; compare permissions in appspec.yml with: getfacl -R $DATA" >&2
    exit 1
}

cat "$DATA/service.env" >/dev/null || fail "cannot read service.env"
if [ -w "$DATA/service.env" ]; then fail "can write service.env"; fi
if cat "$DATA/handbook.txt" >/dev/null 2>&1; then fail "can read handbook.txt"; fi
if ls "$DATA/shared" >/dev/null 2>&1; then fail "can list shared/"; fi
