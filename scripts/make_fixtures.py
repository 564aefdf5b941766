#!/usr/bin/env python3
"""Write the test checkpoints of model/tests/fixtures and what transformers and PEFT say about them.

usage: make_fixtures.py [CASE ...]                     write all cases, or those named
       make_fixtures.py --check-adapter DIR --model DIR [--logits FILE.json | --ids 1,2,3]

The second form loads an adapter folder, for instance one written by `prompt-tuning train`, with PEFT. With --ids it
prints {"ids", "logits"}; with --logits it compares with such a file (logits of the text positions, or of the virtual
tokens and the text positions) and fails when they differ by more than 1e-4.

Needs torch, transformers, peft, gguf (made with torch 2.15, transformers 5.23, peft 0.21, gguf 0.19). See model/tests/fixtures/README.md.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import save_file

import fixture_bert
import fixture_classifier
import fixture_gguf
import fixture_records
import fixture_t5
import fixture_text
from fixture_models import CASES, write_json

FIXTURES = Path(__file__).resolve().parent.parent / "model" / "tests" / "fixtures"
WITH_ADAPTER = ("gpt2-tied-f32", "llama-gqa-tied-bf16", "t5-v1.1-gated-bf16")
ALL = CASES | fixture_text.CASES | fixture_t5.CASES | fixture_bert.CASES | fixture_gguf.CASES
TOLERANCE = 1e-4


def records_of(folder):
    """The module that knows what is recorded of this kind of model."""
    if (folder / fixture_gguf.FILE).exists():
        return fixture_records
    config = json.loads((folder / "config.json").read_text())
    if config["architectures"][0].endswith("ForSequenceClassification"):
        return fixture_classifier
    return {"t5": fixture_t5, "bert": fixture_bert}.get(config["model_type"], fixture_records)


def check_weights(folder, made):
    """transformers must read from the folder what was written into it, else the records describe another model."""
    read = dict(records_of(folder).open_model(folder).named_parameters())
    for name, p in made.named_parameters():
        close = torch.allclose(read[name], p, rtol=2**-8, atol=1e-7)
        assert close, f"{folder.name}: {name} was not read back"


def make(name, seed):
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = ALL[name](folder)
    if made is not None:
        check_weights(folder, made)
    records = records_of(folder)
    values, tensors, peft_model = records.record(folder, seed)
    rounding = records.rounding(folder, values, tensors)
    assert rounding < 3e-5, f"{name}: rounding alone makes {rounding:.1e}, too near the tests' 1e-4: change the seed"
    if name in WITH_ADAPTER:
        prompt = tensors["adamw.prompt"]
        tensors |= records.save_adapter(peft_model, prompt, values, folder / "adapter")
    for kind in (fixture_text, fixture_gguf):
        if name in kind.CASES:
            values |= kind.text_records(folder)
    write_json(folder / "expected.json", values)
    save_file(tensors, folder / "expected.safetensors")
    spread = torch.cat([x.flatten() for n, x in tensors.items() if n.startswith("base.logits")]).std()
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    falls = ", ".join(f"{n} {x[0]:.3f} -> {x[-1]:.3f}" for n, x in values["losses"].items())
    print(f"{name}: {size // 1024} KiB, logits spread {spread:.2f}, rounding {rounding:.1e}, {falls}")


@torch.no_grad()
def check_adapter(adapter, model, logits_file, ids):
    records = records_of(model)
    peft_model = PeftModel.from_pretrained(records.open_model(model), adapter).eval()
    if logits_file is None:
        print(json.dumps({"ids": ids, "logits": records.logits(peft_model, ids).tolist()}))
        return
    given = json.loads(logits_file.read_text())
    labels = [given["labels"]] if "labels" in given else []
    theirs = records.logits(peft_model, given["ids"], *labels)
    ours = torch.tensor(given["logits"])
    assert len(ours) in (len(theirs), len(given["ids"])), f"{len(ours)} rows of logits for {len(given['ids'])} ids"
    worst = (ours - theirs[-len(ours) :]).abs().max().item()
    print(f"{adapter}: {len(ours)} positions, largest difference {worst:.2e} (allowed {TOLERANCE:.0e})")
    if not worst <= TOLERANCE:
        sys.exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--check-adapter", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--logits", type=Path)
    parser.add_argument("--ids", type=lambda s: [int(i) for i in s.split(",")], default=[1, 2, 3])
    a = parser.parse_args()
    torch.set_num_threads(1)  # one thread: the same sums on every machine with the same CPU kind
    if a.check_adapter:
        return check_adapter(a.check_adapter, a.model, a.logits, a.ids)
    if not a.cases or "t5-buckets.json" in a.cases:
        write_json(FIXTURES / "t5-buckets.json", fixture_t5.buckets())
    for i, name in enumerate(ALL):
        if not a.cases or name in a.cases:
            make(name, seed=fixture_gguf.SEEDS.get(name, 100 + 10 * i))


if __name__ == "__main__":
    main()
