#!/bin/sh
# Fails unless the new version answers on the port of its slot. The serving slot is not asked.
set -eu

exec python3 -B "$(dirname "$0")/wait_for_health.py" \
    "http://127.0.0.1:${SLOT_PORT:-8001}/health" "$(cat "${SLOT_DIR:-/srv/shop}/VERSION")" "${VALIDATE_SECONDS:-30}"
