#!/usr/bin/env python3
"""A checkpoint with the shape of GPT-2 small and random weights, and rows of token ids as long as SST-2's sentences.

usage: make_gpt2_shape.py FOLDER [--rows N] [--seed S]

Speed and memory do not depend on the values, so this is enough to measure them on any machine. Writes into FOLDER
    config.json, model.safetensors    12 layers, d_model 768, vocabulary 50257, f32, tied head, no tokenizer; 498 MB
    rows.jsonl                        N rows {"prompt_ids", "completion_ids"}; the last token is the completion
Lengths are exp(N(3.1, 0.5)) rounded and held within 6 to 66 tokens, about 25 on average. Needs numpy.
"""

import shape

LAYERS, WIDTH, HEADS, VOCAB, POSITIONS = 12, 768, 12, 50257, 1024


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

if __name__ == "__main__":
    shape.write_folder(__doc__, CONFIG, shapes(), "F32")
