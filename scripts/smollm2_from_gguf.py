#!/usr/bin/env python3
"""SmolLM2 from GGUF to a Hugging Face folder: config, bf16 weights, tokenizer. Called by get-smollm2.sh.

usage: smollm2_from_gguf.py model.gguf FOLDER

Every tensor is dequantised to f32 and rounded to bf16. GGUF keeps the rows of the Q and K projections in the order of
interleaved rotary pairs; they are put back into the half-split order of Hugging Face models. The tokenizer is byte-level
BPE with the "smollm" pre-tokenizer: every digit by itself, then the GPT-2 pattern.
"""

import json
import os
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors import TensorSpec, serialize_file

BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def half_split(w, heads):
    """Rows of a Q or K projection from interleaved rotary pairs (2i, 2i+1) to halves (i, i + head_dim/2)."""
    rows, cols = w.shape
    return w.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def to_bf16(x):
    """Bit patterns of f32 numbers rounded to bf16, to nearest even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def read_tensors(reader, get):
    heads = {"attn_q": get("llama.attention.head_count"), "attn_k": get("llama.attention.head_count_kv")}
    tensors = {}
    for t in reader.tensors:
        shape = tuple(int(n) for n in reversed(t.shape))
        x = gguf.dequantize(t.data, t.tensor_type).reshape(shape)
        name = OUTER_NAMES.get(t.name)
        if name is None:
            _, layer, part, kind = t.name.split(".")
            name = f"model.layers.{layer}.{BLOCK_NAMES[part]}.{kind}"
            if part in heads:
                x = half_split(x, heads[part])
        tensors[name] = to_bf16(x)
    return tensors


def save_tensors(path, tensors):
    # a TensorSpec holds a bare address: `tensors` keeps the arrays alive until the file is written
    specs = {
        name: TensorSpec(dtype="bfloat16", shape=list(x.shape), data_ptr=x.ctypes.data, data_len=x.nbytes)
        for name, x in sorted(tensors.items())
    }
    beside = path.with_suffix(".part")
    serialize_file(specs, beside, {"format": "pt"})
    os.chmod(beside, 0o644)
    os.replace(beside, path)


def save_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def special_ids(get):
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    return {short: get(f"tokenizer.ggml.{long}_token_id") for short, long in names.items()}


def config_of(get, special, tied):
    # the file has the f32 nearest to 1e-5; keep the decimal value
    eps = float(f"{get('llama.attention.layer_norm_rms_epsilon'):.6g}")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": special["bos"],
        "eos_token_id": special["eos"],
        "head_dim": get("llama.rope.dimension_count"),
        "hidden_act": "silu",
        "hidden_size": get("llama.embedding_length"),
        "initializer_range": 0.041666666666666664,
        "intermediate_size": get("llama.feed_forward_length"),
        "max_position_embeddings": get("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": get("llama.attention.head_count"),
        "num_hidden_layers": get("llama.block_count"),
        "num_key_value_heads": get("llama.attention.head_count_kv"),
        "pad_token_id": special["pad"],
        "rms_norm_eps": eps,
        "rope_scaling": None,
        "rope_theta": get("llama.rope.freq_base"),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": get("llama.vocab_size"),
    }


def tokenizer_of(get):
    tokens, kinds = get("tokenizer.ggml.tokens"), get("tokenizer.ggml.token_type")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    control = [i for i, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL]
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i]} | flags for i in control],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                byte_level | {"add_prefix_space": False},
            ],
        },
        "post_processor": None,
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in get("tokenizer.ggml.merges")],
        },
    }


def tokenizer_config_of(get, special):
    tokens = get("tokenizer.ggml.tokens")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        **{f"{short}_token": tokens[i] for short, i in special.items()},
        "model_max_length": get("llama.context_length"),
        "chat_template": get("tokenizer.chat_template"),
    }


def main(source, folder):
    reader = gguf.GGUFReader(source)

    def get(key):
        return reader.fields[key].contents()

    assert get("general.architecture") == "llama" and get("tokenizer.ggml.pre") == "smollm", "not a SmolLM2 file"
    tensors, special = read_tensors(reader, get), special_ids(get)
    save_json(folder / "config.json", config_of(get, special, tied="lm_head.weight" not in tensors))
    ids = {f"{short}_token_id": special[short] for short in ("bos", "eos", "pad")}
    save_json(folder / "generation_config.json", ids)
    save_json(folder / "tokenizer.json", tokenizer_of(get))
    save_json(folder / "tokenizer_config.json", tokenizer_config_of(get, special))
    save_tensors(folder / "model.safetensors", tensors)
    print(f"    {len(tensors)} tensors, {sum(x.size for x in tensors.values()):,} parameters")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
