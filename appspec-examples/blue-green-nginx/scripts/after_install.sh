#!/bin/sh
# Lets systemd read the units that this revision brought, before the agent starts the slot's instance.
set -eu

systemctl daemon-reload
