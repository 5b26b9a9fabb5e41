#!/bin/sh
exec python3 - 'http://127.0.0.1:@PORT@/healthz' <<'PYTHON'
import sys, time, urllib.error, urllib.request

url, answer = sys.argv[1], "nothing answered"
for attempt in range(20):
    try:
        with urllib.request.urlopen(url, timeout=2) as page:
            print(url, "answers:", page.read().decode().strip())
            sys.exit(0)
    except urllib.error.HTTPError as error:
        answer = f"{url} answers {error.code}: {error.read().decode().strip()}"
        break
    except OSError as error:
        answer = f"{url}: {error}"
        time.sleep(0.1)
print(answer, file=sys.stderr)
sys.exit("the new version is not healthy")
PYTHON
