#!/usr/bin/env python3
"""Write prompt-tuning/tests/fixtures/f1.json: right and predicted labels, and what scikit-learn says of them.

Needs scikit-learn (made with 1.9).
"""

import json
import random
from pathlib import Path

from sklearn.metrics import accuracy_score, f1_score

OUT = Path(__file__).resolve().parent.parent / "prompt-tuning" / "tests" / "fixtures" / "f1.json"


def case(seed):
    rng = random.Random(seed)
    n_labels = 2 + seed % 5
    gold = [rng.randrange(n_labels) for _ in range(rng.randint(1, 30))]
    predicted = [g if rng.random() < 0.6 else rng.randrange(n_labels) for g in gold]
    f1 = f1_score(gold, predicted, labels=range(n_labels), average="macro", zero_division=0)
    return {
        "n_labels": n_labels,
        "gold": gold,
        "predicted": predicted,
        "accuracy": accuracy_score(gold, predicted),
        "macro_f1": float(f1),
    }


if __name__ == "__main__":
    OUT.write_text("[\n" + ",\n".join(json.dumps(case(seed)) for seed in range(15)) + "\n]\n")
