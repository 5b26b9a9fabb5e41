#!/bin/sh
# The new model stays in service only if the running server predicts what was measured when the model was trained.
# If not, the previous model takes over again and the deployment fails.
set -eu
. "$(dirname "$0")/server.sh"

new=models/$DEPLOYMENT_ID

if python3 -B "$(dirname "$0")/check_predictions.py" "http://127.0.0.1:$PORT" "$DEPLOYMENT_ID" \
    "$STATE/$new/metrics.json" "${VALIDATE_SECONDS:-30}"; then
    # The current model and the previous one are kept; older ones go.
    previous=$(readlink "$STATE/previous" || true)
    for folder in "$STATE"/models/*; do
        kept=models/$(basename "$folder")
        [ "$kept" = "$new" ] || [ "$kept" = "$previous" ] || rm -rf "$folder"
    done
    exit 0
fi

tail -n 20 "$LOG" >&2 || true
stop_server
previous=$(readlink "$STATE/previous" || true)
if [ -n "$previous" ] && [ "$previous" != "$new" ]; then
    point current "$previous"
    start_server
    echo "the previous model, $(basename "$previous"), is in service again" >&2
else
    rm -f "$STATE/current"
    echo "there is no previous model: the server is stopped" >&2
fi
rm -rf "${STATE:?}/$new"
exit 1
