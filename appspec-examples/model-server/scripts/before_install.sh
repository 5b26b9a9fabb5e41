#!/bin/sh
# Makes the user that the server runs as, and the folders that outlive every revision.
set -eu

if ! [ -x /usr/bin/python3 ]; then
    echo "/usr/bin/python3 is missing: install the package python3" >&2
    exit 1
fi

if ! id -u model-server >/dev/null 2>&1; then
    # A login shell, because AWS's agent starts scripts of runas through su; the account has no password.
    useradd --system --user-group --no-create-home --home-dir /var/lib/model-server --shell /bin/sh model-server
fi
install -d -o model-server -g model-server -m 0755 /var/lib/model-server /var/lib/model-server/models
install -d -o model-server -g model-server -m 0750 /var/log/model-server
