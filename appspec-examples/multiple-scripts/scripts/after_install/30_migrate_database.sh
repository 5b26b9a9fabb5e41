#!/bin/sh
# Brings the database to the schema of this revision; runs again without harm.
set -eu

umask 027
exec /opt/inventory/inventory.py /var/lib/inventory/inventory.db migrate
