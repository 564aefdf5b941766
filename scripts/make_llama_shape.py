#!/usr/bin/env python3
"""A checkpoint with the shape of Llama 3.2 1B and random weights, and rows of token ids as long as SST-2's sentences.

usage: make_llama_shape.py FOLDER [--rows N] [--seed S]

Speed and memory do not depend on the values, so this is enough to measure them on any machine. Writes into FOLDER
    config.json, model.safetensors    16 layers, d_model 2048, vocabulary 128256, bf16, tied head, no tokenizer; 2.5 GB
    rows.jsonl                        N rows {"prompt_ids", "completion_ids"}; the last token is the completion
Needs numpy.
"""

import shape

LAYERS, WIDTH, HEADS, KV_HEADS, FFN, VOCAB = 16, 2048, 32, 8, 8192, 128256
KV_WIDTH = WIDTH // HEADS * KV_HEADS


def shapes():
    """Matrices are [out, in] in Llama."""
    yield "model.embed_tokens.weight", (VOCAB, WIDTH)
    for i in range(LAYERS):
        block = f"model.layers.{i}."
        for name, outputs, inputs in (
            ("self_attn.q_proj", WIDTH, WIDTH),
            ("self_attn.k_proj", KV_WIDTH, WIDTH),
            ("self_attn.v_proj", KV_WIDTH, WIDTH),
            ("self_attn.o_proj", WIDTH, WIDTH),
            ("mlp.gate_proj", FFN, WIDTH),
            ("mlp.up_proj", FFN, WIDTH),
            ("mlp.down_proj", WIDTH, FFN),
        ):
            yield block + name + ".weight", (outputs, inputs)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield block + name + ".weight", (WIDTH,)
    yield "model.norm.weight", (WIDTH,)


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "head_dim": WIDTH // HEADS,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "intermediate_size": FFN,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-5,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCAB,
}

if __name__ == "__main__":
    shape.write_folder(__doc__, CONFIG, shapes(), "BF16")
