#!/usr/bin/env python3
"""Full fine-tuning beside prompt tuning beside torch's full fine-tuning: time and memory of a step.

usage: full.py --model DIR [--rows F] [--batch 32] [--steps 3] [--prompt 20] [--turns 1] [--binary target/release/prompt-tuning]

DIR holds a GPT-2 or Llama with `rows.jsonl` of raw ids (scripts/make_gpt2_shape.py). Each program is a process of its own and they take
turns. torch: transformers, rows padded on the right, all weights trained by AdamW, labels at the completion, f32. Every program
computes the first `batch` rows again and again; the first step is not counted.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def rows_of(a):
    return [json.loads(line) for line in a.rows.read_text().splitlines()[: a.batch]]


def torch_step(a):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows = rows_of(a)
    longest = max(len(r["prompt_ids"]) + len(r["completion_ids"]) for r in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for i, row in enumerate(rows):
        prompt, completion = row["prompt_ids"], row["completion_ids"]
        ids[i, : len(prompt) + len(completion)] = torch.tensor(prompt + completion)
        labels[i, len(prompt) : len(prompt) + len(completion)] = torch.tensor(completion)
        mask[i, : len(prompt) + len(completion)] = 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0)
    seconds, losses = [], []
    for _ in range(a.steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds[1:], "losses": losses, "peak": peak}))


def ours(a, method):
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in rows_of(a)))
        command = [a.binary, "train", "--model", a.model, "--train", rows, "--out", Path(folder) / "out", "--json"]
        command += ["--method", method, "--steps", a.steps + 1, "--batch", a.batch, "--no-shuffle", "--lr", "5e-5"]
        command += ["--prompt-length", a.prompt] if method == "soft" else []
        text = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout
    *steps, last = [json.loads(line) for line in text.splitlines()]
    return {"seconds": [s["seconds"] for s in steps[1:]], "losses": [s["loss"] for s in steps], "peak": last["peak_rss_bytes"]}


def peer(a):
    command = [sys.executable, __file__, "--torch", "--model", a.model, "--rows", a.rows, "--batch", a.batch, "--steps", a.steps]
    text = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout
    return json.loads(text.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=20)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "prompt-tuning")
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    a.rows = a.rows or a.model / "rows.jsonl"
    if a.torch:
        return torch_step(a)
    found = {}
    for _ in range(a.turns):
        for name, run in (("torch, full", peer), ("full", lambda a: ours(a, "full")), ("soft", lambda a: ours(a, "soft"))):
            one = run(a)
            all_of = found.setdefault(name, {"seconds": [], "peak": 0, "losses": one["losses"]})
            all_of["seconds"] += one["seconds"]
            all_of["peak"] = max(all_of["peak"], one["peak"])
    for name, x in found.items():
        median, best = statistics.median(x["seconds"]), min(x["seconds"])
        losses = " ".join(f"{loss:.4f}" for loss in x["losses"])
        print(f"{name:12} {median:7.2f} s a step, best {best:6.2f}; peak {x['peak'] / 1e9:5.2f} GB; losses {losses}")


if __name__ == "__main__":
    main()
