#!/bin/sh
# The data outlive every revision, so they are not in `files:` and their folder is made here.
set -eu

install -d -o inventory -g inventory -m 0750 /var/lib/inventory /var/lib/inventory/backups
