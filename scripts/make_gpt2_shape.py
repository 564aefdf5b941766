#!/usr/bin/env python3
"""A checkpoint with the shape of GPT-2 small and random weights, and rows of token ids as long as SST-2's sentences.

usage: make_gpt2_shape.py FOLDER [--rows N] [--seed S]

Speed and memory do not depend on the values, so this is enough to measure them on any machine. Writes into FOLDER
    config.json, model.safetensors    12 layers, d_model 768, vocabulary 50257, f32, tied head, no tokenizer; 498 MB
    rows.jsonl                        N rows {"prompt_ids", "completion_ids"}; the last token is the completion
Lengths are exp(N(3.1, 0.5)) rounded and held within 6 to 66 tokens, about 25 on average. Needs numpy and safetensors.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

LAYERS, WIDTH, HEADS, VOCAB, POSITIONS = 12, 768, 12, 50257, 1024
STD = 0.02


def shapes():
    """Matrices are [in, out] in GPT-2."""
    yield "transformer.wte.weight", (VOCAB, WIDTH)
    yield "transformer.wpe.weight", (POSITIONS, WIDTH)
    for i in range(LAYERS):
        block = f"transformer.h.{i}."
        for name, inputs, outputs in (
            ("attn.c_attn", WIDTH, 3 * WIDTH),
            ("attn.c_proj", WIDTH, WIDTH),
            ("mlp.c_fc", WIDTH, 4 * WIDTH),
            ("mlp.c_proj", 4 * WIDTH, WIDTH),
        ):
            yield block + name + ".weight", (inputs, outputs)
            yield block + name + ".bias", (outputs,)
        for name in ("ln_1", "ln_2"):
            yield block + name + ".weight", (WIDTH,)
            yield block + name + ".bias", (WIDTH,)
    yield "transformer.ln_f.weight", (WIDTH,)
    yield "transformer.ln_f.bias", (WIDTH,)


def make_tensor(rng, name, shape):
    """As a fresh GPT-2: matrices N(0, 0.02), biases 0, norm weights 1."""
    if len(shape) == 2:
        return STD * rng.standard_normal(shape, dtype=np.float32)
    return np.zeros(shape, np.float32) if name.endswith("bias") else np.ones(shape, np.float32)


CONFIG = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "layer_norm_epsilon": 1e-5,
    "model_type": "gpt2",
    "n_ctx": POSITIONS,
    "n_embd": WIDTH,
    "n_head": HEADS,
    "n_inner": None,
    "n_layer": LAYERS,
    "n_positions": POSITIONS,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vocab_size": VOCAB,
}


def make_rows(rng, count):
    lengths = np.exp(rng.normal(3.1, 0.5, count)).round().clip(6, 66).astype(int)
    for length in lengths:
        ids = rng.integers(0, VOCAB, length).tolist()
        yield {"prompt_ids": ids[:-1], "completion_ids": ids[-1:]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(a.seed)
    tensors = {name: make_tensor(rng, name, shape) for name, shape in shapes()}
    path = a.folder / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)
    (a.folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    rows = list(make_rows(np.random.default_rng(a.seed + 1), a.rows))
    (a.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mean = sum(len(row["prompt_ids"]) + 1 for row in rows) / len(rows)
    total = sum(x.size for x in tensors.values())
    print(f"{a.folder}: {len(tensors)} tensors, {total:,} parameters; {len(rows)} rows, {mean:.1f} tokens on average")


if __name__ == "__main__":
    main()
