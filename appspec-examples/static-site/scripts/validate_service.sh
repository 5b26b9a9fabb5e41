#!/bin/sh
# Fails unless every file of the bundle is in place, unchanged, and readable by the web server.
set -eu

SITE=/var/www/static-site
BUNDLE=$(cd "$(dirname "$0")/../site" && pwd)

wrong=0
complain() {
    echo "$1" >&2
    wrong=1
}

count=0
list=$(cd "$BUNDLE" && find . -type f)
while IFS= read -r file; do
    installed=$SITE/${file#./}
    count=$((count + 1))
    if ! cmp -s "$BUNDLE/$file" "$installed"; then
        complain "$installed is missing or differs from the bundle; deploy this revision again"
    elif [ "$(stat -c %a "$installed")" != 644 ]; then
        complain "$installed has mode $(stat -c %a "$installed"), expected 644: see permissions in appspec.yml"
    fi
done <<LIST
$list
LIST

[ -s "$SITE/index.html" ] || complain "$SITE/index.html is empty or missing: the site has no front page"
[ "$wrong" -eq 0 ] || exit 1
echo "$SITE: $count files are as in the bundle"
