"""check_predictions.py URL VERSION METRICS SECONDS: fails unless the server at URL behaves as METRICS says.

Waits at most SECONDS for the server to answer with model VERSION, then asks it for a known prediction and for every
held-out row.
"""

import json
import math
import sys
import time
import urllib.error
import urllib.request

# The metrics are rounded to six digits.
TOLERANCE = 1e-5


def ask(url, content=None):
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise OSError(f"{url}: HTTP {error.code}: {error.read().decode(errors='replace').strip()}") from None
    except (OSError, ValueError) as error:
        raise OSError(f"{url}: {error}") from None


def wait(url, version, seconds):
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = ask(url)
            if answer == {"status": "ok", "model": version}:
                return
            wrong = f"{url} answers {answer}, expected model {version}"
        except OSError as error:
            wrong = str(error)
        if time.monotonic() >= deadline:
            sys.exit(f"not healthy after {seconds:g} s: {wrong}")
        time.sleep(0.2)


def predictions(url, rows):
    return ask(f"{url}/predict", {"instances": [row["features"] for row in rows]})["predictions"]


def main():
    url, version, file, seconds = sys.argv[1:]
    with open(file, encoding="utf-8") as metrics_file:
        metrics = json.load(metrics_file)
    wait(f"{url}/health", version, float(seconds))

    known = metrics["known"]
    (answer,) = predictions(url, [known])
    close = math.isclose(answer["probability"], known["probability"], abs_tol=TOLERANCE)
    if answer["kind"] != known["kind"] or not close:
        expected = {"kind": known["kind"], "probability": known["probability"]}
        sys.exit(f"{known['features']}: the server predicts {answer}, training predicted {expected}")

    rows = metrics["held_out"]
    right = sum(answer["kind"] == row["kind"] for answer, row in zip(predictions(url, rows), rows, strict=True))
    accuracy = right / len(rows)
    if not math.isclose(accuracy, metrics["accuracy"], abs_tol=TOLERANCE):
        sys.exit(f"accuracy is {accuracy:.3f} on the held-out rows, training measured {metrics['accuracy']:.3f}")
    if accuracy < metrics["minimum_accuracy"]:
        sys.exit(f"accuracy is {accuracy:.3f} on the held-out rows, at least {metrics['minimum_accuracy']} is required")
    print(f"model {version}: the known prediction is right, accuracy {accuracy:.3f} on {len(rows)} held-out rows")


main()
