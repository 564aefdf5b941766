#!/usr/bin/env python3
"""A llama GGUF file dequantised to f32 safetensors, in a Hugging Face folder: what the file read directly is compared with.

usage: gguf_to_f32.py model.gguf FOLDER

Writes config.json and model.safetensors. Needs gguf, numpy and safetensors.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

from smollm2_from_gguf import BLOCK_NAMES, OUTER_NAMES, config_of, half_split, special_ids


def main(source, folder):
    reader = gguf.GGUFReader(source)

    def get(key):
        return reader.fields[key].contents()

    heads = {"attn_q": get("llama.attention.head_count"), "attn_k": get("llama.attention.head_count_kv")}
    tensors = {}
    for t in reader.tensors:
        x = gguf.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)])
        name = OUTER_NAMES.get(t.name)
        if name is None:
            _, layer, part, kind = t.name.split(".")
            name = f"model.layers.{layer}.{BLOCK_NAMES[part]}.{kind}"
            x = half_split(x, heads[part]) if part in heads else x
        tensors[name] = np.ascontiguousarray(x, np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = config_of(get, special_ids(get), tied="lm_head.weight" not in tensors)
    config["rms_norm_eps"] = get("llama.attention.layer_norm_rms_epsilon")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
