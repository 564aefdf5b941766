"""What the peers share: options, rows, the clock, and how a result is printed."""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def options(description, **defaults):
    """--threads, --dtype and --json, which every peer has, and what else `defaults` names, with the type of its value."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of readable lines")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    for name, value in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    return parser


def parse(parser):
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    return a


def step_options(description, **defaults):
    """Options of a peer that makes training steps."""
    parser = options(description, prompt=20, batch=32, steps=1, **defaults)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--rows", type=Path, help="rows of token ids; default: rows.jsonl of the model's folder")
    return parser


def read_rows(path):
    """(prompt ids, completion ids) of every line."""
    lines = path.read_text().splitlines()
    return [(row["prompt_ids"], row["completion_ids"]) for row in map(json.loads, lines)]


def batches(a):
    """The batches of `steps` steps, in the order of the file."""
    rows = read_rows(a.rows or a.model / "rows.jsonl")
    for step in range(a.steps):
        yield [rows[i % len(rows)] for i in range(step * a.batch, (step + 1) * a.batch)]


def seconds_of(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def times(work, repeats):
    """Seconds of each of `repeats` runs, after one that is not counted."""
    work()
    return [seconds_of(work)[0] for _ in range(repeats)]


def peak_rss_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def show(a, **facts):
    """One result on one line."""
    facts = {key: round(x, 6) if isinstance(x, float) else x for key, x in facts.items()}
    print(json.dumps(facts) if a.json else "  ".join(f"{key} {x}" for key, x in facts.items()), flush=True)


def run_steps(a, peer, step):
    """Times step(batch) -> loss, after a warm-up on the first batch, and shows each step and a summary.

    The warm-up is a whole batch: on a virtual machine memory that is touched for the first time can be very slow.
    """
    made = list(batches(a))
    step(made[0])
    seconds = []
    for i, batch in enumerate(made):
        elapsed, loss = seconds_of(lambda: step(batch))
        seconds.append(elapsed)
        tokens = sum(len(p) + len(c) for p, c in batch)
        show(a, peer=peer, step=i + 1, loss=loss, examples=len(batch), tokens=tokens, seconds=elapsed)
    show(
        a,
        peer=peer,
        torch=torch.__version__,
        dtype=a.dtype,
        prompt=a.prompt,
        batch=a.batch,
        min_step_s=min(seconds),
        median_step_s=statistics.median(seconds),
        examples_per_s=a.batch * len(seconds) / sum(seconds),
        peak_rss_bytes=peak_rss_bytes(),
    )
