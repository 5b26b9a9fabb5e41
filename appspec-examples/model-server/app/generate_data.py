#!/usr/bin/env python3
"""Writes measurements.csv: made-up fasteners, always the same ones.

generate_data.py [FILE]     (default: measurements.csv beside this script)

Each kind has a typical length, diameter and mass and varies around them; the kinds overlap, so that no model is perfect.
"""

import csv
import random
import sys
from pathlib import Path

#        kind      (mean, spread) of length_mm, diameter_mm, mass_g
KINDS = {
    "bolt":   ((42.0, 7.0), (8.0, 1.2), (19.0, 4.0)),
    "screw":  ((30.0, 6.0), (5.0, 1.0), (8.0, 2.5)),
    "washer": ((2.2, 0.6), (16.0, 3.0), (4.5, 1.5)),
    "rivet":  ((18.0, 4.0), (5.5, 0.9), (5.0, 1.5)),
}
EACH = 60


def main():
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "measurements.csv"
    source = random.Random(20240501)
    rows = [
        [round(max(0.1, source.gauss(mean, spread)), 2) for mean, spread in measures] + [kind]
        for kind, measures in KINDS.items()
        for _ in range(EACH)
    ]
    source.shuffle(rows)
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["length_mm", "diameter_mm", "mass_g", "kind"])
        writer.writerows(rows)


main()
