#!/usr/bin/env python3
"""Small random classifiers in model/tests/fixtures, as transformers writes them, and the logits it computes with them.

usage: fixture_classifier.py [CASE ...]      writes CASE/{config.json,model.safetensors,expected.json}

`expected.json` has a `batch` of {"ids", "label", "logits"}; gradients and losses are recorded by fixture_full.py. Needs what
make_fixtures.py needs.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, log_softmax
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from fixture_models import randomise, write_json

FIXTURES = Path(__file__).resolve().parent.parent / "model" / "tests" / "fixtures"
PAD, FIRST = 1, 3  # ids from FIRST on are drawn, 2 stands in front: [CLS], or any other beginning
VOCAB, WIDTH = 61, 16


def named(*labels):
    return dict(id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)})


def gpt2():
    sizes = dict(n_embd=WIDTH, n_layer=2, n_head=2, n_positions=32, vocab_size=VOCAB)
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=PAD, pad_token_id=PAD, **named("bad", "fair", "good"))
    return GPT2ForSequenceClassification(config)


def llama():
    """Two labels without names, of which transformers writes nothing."""
    sizes = dict(hidden_size=WIDTH, intermediate_size=36, num_hidden_layers=2, max_position_embeddings=32, vocab_size=VOCAB)
    heads = dict(num_attention_heads=4, num_key_value_heads=2)
    return LlamaForSequenceClassification(LlamaConfig(**sizes, **heads, bos_token_id=0, eos_token_id=0, pad_token_id=PAD))


def bert():
    sizes = dict(hidden_size=WIDTH, intermediate_size=36, num_hidden_layers=2, max_position_embeddings=32, vocab_size=VOCAB)
    config = BertConfig(**sizes, num_attention_heads=2, pad_token_id=PAD, **named("world", "sports", "business", "science"))
    return BertForSequenceClassification(config)


CASES = {"gpt2-classifier": (gpt2, 31), "llama-classifier": (llama, 32), "bert-classifier": (bert, 33)}


def open_model(folder):
    kind = AutoModelForSequenceClassification
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def logits(model, row):
    return model(input_ids=torch.tensor([row["ids"]])).logits[0]


def log_probs(model, row):
    return log_softmax(logits(model, row), dim=-1)[[row["label"]]]


def batch_loss(model, batch):
    """Row by row: no padding that could change anything."""
    all_logits = torch.stack([logits(model, row) for row in batch])
    return cross_entropy(all_logits, torch.tensor([row["label"] for row in batch]))


def draw_batch(n_labels, seed):
    """Texts that begin alike, one that is the beginning of another, one twice with its label and once with another."""
    generator = torch.Generator().manual_seed(seed)
    ids = lambda n: torch.randint(FIRST, VOCAB, (n,), generator=generator).tolist()
    shared = [FIRST - 1, *ids(4)]
    texts = [shared + ids(3), shared, shared + ids(6), [FIRST - 1, *ids(9)]]
    rows = [{"ids": text, "label": i % n_labels} for i, text in enumerate(texts)]
    return rows + [dict(rows[0]), rows[2] | {"label": 1}]


@torch.no_grad()
def check_padding(model, batch):
    """With padding behind them the rows have the same logits: what we call the last token is what transformers calls so."""
    longest = max(len(row["ids"]) for row in batch)
    ids = torch.tensor([row["ids"] + [PAD] * (longest - len(row["ids"])) for row in batch])
    padded = model(input_ids=ids, attention_mask=(ids != PAD).long()).logits
    assert torch.allclose(padded, torch.stack([logits(model, row) for row in batch]), atol=1e-5)


@torch.no_grad()
def make(case):
    folder, (build, seed) = FIXTURES / case, CASES[case]
    shutil.rmtree(folder, ignore_errors=True)
    model = build().eval()
    randomise(model, seed)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    model = open_model(folder)
    batch = draw_batch(model.config.num_labels, seed)
    check_padding(model, batch)
    for row in batch:
        row["logits"] = logits(model, row).tolist()
    write_json(folder / "expected.json", {"batch": batch})
    size = sum(file.stat().st_size for file in folder.iterdir()) // 1024
    print(f"{case}: {size} KiB, loss {batch_loss(model, batch):.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        make(name)
