"""Waits until URL answers {"status": "ok", "version": VERSION}, for at most SECONDS."""

import json
import sys
import time
import urllib.request


def problem(url, version):
    """What is wrong with the answer; None if nothing is."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            answer = json.load(response)
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    expected = {"status": "ok", "version": version}
    return None if answer == expected else f"{url} answers {answer}, expected {expected}"


def main():
    url, version, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    deadline = time.monotonic() + seconds
    while (wrong := problem(url, version)) is not None:
        if time.monotonic() >= deadline:
            sys.exit(f"not healthy after {seconds:g} s: {wrong}")
        time.sleep(0.1)
    print(f"{url}: version {version} is healthy")


main()
