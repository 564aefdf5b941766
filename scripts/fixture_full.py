#!/usr/bin/env python3
"""Record what torch says about training all weights of the test checkpoints: gradients, and the losses of ten steps.

usage: fixture_full.py [CASE ...]      writes prompt-tuning/tests/fixtures/full/CASE.{json,safetensors}

The batch is the one of the checkpoint's expected.json, without virtual tokens; the loss is the mean over its scored tokens.
Gradients bear the names of the checkpoint's file. Needs what make_fixtures.py needs.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import fixture_bert
import fixture_records
import fixture_t5
from fixture_models import write_json
from make_fixtures import FIXTURES, records_of

OUT = FIXTURES.parent.parent.parent / "prompt-tuning" / "tests" / "fixtures" / "full"
CASES = (
    "gpt2-tied-f32",
    "gpt2-square",
    "llama-gqa-tied-bf16",
    "llama-untied-sharded-f32",
    "qwen2-bias-tied",
    "bert-english",
    "bert-untied",
    "t5-v1.0-relu-tied",
    "t5-v1.1-gated-bf16",
    "gpt2-classifier",
    "llama-classifier",
    "bert-classifier",
)
STEPS = 10
MAKE = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def optimizers(case):
    """Learning rates at which rounding does not grow over the steps: BERT and T5 are steep."""
    kind = case.split("-")[0]
    adamw, sgd = {"bert": (1e-4, 1e-3), "t5": (1e-3, 5e-3)}.get(kind, (1e-3, 5e-2))
    return {"adamw": dict(lr=adamw, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0), "sgd": dict(lr=sgd)}


def batch_loss(records, model, batch):
    return records.batch_loss(model, batch, None) if records is fixture_bert else records.batch_loss(model, batch)


def train(folder, batch, name, dtype):
    records = records_of(folder)
    model = records.open_model(folder).to(dtype)
    optimizer = MAKE[name](model.parameters(), **optimizers(folder.name)[name])
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = batch_loss(records, model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def names_in_file(folder):
    files = [file for file in sorted(folder.glob("*.safetensors")) if file.name != "expected.safetensors"]
    return [name for file in files for name in safe_open(file, "pt").keys()]


def in_file(name, names):
    """The name that the file has for a parameter: without a prefix, or with the oldest BERTs' words."""
    old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    short = [n.split(".", 1)[1] for n in (name, old)]
    found = [n for n in (name, old, *short) if n in names]
    if found:
        return found[0]
    second = {"cls.predictions.bias": "cls.predictions.decoder.bias"}
    return second.get(name)


def make(case):
    folder = FIXTURES / case
    batch = json.loads((folder / "expected.json").read_text())["batch"]
    records = records_of(folder)
    model = records.open_model(folder)
    batch_loss(records, model, batch).backward()
    names, gradients = names_in_file(folder), {}
    for name, p in model.named_parameters():
        if p.grad is None:
            continue
        assert in_file(name, names), f"{case}: no name for {name} in {names}"
        gradients[in_file(name, names)] = p.grad.contiguous()
    losses = {name: train(folder, batch, name, torch.float32) for name in MAKE}
    apart = max(
        abs(a - b)
        for name in MAKE
        for a, b in zip(losses[name], train(folder, batch, name, torch.float64))
    )
    assert apart < 3e-5, f"{case}: rounding alone makes {apart:.1e}"
    OUT.mkdir(parents=True, exist_ok=True)
    write_json(OUT / f"{case}.json", {"optimizers": optimizers(case), "losses": losses})
    save_file(gradients, OUT / f"{case}.safetensors")
    (OUT / f"{case}.safetensors").chmod(0o644)
    size = (OUT / f"{case}.safetensors").stat().st_size // 1024
    falls = ", ".join(f"{n} {x[0]:.3f} -> {x[-1]:.3f}" for n, x in losses.items())
    print(f"{case}: {len(gradients)} gradients, {size} KiB, rounding {apart:.1e}, {falls}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sys.argv[1:] or CASES:
        make(case)
