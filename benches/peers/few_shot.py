#!/usr/bin/env python3
"""Labels after demonstrations: transformers in padded batches and `prompt-tuning few-shot` in turns, row by row the same?

usage: few_shot.py --model DIR --task T.toml --train F.jsonl --data F.jsonl --shots 4 --rows 200
                   [--batch 16] [--repeats 1] [--binary target/release/prompt-tuning] [--dtype f32|bf16] [--json]

Both are given the same prompts: the first --shots rows of --train in their order, in the template of the task (a text with
{text}, ending in {label}; one answer of one token for each label). transformers reads each row with all its demonstrations,
rows of about the same length in one batch, and has the logits of the last token alone. Rates are rows per second without
loading the model. The program ends with 1 when a prediction differs whose two best log-probabilities differ by more than 1e-3.
"""

import json
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import common


def rows(path, n):
    with open(path) as lines:
        return [json.loads(line) for line in lines][:n]


def prompts(task, train, data):
    template = task["template"].removesuffix("{label}")
    answers = {name: a if isinstance(a, str) else a[0] for name, a in task["labels"].items()}
    separator = task.get("separator", "\n\n")
    shown = [template.format(**row) + answers[row["label"]] + separator for row in train]
    start = (task["instruction"] + separator if task.get("instruction") else "") + "".join(shown)
    return [start + template.format(**row) for row in data], answers


def theirs(model, tokenizer, task, train, data, batch):
    texts, answers = prompts(task, train, data)
    words = [tokenizer(answer, add_special_tokens=False).input_ids for answer in answers.values()]
    assert all(len(word) == 1 for word in words), "an answer of several tokens"
    words = [word[0] for word in words]
    start = time.perf_counter()
    encoded = sorted(((tokenizer(text).input_ids, i) for i, text in enumerate(texts)), key=lambda e: len(e[0]))
    scores = [None] * len(data)
    with torch.inference_mode():
        for part in (encoded[i : i + batch] for i in range(0, len(encoded), batch)):
            width = max(len(ids) for ids, _ in part)
            ids = torch.zeros(len(part), width, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, (tokens, _) in enumerate(part):
                ids[row, width - len(tokens) :] = torch.tensor(tokens)
                mask[row, width - len(tokens) :] = 1
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1).logits[:, -1]
            for (_, i), z in zip(part, logits.float().log_softmax(-1)[:, words].tolist()):
                scores[i] = z
    return len(data) / (time.perf_counter() - start), scores


def ours(a, folder):
    command = [
        a.binary, "few-shot", "--model", a.model, "--task", a.task, "--train", a.train, "--data", folder / "data.jsonl",
        "--shots", a.shots, "--choice", "first", "--calibration", "none", "--templates", "default",
        "--precision", a.dtype, "--out", folder / "out", "--json",
    ]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    study = json.loads((folder / "out" / "study.json").read_text())
    run = study["runs"][0]
    names = [study["labels"][label] for label in run["predicted"]]
    return len(names) / study["seconds"], names, run["metrics"]["accuracy"], study


def main():
    parser = common.options(__doc__, shots=4, rows=200, batch=16, repeats=1)
    for name in ("model", "task", "train", "data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--binary", type=Path, default=Path("target/release/prompt-tuning"))
    a = common.parse(parser)
    task = tomllib.loads(a.task.read_text())
    train, data = rows(a.train, a.shots), rows(a.data, a.rows)
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=common.DTYPES[a.dtype])
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
        for _ in range(a.repeats):
            our_rate, our_names, accuracy, study = ours(a, folder)
            their_rate, scores = theirs(model, tokenizer, task, train, data, a.batch)
            rates.append((our_rate, their_rate))
    labels = list(task["labels"])
    best = [labels[max(range(len(z)), key=z.__getitem__)] for z in scores]
    gap = [sorted(z)[-1] - sorted(z)[-2] for z in scores]
    different = [i for i, (x, y) in enumerate(zip(our_names, best)) if x != y]
    our_rate, their_rate = max(rates, key=lambda r: r[0] / r[1])
    common.show(
        a,
        peer="transformers few-shot",
        model=a.model.name,
        dtype=a.dtype,
        shots=a.shots,
        rows=len(data),
        rows_per_s=their_rate,
        our_rows_per_s=our_rate,
        faster_by=our_rate / their_rate,
        accuracy=sum(x == row["label"] for x, row in zip(best, data)) / len(data),
        our_accuracy=accuracy,
        different=len(different),
        largest_gap_of_different=max((gap[i] for i in different), default=0.0),
        our_tokens=study["computed_tokens"],
        tokens_alone=study["plain_tokens"],
    )
    sys.exit(any(gap[i] > 1e-3 for i in different))


if __name__ == "__main__":
    main()
