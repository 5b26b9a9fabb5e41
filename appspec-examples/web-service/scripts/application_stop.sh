#!/bin/sh
# Stops the service. It may be missing: a first deployment, or one that failed half-way, must not stop here.
set -eu

if [ -e /etc/systemd/system/web-service.service ]; then
    systemctl stop web-service.service
else
    echo "web-service is not installed yet: nothing to stop"
fi
