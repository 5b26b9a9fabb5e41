#!/bin/sh
# Starts the new version on the port of its slot, beside the one that serves.
set -eu

install -d -m 0755 /run/shop
PORT=${SLOT_PORT:-8001} setsid python3 -B "${SLOT_DIR:-/srv/shop}/server.py" </dev/null >/dev/null 2>&1 &
echo $! >"/run/shop/${SLOT:-blue}.pid"
