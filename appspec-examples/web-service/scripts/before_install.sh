#!/bin/sh
# Makes the account that the unit file names, before its files arrive.
set -eu

if ! [ -x /usr/bin/python3 ]; then
    echo "/usr/bin/python3 is missing: install the package python3" >&2
    exit 1
fi

if ! id -u web-service >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin web-service
fi
