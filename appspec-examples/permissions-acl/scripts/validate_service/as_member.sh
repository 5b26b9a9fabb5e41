#!/bin/sh
# A member of the team reads what is the team's, shares new files, and cannot read the secrets.
set -eu

DATA=/srv/team-data
fail() {
    echo "$(id -un): $1; compare permissions in appspec.yml with: getfacl -R $DATA" >&2
    exit 1
}

cat "$DATA/handbook.txt" "$DATA/reports/2026/visits.csv" >/dev/null || fail "cannot read the team's files"
if cat "$DATA/service.env" >/dev/null 2>&1; then fail "can read service.env"; fi
if [ -w "$DATA/reports/2026" ]; then fail "can write to reports/"; fi

umask 077
probe=$DATA/shared/.check.$$
mkdir "$probe" || fail "cannot write to shared/"
trap 'rm -rf "$probe"' EXIT
touch "$probe/file"
[ "$(stat -c %G "$probe/file")" = team-data ] || fail "new files in shared/ have the group $(stat -c %G "$probe/file")"
[ "$(stat -c %a "$probe/file")" = 660 ] || fail "new files in shared/ have mode $(stat -c %a "$probe/file"), expected 660"
