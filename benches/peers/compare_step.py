#!/usr/bin/env python3
"""Prompt tuning steps of this repository and of its peers in alternation, in one run: a table of ratios.

usage: compare_step.py --model DIR [--rows F] [--prompt 20] [--batch 32] [--steps 2] [--turns 2] [--dtype f32|bf16]
                       [--peers peft torch_by_hand] [--binary target/release/prompt-tuning] [--prefix "nice -n -5"]
                       [--json-out FILE]

DIR is a folder as scripts/make_gpt2_shape.py makes it. In every turn each program makes the same --steps steps, on the
first batches of the rows, in a process of its own; a step before them is a warm-up and not counted. Of each step the
shortest and the median time over the turns is taken, and these are added up: "best" and "median". Steps differ in
length, so the times of two steps are never compared. --prefix is put before every command. Needs no package; run it by
the Python that has the peers' packages.
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


def with_warm_up(a, folder):
    """A file with the first batch twice, then the others: the first step of ours is its warm-up."""
    lines = a.rows.read_text().splitlines()[: a.steps * a.batch]
    path = Path(folder) / "rows.jsonl"
    path.write_text("\n".join(lines[: a.batch] + lines) + "\n")
    return path


def ours(a):
    with tempfile.TemporaryDirectory() as folder:
        rows = with_warm_up(a, folder)
        command = [a.binary, "train", "--model", a.model, "--train", rows, "--out", Path(folder) / "out"]
        command += ["--json", "--no-shuffle", "--steps", a.steps + 1, "--batch", a.batch, "--prompt-length", a.prompt]
        return run(a, command + ["--precision", a.dtype, "--threads", a.threads])


def peer(a, script):
    command = [sys.executable, HERE / script, "--json", "--model", a.model, "--rows", a.rows, "--prompt", a.prompt]
    command += ["--batch", a.batch, "--steps", a.steps]
    return run(a, command + ["--dtype", a.peer_dtype or a.dtype, "--threads", a.threads])


def measure(a):
    """Per program the seconds of its steps, one list a turn, and its peak memory in bytes."""
    found = {name: {"turns": [], "peak": 0} for name in [*a.peers, "ours"]}
    for turn in range(a.turns):
        for name, one in found.items():
            lines, peak = ours(a) if name == "ours" else peer(a, PEERS[name])
            seconds = [line["seconds"] for line in lines if "step" in line][-a.steps :]
            one["turns"].append(seconds)
            one["peak"] = max(one["peak"], peak)
            print(f"turn {turn + 1}: {name}: {', '.join(f'{s:.2f} s' for s in seconds)}", file=sys.stderr)
    return found


def summary(a, found):
    examples = a.batch * a.steps
    for name, one in found.items():
        best, median = (sum(map(of, zip(*one["turns"]))) for of in (min, statistics.median))
        yield {
            "program": name,
            "dtype": a.dtype if name == "ours" else a.peer_dtype or a.dtype,
            "model": a.model.name,
            "prompt": a.prompt,
            "batch": a.batch,
            "steps": a.steps,
            "turns": a.turns,
            "examples_per_s_best": examples / best,
            "examples_per_s_median": examples / median,
            "peak_rss_bytes": one["peak"],
        }


def markdown(lines):
    """The table, with what ours is times each program's speed and how many times less memory it needs."""
    mine = lines[-1]
    yield "| program | prompt | examples/s (median; best) | ours is faster by (median; best) | peak memory | ours needs |"
    yield "|---|---|---|---|---|---|"
    for line in lines:
        median, best = (mine[key] / line[key] for key in ("examples_per_s_median", "examples_per_s_best"))
        yield (
            f"| {line['program']} {line['dtype']} | {line['prompt']} "
            f"| {line['examples_per_s_median']:.2f}; {line['examples_per_s_best']:.2f} | {median:.2f}; {best:.2f} "
            f"| {line['peak_rss_bytes'] / 1e9:.2f} GB | 1/{line['peak_rss_bytes'] / mine['peak_rss_bytes']:.1f} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--prompt", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
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
