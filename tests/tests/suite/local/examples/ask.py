"""ask.py URL [BODY]: prints what the server answers, be it an error; waits 10 s for it to listen."""

import sys
import time
import urllib.error
import urllib.request

url, body = sys.argv[1], sys.argv[2].encode() if len(sys.argv) > 2 else None
deadline = time.monotonic() + 10
while True:
    try:
        print(urllib.request.urlopen(url, body, timeout=10).read().decode())
        break
    except urllib.error.HTTPError as error:
        print(error.read().decode())
        break
    except urllib.error.URLError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
