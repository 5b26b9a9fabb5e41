#!/bin/sh
# Makes this deployment's model the current one, remembers the one before, and starts the server.
set -eu
. "$(dirname "$0")/server.sh"

new=models/$DEPLOYMENT_ID
old=$(readlink "$STATE/current" || true)
if [ -n "$old" ] && [ "$old" != "$new" ]; then
    point previous "$old"
fi
point current "$new"
start_server
