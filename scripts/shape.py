"""Checkpoints with the shape of a real model and random weights, written tensor by tensor, and rows of token ids.

A safetensors file is a length (8 bytes), a JSON header that tells each tensor's dtype, shape and place, and the tensors
one after the other. All of the header follows from the shapes alone, so it is written first and no more than a slice of
one tensor is ever in memory.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np

STD = 0.02
SLICE = 1 << 22
BYTES = {"F32": 4, "BF16": 2}


def as_bf16(x):
    """The bits of f32 numbers rounded to the nearest bf16, ties to even. The numbers must be finite."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def values(rng, name, count):
    """As in a fresh model: matrices N(0, 0.02), biases 0, norm weights 1. The name tells which."""
    if name.endswith("bias"):
        return np.zeros(count, np.float32)
    if "norm" in name or ".ln_" in name:
        return np.ones(count, np.float32)
    return np.float32(STD) * rng.standard_normal(count, dtype=np.float32)


def header(shapes, dtype):
    entries, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes:
        begin, end = end, end + math.prod(shape) * BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes


def write_tensors(path, shapes, dtype, rng):
    """shapes: (name, shape) pairs in the order of the file."""
    with path.open("wb") as file:
        head = header(shapes, dtype)
        file.write(len(head).to_bytes(8, "little") + head)
        for name, shape in shapes:
            count = math.prod(shape)
            for begin in range(0, count, SLICE):
                x = values(rng, name, min(SLICE, count - begin))
                file.write((as_bf16(x) if dtype == "BF16" else x).tobytes())


def random_rows(rng, count, vocab):
    """Lengths as SST-2's sentences: exp(N(3.1, 0.5)) rounded and held within 6 to 66 tokens, about 25 on average."""
    for length in np.exp(rng.normal(3.1, 0.5, count)).round().clip(6, 66).astype(int):
        ids = rng.integers(0, vocab, length).tolist()
        yield {"prompt_ids": ids[:-1], "completion_ids": ids[-1:]}


def write_rows(folder, count, seed, vocab):
    rows = list(random_rows(np.random.default_rng(seed), count, vocab))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mean = sum(len(row["prompt_ids"]) + 1 for row in rows) / count
    print(f"{folder / 'rows.jsonl'}: {count} rows, {mean:.1f} tokens on average")


def arguments(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def write_folder(description, config, shapes, dtype):
    """All that make_*_shape.py do: config.json, model.safetensors and rows.jsonl in the folder of the command line."""
    a = arguments(description)
    shapes = list(shapes)
    a.folder.mkdir(parents=True, exist_ok=True)
    write_tensors(a.folder / "model.safetensors", shapes, dtype, np.random.default_rng(a.seed))
    (a.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    total = sum(math.prod(shape) for _, shape in shapes)
    print(f"{a.folder}: {len(shapes)} tensors, {total:,} parameters")
    write_rows(a.folder, a.rows, a.seed + 1, config["vocab_size"])
