#!/usr/bin/env python3
"""Run Python functions that a model wrote against the checks of their data: how many do what they should.

usage: prompt-tuning predict --task data/examples/code/task.toml --data data/examples/code/test.jsonl --json ... |
           check_code_answers.py data/examples/code/test.jsonl

Row i of the data has `signature` and `check` (a Python expression that is true of a right function); line i of standard
input is {"answer": BODY}. Each function runs in a Python of its own without site packages, for at most SECONDS. That is no
sandbox: a model can write code that deletes files, so run this only where that does no harm.

Prints which functions fail, and the share that pass with its 95 % confidence interval (Wilson 1927).
"""

import json
import subprocess
import sys
import tempfile
from math import sqrt
from pathlib import Path

SECONDS = 5


def outcome(row, body):
    """`None` if the function passes, otherwise why not, in one line."""
    program = f"{row['signature']}:\n{body}\n\nimport sys\nsys.exit(0 if {row['check']} else 'wrong result')\n"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", "-S", "-c", program]
        try:
            ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return f"not done in {SECONDS} s"
    lines = ran.stderr.strip().splitlines()
    return None if ran.returncode == 0 else (lines or [f"exit code {ran.returncode}"])[-1]


def wilson(right, n, z=1.959964):
    share, scale = right / n, 1 + z * z / n
    middle, half = (share + z * z / (2 * n)) / scale, z * sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / scale
    return middle - half, middle + half


def main():
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    answers = [json.loads(line)["answer"] for line in sys.stdin]
    if len(rows) != len(answers) or not rows:
        sys.exit(f"{len(answers)} answers for {len(rows)} rows of {sys.argv[1]}")
    why = [outcome(row, answer) for row, answer in zip(rows, answers)]
    for row, reason in zip(rows, why):
        if reason:
            print(f"fails: {row['signature']}: {reason}")
    right = why.count(None)
    low, high = wilson(right, len(rows))
    print(f"functions that do what they should: {right} of {len(rows)} (95 % interval {100 * low:.1f} % to {100 * high:.1f} %)")


if __name__ == "__main__":
    main()
