#!/usr/bin/env python3
"""Trains a multinomial logistic regression on measurements.csv; writes model.json and metrics.json.

train.py            write both files beside this script
train.py --check    write nothing; fail if they are not what training gives

Every fourth row is held out: the model never sees it, and its accuracy is measured there. Nothing is random, so that
the same data always give the same model.
"""

import csv
import json
import math
import sys
from pathlib import Path

from classifier import predict, probabilities

FOLDER = Path(__file__).resolve().parent
STEPS = 400
RATE = 0.5
# The least accuracy on held-out rows with which a model may go into service.
MINIMUM_ACCURACY = 0.9
# Digits that are kept, so that two machines' last bits make no difference.
DIGITS = 6


def read():
    with open(FOLDER / "measurements.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    features = [name for name in rows[0] if name != "kind"]
    return features, [([float(row[name]) for name in features], row["kind"]) for row in rows]


def train(features, rows):
    columns = list(zip(*(values for values, _ in rows)))
    mean = [sum(column) / len(column) for column in columns]
    spread = [math.sqrt(sum((v - m) ** 2 for v in column) / len(column)) for column, m in zip(columns, mean)]
    labels = sorted({label for _, label in rows})
    model = {
        "features": features,
        "labels": labels,
        "mean": mean,
        "spread": spread,
        "weights": [[0.0] * len(features) for _ in labels],
        "bias": [0.0] * len(labels),
    }
    for _ in range(STEPS):
        step_weights = [[0.0] * len(features) for _ in labels]
        step_bias = [0.0] * len(labels)
        for values, label in rows:
            for k, probability in enumerate(probabilities(model, values)):
                error = probability - (label == labels[k])
                step_bias[k] += error
                for j, value in enumerate(values):
                    step_weights[k][j] += error * (value - mean[j]) / spread[j]
        for k in range(len(labels)):
            model["bias"][k] -= RATE * step_bias[k] / len(rows)
            for j in range(len(features)):
                model["weights"][k][j] -= RATE * step_weights[k][j] / len(rows)
    return rounded(model)


def rounded(value):
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return value


def measure(model, held_out):
    """The expected behaviour of `model`, which ValidateService holds the running server to."""
    right = sum(predict(model, values)["kind"] == label for values, label in held_out)
    values, _ = held_out[0]
    return rounded({
        "minimum_accuracy": MINIMUM_ACCURACY,
        "accuracy": right / len(held_out),
        "held_out": [
            {"features": dict(zip(model["features"], values)), "kind": label} for values, label in held_out
        ],
        "known": {
            "features": dict(zip(model["features"], values)),
            **predict(model, values),
        },
    })


def same(left, right):
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, abs_tol=2 * 10**-DIGITS)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left == right


def main():
    features, rows = read()
    training = [row for index, row in enumerate(rows) if index % 4 != 3]
    held_out = [row for index, row in enumerate(rows) if index % 4 == 3]
    model = train(features, training)
    results = {"model.json": model, "metrics.json": measure(model, held_out)}
    for name, result in results.items():
        if "--check" not in sys.argv[1:]:
            (FOLDER / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        elif not same(json.loads((FOLDER / name).read_text(encoding="utf-8")), result):
            sys.exit(f"{name} is not what training on measurements.csv gives: run train.py")
    metrics = results["metrics.json"]
    print(f"accuracy {metrics['accuracy']:.3f} on {len(held_out)} held-out rows, {len(training)} used for training")
    if metrics["accuracy"] < MINIMUM_ACCURACY:
        sys.exit(f"that is less than {MINIMUM_ACCURACY}: do not deploy this model")


main()
