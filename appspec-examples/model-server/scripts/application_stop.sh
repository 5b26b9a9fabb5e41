#!/bin/sh
# Stops the server; one that does not run is fine.
set -eu
. "$(dirname "$0")/server.sh"

stop_server
