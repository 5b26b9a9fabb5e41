#!/usr/bin/env bash
# Pushes a folder as a revision, deploys it and waits: deploy.sh APPLICATION GROUP BUCKET [FOLDER]
# Needs the aws CLI and its keys. With AWS_ENDPOINT_URL, it talks to your controller; without, to AWS.
# The exit code is the outcome. A failure is explained: host, lifecycle event, script and its last lines.
set -euo pipefail

application="$1" group="$2" bucket="$3" folder="${4:-.}"
commit="${COMMIT:-$(git -C "$folder" rev-parse HEAD)}"

# The location names the version and the ETag of what was uploaded, so nobody can exchange it.
location="$(aws deploy push --application-name "$application" --source "$folder" --ignore-hidden-files \
  --s3-location "s3://$bucket/$application/$commit.zip" --description "$commit" |
  sed -n 's/.*--s3-location \([^ ]*\).*/\1/p')"
id="$(aws deploy create-deployment --application-name "$application" --deployment-group-name "$group" \
  --s3-location "$location" --description "$commit" --query deploymentId --output text)"
echo "$application/$group: $id deploys $commit"

status=
until [[ "$status" =~ ^(Succeeded|Failed|Stopped)$ ]]; do
  [ -z "$status" ] || sleep "${INTERVAL:-5}"
  now="$(aws deploy get-deployment --deployment-id "$id" --query deploymentInfo.status --output text)"
  [ "$now" = "$status" ] || echo "$application/$group: $id is $now"
  status="$now"
done
[ "$status" != Succeeded ] || exit 0

aws deploy get-deployment --deployment-id "$id" --query deploymentInfo.errorInformation.message --output text >&2
failed="$(aws deploy list-deployment-targets --deployment-id "$id" --target-filters TargetStatus=Failed \
  --query 'targetIds[]' --output text)"
for host in $failed; do
  [ "$host" != None ] || continue
  echo "--- $host" >&2
  aws deploy get-deployment-target --deployment-id "$id" --target-id "$host" --output text >&2 --query \
    "deploymentTarget.instanceTarget.lifecycleEvents[?status=='Failed'].[lifecycleEventName, diagnostics.scriptName, diagnostics.message, diagnostics.logTail]"
done
exit 1
