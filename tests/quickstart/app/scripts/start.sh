#!/bin/sh
set -eu
# Output goes to a file: a hook must not leave its own open.
setsid python3 '@APP@/server.py' '@PORT@' >'@APP@.log' 2>&1 </dev/null &
echo $! >'@APP@.pid'
echo "started version $(cat '@APP@/VERSION') on port @PORT@"
