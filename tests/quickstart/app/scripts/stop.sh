#!/bin/sh
set -eu
if [ -f '@APP@.pid' ]; then
  kill "$(cat '@APP@.pid')" || true
  rm '@APP@.pid'
  echo "stopped the running version"
fi
