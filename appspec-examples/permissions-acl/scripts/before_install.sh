#!/bin/sh
# Makes the groups and users that `permissions:` names: Install fails on a name that does not exist.
set -eu

if ! command -v setfacl >/dev/null; then
    echo "setfacl is missing, and AWS's agent sets ACLs with it: install the package acl" >&2
    exit 1
fi

make_group() {
    getent group "$1" >/dev/null || groupadd --system "$1"
}

# make_user USER GROUP. A login shell, because AWS's agent starts scripts of runas through su; there is no password.
make_user() {
    id -u "$1" >/dev/null 2>&1 ||
        useradd --system --gid "$2" --no-create-home --home-dir /nonexistent --shell /bin/sh "$1"
}

make_group team-data
make_group team-auditors
make_group team-readers
make_user team-member team-data
make_user team-auditor team-auditors
make_user team-reader team-readers
