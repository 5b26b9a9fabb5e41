#!/bin/sh
# Puts this revision's model beside the one in service, in a folder named after the deployment.
set -eu
. "$(dirname "$0")/server.sh"

MODEL=$STATE/models/$DEPLOYMENT_ID
mkdir -p "$MODEL"
cp "$APP/model.json" "$APP/metrics.json" "$MODEL/"
