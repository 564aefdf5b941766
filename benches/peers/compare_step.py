#!/usr/bin/env python3
"""Prompt tuning steps of this repository and of its peers in alternation, in one run: a table of ratios.

usage: compare_step.py --model DIR [--rows F] [--prompt 20] [--batch 32] [--steps 1] [--turns 3] [--dtype f32|bf16]
                       [--peers peft torch_by_hand] [--binary target/release/prompt-tuning] [--prefix "nice -n -5"]
                       [--json-out FILE]

DIR is a folder as scripts/make_gpt2_shape.py makes it. In turn i each program makes the same --steps steps, on batches
i * steps and following of the rows, in a process of its own; the first batch of ours is a warm-up that is not counted,
and the peers warm up by themselves. --prefix is put before every command. Needs no package; run it by the Python that
has the peers' packages.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = {"peft": "peft_prompt_tuning.py", "torch_by_hand": "torch_by_hand.py"}
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def run(a, command):
    """The JSON objects a command prints, and the most memory that it had."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(shlex.split(a.prefix) + [str(word) for word in command], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"compare_step: {shlex.join(map(str, command))} ended with {process.returncode}")
        out.seek(0)
        return [json.loads(line) for line in out], usage.ru_maxrss * RSS_UNIT


def rows_of_turn(a, turn, folder):
    """A file with the warm-up's batch and the turn's batches: ours reads a file from its beginning."""
    lines = a.rows.read_text().splitlines()
    wanted = range(turn * a.steps * a.batch, (turn + 1) * a.steps * a.batch)
    first = [lines[i % len(lines)] for i in wanted[: a.batch]]
    path = Path(folder) / "rows.jsonl"
    path.write_text("\n".join(first + [lines[i % len(lines)] for i in wanted]) + "\n")
    return path


def ours(a, turn):
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of_turn(a, turn, folder)
        command = [a.binary, "train", "--model", a.model, "--train", rows, "--out", Path(folder) / "out"]
        command += ["--json", "--no-shuffle", "--steps", a.steps + 1, "--batch", a.batch, "--prompt-length", a.prompt]
        return run(a, command + ["--precision", a.dtype, "--threads", a.threads])


def peer(a, turn, script):
    command = [sys.executable, HERE / script, "--json", "--model", a.model, "--rows", a.rows, "--prompt", a.prompt]
    command += ["--batch", a.batch, "--steps", a.steps, "--skip", turn * a.steps]
    return run(a, command + ["--dtype", a.peer_dtype or a.dtype, "--threads", a.threads])


def measure(a):
    """Per program its seconds per step and its peak memory in bytes, over all turns."""
    found = {name: {"seconds": [], "peak": 0} for name in [*a.peers, "ours"]}
    for turn in range(a.turns):
        for name, one in found.items():
            lines, peak = ours(a, turn) if name == "ours" else peer(a, turn, PEERS[name])
            steps = [line["seconds"] for line in lines if "step" in line]
            one["seconds"] += steps[-a.steps :]
            one["peak"] = max(one["peak"], peak)
            print(f"turn {turn + 1}: {name}: {', '.join(f'{s:.2f} s' for s in steps[-a.steps :])}", file=sys.stderr)
    return found


def summary(a, found):
    for name, one in found.items():
        fastest, middle = min(one["seconds"]), statistics.median(one["seconds"])
        yield {
            "program": name,
            "dtype": a.dtype if name == "ours" else a.peer_dtype or a.dtype,
            "model": a.model.name,
            "prompt": a.prompt,
            "batch": a.batch,
            "steps": len(one["seconds"]),
            "min_step_s": fastest,
            "median_step_s": middle,
            "examples_per_s_best": a.batch / fastest,
            "examples_per_s_median": a.batch / middle,
            "peak_rss_bytes": one["peak"],
        }


def markdown(lines):
    """The table, with what ours is times each program's speed and how many times less memory it needs."""
    mine = lines[-1]
    yield "| program | prompt | examples/s (median; best) | ours is faster by (median; best) | peak memory | ours needs |"
    yield "|---|---|---|---|---|---|"
    for line in lines:
        median, best = (line[f"min_step_s" if key == "best" else "median_step_s"] for key in ("median", "best"))
        yield (
            f"| {line['program']} {line['dtype']} | {line['prompt']} "
            f"| {line['examples_per_s_median']:.2f}; {line['examples_per_s_best']:.2f} "
            f"| {median / mine['median_step_s']:.2f}; {best / mine['min_step_s']:.2f} "
            f"| {line['peak_rss_bytes'] / 1e9:.2f} GB | 1/{line['peak_rss_bytes'] / mine['peak_rss_bytes']:.1f} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--prompt", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--peer-dtype", choices=("f32", "bf16"), help="the peers' dtype, where it is another")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--binary", type=Path, default=HERE.parent.parent / "target" / "release" / "prompt-tuning")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--json-out", type=Path)
    a = parser.parse_args()
    a.rows = a.rows or a.model / "rows.jsonl"
    lines = list(summary(a, measure(a)))
    print("\n".join(markdown(lines)))
    if a.json_out:
        a.json_out.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
