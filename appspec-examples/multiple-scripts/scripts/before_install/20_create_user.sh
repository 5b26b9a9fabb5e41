#!/bin/sh
# Makes the user that later hooks run as (runas in appspec.yml).
set -eu

if ! id -u inventory >/dev/null 2>&1; then
    # A login shell, because AWS's agent starts scripts of runas through su; the account has no password.
    useradd --system --user-group --no-create-home --home-dir /var/lib/inventory --shell /bin/sh inventory
fi
