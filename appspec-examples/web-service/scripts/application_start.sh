#!/bin/sh
# Restarts rather than starts, so that the new files are served even if the old process survived ApplicationStop.
set -eu

systemctl daemon-reload
systemctl enable web-service.service
systemctl restart web-service.service
