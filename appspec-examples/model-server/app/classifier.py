"""How a model turns measurements into a kind; training and serving share it, so that they cannot disagree."""

import math


def probabilities(model, values):
    """One probability per label of `model`, in its order, for `values` in the order of its features."""
    scaled = [(v - m) / s for v, m, s in zip(values, model["mean"], model["spread"])]
    scores = [b + sum(w * x for w, x in zip(ws, scaled)) for ws, b in zip(model["weights"], model["bias"])]
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    return [power / sum(powers) for power in powers]


def predict(model, values):
    probability, kind = max(zip(probabilities(model, values), model["labels"]))
    return {"kind": kind, "probability": probability}
