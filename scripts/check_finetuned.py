#!/usr/bin/env python3
"""Whether what `train --method full` writes is, to transformers, the same model.

usage: check_finetuned.py PROGRAM [CASE ...]      PROGRAM: the built prompt-tuning

Trains all weights of checkpoints in model/tests/fixtures for five steps, opens the folder with transformers, and compares the
log-probability of every scored token with the program's. Fails above 1e-4. Needs what make_fixtures.py needs.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from fixture_full import CASES
from make_fixtures import FIXTURES, TOLERANCE, records_of


def program(binary, *args):
    text = subprocess.run([binary, *map(str, args), "--json"], check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in text.splitlines()]


@torch.no_grad()
def check(binary, case, work):
    batch = json.loads((FIXTURES / case / "expected.json").read_text())["batch"]
    keys = ("ids", "mask_positions", "labels") if "ids" in batch[0] else ("prompt_ids", "completion_ids")
    rows, out = work / "rows.jsonl", work / case
    rows.write_text("".join(json.dumps({key: row[key] for key in keys}) + "\n" for row in batch))
    train = ("train", "--method", "full", "--model", FIXTURES / case, "--train", rows, "--out", out)
    program(binary, *train, "--steps", 5, "--lr", 0.001, "--batch", len(batch))
    ours = program(binary, "score", "--model", out, "--data", rows)
    records = records_of(out)
    model = records.open_model(out)
    theirs = getattr(records, "completion_log_probs", None) or records.log_probs
    pairs = zip(batch, ours, strict=True)
    worst = max((theirs(model, row) - torch.tensor(own["token_log_probs"])).abs().max().item() for row, own in pairs)
    print(f"{case}: {model.config.architectures[0]}, largest difference {worst:.1e}")
    return worst <= TOLERANCE


def main():
    binary, cases = sys.argv[1], sys.argv[2:] or CASES
    with tempfile.TemporaryDirectory() as work:
        results = [check(binary, case, Path(work)) for case in cases]
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
