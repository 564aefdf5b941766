#!/usr/bin/env python3
"""A model of another depth with random weights: to measure what training costs, which does not depend on what the weights are.

usage: make_deeper.py MODEL OUT --layers N [--seed S]

MODEL is a folder with a Llama, such as models/SmolLM2-135M-Instruct. OUT gets its configuration with N layers, its tokenizer, and
N of its layers in its dtype. Needs numpy.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

import shape

FIRST = "model.layers.0."


def tensors_of(path):
    """Names and shapes, in the order of the file, and the dtype."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return [(name, of["shape"]) for name, of in header.items()], next(iter(header.values()))["dtype"]


def deeper(tensors, layers):
    of_layer = [(name.removeprefix(FIRST), shape) for name, shape in tensors if name.startswith(FIRST)]
    yield from ((name, shape) for name, shape in tensors if not name.startswith("model.layers."))
    for i in range(layers):
        yield from ((f"model.layers.{i}.{name}", shape) for name, shape in of_layer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    config = json.loads((a.model / "config.json").read_text())
    if "num_hidden_layers" not in config or config.get("model_type") != "llama":
        parser.error(f"{a.model} is no Llama")
    path = a.model / "model.safetensors"
    if not path.is_file():
        parser.error(f"{path} is not there: a model in one file is needed")
    tensors, dtype = tensors_of(path)
    if dtype not in shape.BYTES:
        parser.error(f"its numbers are {dtype}, not one of {', '.join(shape.BYTES)}")
    a.out.mkdir(parents=True, exist_ok=True)
    shape.write_tensors(a.out / "model.safetensors", list(deeper(tensors, a.layers)), dtype, np.random.default_rng(a.seed))
    (a.out / "config.json").write_text(json.dumps(config | {"num_hidden_layers": a.layers}, indent=2) + "\n")
    for tokenizer in a.model.glob("tokenizer*.json"):
        shutil.copy(tokenizer, a.out)


if __name__ == "__main__":
    main()
