#!/usr/bin/env python3
"""Whether what `train --method full` writes is, to transformers, the same model.

usage: check_finetuned.py PROGRAM [CASE ...]      PROGRAM: the built prompt-tuning

Trains all weights of checkpoints in model/tests/fixtures for five steps, opens the folder with transformers, and compares the
log-probability of every scored token with the program's. With `--head` (cases that end in +head) on short texts that a few steps
learn, whose probabilities of the labels are compared; Llama, Qwen2 and Mistral are made for it, with the tokenizer of gpt2-text.
Fails above 1e-4. Needs what make_fixtures.py needs.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, MistralConfig, MistralForCausalLM

from fixture_full import CASES
from fixture_models import LLAMA, config_of, llama, qwen2, randomise, weights, write_json, write_single
from make_fixtures import FIXTURES, TOLERANCE, records_of

TEXTS = [f"a {('fine film', 'dull story')[i % 2]}{' and more of it' * (i % 4)} {i}" for i in range(32)]
TASK = 'name = "films"\ntemplate = "Review: {text}{mask}"\n[labels]\npositive = " good"\nnegative = " bad"\n'
SIZES = dict(vocab_size=384, max_position_embeddings=256)


def mistral(seed, **changes):
    model = MistralForCausalLM(MistralConfig(**(LLAMA | changes)))
    randomise(model, seed)
    return model


MADE = {"llama": llama, "qwen2": qwen2, "mistral": mistral}
WITH_HEAD = [f"{name}+head" for name in ("gpt2-text", "bert-english", "bert-chinese", *MADE)]


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


def base_model(name, work):
    """The folder of a language model with a tokenizer."""
    if name not in MADE:
        return FIXTURES / name
    folder = work / name
    folder.mkdir()
    model = MADE[name](seed=41, **SIZES)
    write_single(folder, weights(model, torch.float32))
    write_json(folder / "config.json", config_of(model, torch.float32))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FIXTURES / "gpt2-text" / file, folder)
    return folder


def their_probabilities(out, texts):
    """Of a padded batch: transformers must find the last token of each text by itself."""
    tokenizer = AutoTokenizer.from_pretrained(out)
    tokenizer.padding_side = "right"
    model, loading = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    odd = {kind: names for kind, names in loading.items() if names}
    assert not odd, f"{out}: transformers does not read it as it is: {odd}"
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
    batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    assert batch["attention_mask"].min() == 0, "texts of several lengths are needed"
    probabilities = model.eval()(**batch).logits.softmax(-1)
    return model, [{model.config.id2label[i]: p for i, p in enumerate(row)} for row in probabilities.tolist()]


@torch.no_grad()
def check_head(binary, name, work):
    task, rows, out = work / "task.toml", work / "texts.jsonl", work / f"{name}+head"
    task.write_text(TASK)
    labelled = [{"text": text, "label": ("positive", "negative")[i % 2]} for i, text in enumerate(TEXTS)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in labelled))
    train = ("train", "--method", "full", "--head", "--model", base_model(name, work), "--task", task)
    program(binary, *train, "--train", rows, "--out", out, "--steps", 30, "--lr", 0.002, "--batch", 16)
    ours = program(binary, "predict", "--model", out, "--task", task, "--data", rows)
    model, theirs = their_probabilities(out, [f"Review: {text}" for text in TEXTS])
    pairs = zip(ours, theirs, strict=True)
    worst = max(abs(own["probabilities"][label] - p) for own, row in pairs for label, p in row.items())
    spread = torch.tensor([own["probabilities"]["positive"] for own in ours]).std()
    assert spread > 0.1, f"{name}: nothing was learned, so all texts are alike"
    print(f"{name}+head: {model.config.architectures[0]}, largest difference {worst:.1e}, spread {spread:.2f}")
    return worst <= TOLERANCE


def main():
    usual = [case for case in CASES if not case.endswith("-classifier")] + WITH_HEAD
    binary, cases = sys.argv[1], sys.argv[2:] or usual
    with tempfile.TemporaryDirectory() as work:
        one = lambda case: check_head if case.endswith("+head") else check
        results = [one(case)(binary, case.removesuffix("+head"), Path(work)) for case in cases]
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
