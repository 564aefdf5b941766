#!/usr/bin/env python3
"""A Q4_0 GGUF file with the shape of Llama 2 7B and random weights, and rows of token ids as long as SST-2's sentences.

usage: make_gguf_shape.py FOLDER [--rows N] [--seed S]

Speed and memory do not depend on the values. Writes into FOLDER
    model.gguf     32 layers, d_model 4096, vocabulary 32000, Q4_0, norms f32, own head, no tokenizer; 3.8 GB
    rows.jsonl     N rows {"prompt_ids", "completion_ids"}; the last token is the completion
No more than a slice of one tensor is ever in memory. Needs gguf and numpy.
"""

import math

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q

import shape

LAYERS, WIDTH, HEADS, FFN, VOCAB = 32, 4096, 32, 11008, 32000
BLOCK, SIZE = gguf.GGML_QUANT_SIZES[Q.Q4_0]


def shapes():
    """Matrices are [out, in]."""
    yield "token_embd.weight", (VOCAB, WIDTH)
    for i in range(LAYERS):
        yield f"blk.{i}.attn_norm.weight", (WIDTH,)
        for part in ("q", "k", "v", "output"):
            yield f"blk.{i}.attn_{part}.weight", (WIDTH, WIDTH)
        yield f"blk.{i}.ffn_norm.weight", (WIDTH,)
        yield f"blk.{i}.ffn_gate.weight", (FFN, WIDTH)
        yield f"blk.{i}.ffn_up.weight", (FFN, WIDTH)
        yield f"blk.{i}.ffn_down.weight", (WIDTH, FFN)
    yield "output_norm.weight", (WIDTH,)
    yield "output.weight", (VOCAB, WIDTH)


def pieces(rng, dims):
    """The bytes of a tensor: ones for a norm, else random 4-bit numbers of deviation 0.02, which is 4.6 steps."""
    if len(dims) == 1:
        yield np.ones(dims, np.float32).tobytes()
        return
    count = math.prod(dims) // BLOCK
    for begin in range(0, count, shape.SLICE):
        blocks = rng.integers(0, 256, (min(shape.SLICE, count - begin), SIZE), dtype=np.uint8)
        blocks[:, :2] = np.array([shape.STD / 4.6], np.float16).view(np.uint8)
        yield blocks.tobytes()


def main():
    a = shape.arguments(__doc__)
    a.folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(a.folder / "model.gguf", "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    for name, dims in shapes():
        if len(dims) == 1:
            writer.add_tensor_info(name, dims, np.dtype(np.float32), 4 * math.prod(dims))
        else:
            in_bytes = (*dims[:-1], dims[-1] // BLOCK * SIZE)
            writer.add_tensor_info(name, in_bytes, np.dtype(np.uint8), math.prod(in_bytes), raw_dtype=Q.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    rng = np.random.default_rng(a.seed)
    with (a.folder / "model.gguf").open("r+b") as file:
        file.seek(0, 2)
        for _, dims in shapes():
            file.write(bytes(-file.tell() % writer.data_alignment))
            for piece in pieces(rng, dims):
                file.write(piece)
        file.write(bytes(-file.tell() % writer.data_alignment))
    shape.write_rows(a.folder, a.rows, a.seed + 1, VOCAB)


if __name__ == "__main__":
    main()
