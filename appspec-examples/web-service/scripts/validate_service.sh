#!/bin/sh
# Fails unless the service answers, in time, with the version that this deployment installed.
set -eu

SECONDS_TO_WAIT=${VALIDATE_SECONDS:-30}
PORT=8080
if [ -r /etc/default/web-service ]; then
    # The unit reads the same file, so that a changed port is known here too.
    # shellcheck source=/dev/null
    . /etc/default/web-service
fi

exec python3 -B "$(dirname "$0")/wait_for_health.py" \
    "http://127.0.0.1:$PORT/health" "$(cat /opt/web-service/VERSION)" "$SECONDS_TO_WAIT"
