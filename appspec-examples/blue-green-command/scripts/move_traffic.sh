#!/bin/sh
# Moves new connections from the slot FROM_SLOT to the slot TO_SLOT. Run again after a crash, it must do no harm: it writes
# the same port once more. On a first deployment, FROM_SLOT is not set.
set -eu

echo "from ${FROM_SLOT:-nowhere} to $TO_SLOT, port $TO_PORT"
install -d -m 0755 /var/lib/shop
echo "$TO_PORT" >/var/lib/shop/target.new
mv /var/lib/shop/target.new /var/lib/shop/target
