"""Small random GGUF files, written by the gguf package; transformers reads them back through its own GGUF loader.

Every block format is there for at least one matrix. The package quantises to the formats of 32; blocks of 256 are random bits
whose f16 scales give them the wanted spread. All tensors are drawn in the layout of the file, so nothing is permuted here.
"""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import TokenType
from transformers import AutoTokenizer

import fixture_text
from fixture_models import SPREAD

FILE = "model.gguf"
SCALES = {Q.Q4_K: (0, 2), Q.Q5_K: (0, 2), Q.Q6_K: (208,)}
PIECES = "▁the ▁a ▁film ▁fine ▁was ▁it ▁good ▁Re view ▁Review Review : ▁S ent ▁Sent iment ▁Sentiment ▁▁".split()
TEXTS = [
    "",
    "Review: A fine film.\nSentiment: positive",
    " the film",
    "  two  spaces,\ttabs\nand lines ",
    "it was 1234567 times good, wasn't it?",
    "café 北京 \U0001f600",
]


def random_blocks(rng, shape, kind, spread):
    """Blocks of 256 whose numbers have mean 0 and deviation `spread`."""
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (int(np.prod(shape)) // per_block, size), dtype=np.uint8)

    def with_scales(*scales):
        for at, scale in zip(SCALES[kind], scales):
            blocks[:, at : at + 2] = np.array([scale], np.float16).view(np.uint8)
        return gguf.quants.dequantize(blocks, kind)

    if kind == Q.Q6_K:
        scales = [1.0]
    else:
        scales = [1.0, with_scales(1.0, 0.0).mean() / -with_scales(0.0, 1.0).mean()]
    deviation = with_scales(*scales).std()
    with_scales(*(x * spread / deviation for x in scales))
    return blocks.reshape(*shape[:-1], -1)


class Tensors:
    """Draws tensors into a file; the kinds of matrices are taken in turn."""

    def __init__(self, writer, seed, kinds):
        self.writer, self.rng, self.kinds, self.count = writer, np.random.default_rng(seed), kinds, 0

    def matrix(self, name, n_out, n_in, spread=None, kind=None):
        if kind is None:
            kind = self.kinds[self.count % len(self.kinds)]
            self.count += 1
        if n_in % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = Q.Q8_0
        spread = spread or SPREAD["matrix"] / n_in**0.5
        if kind in SCALES:
            data = random_blocks(self.rng, (n_out, n_in), kind, spread)
        else:
            x = spread * self.rng.standard_normal((n_out, n_in)).astype(np.float32)
            data = gguf.quants.quantize(x, kind)
        self.writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def vector(self, name, n):
        x = self.rng.standard_normal(n).astype(np.float32)
        x = SPREAD["bias"] * x if name.endswith("bias") else 1 + SPREAD["norm"] * x
        self.writer.add_tensor(name, x.astype(np.float32))


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sizes(writer, d, d_ff, heads, kv_heads, layers, context=64):
    writer.add_context_length(context)
    writer.add_embedding_length(d)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(d_ff)
    writer.add_head_count(heads)
    if kv_heads:
        writer.add_head_count_kv(kv_heads)


def sentence_piece(writer):
    """Unknown, two controls, all bytes, some characters and pieces, and each beginning of a piece so that merges reach it."""
    tokens, kinds = ["<unk>", "<s>", "</s>"], [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    tokens += [f"<0x{b:02X}>" for b in range(256)]
    kinds += [TokenType.BYTE] * 256
    beginnings = dict.fromkeys(piece[:n] for piece in PIECES for n in range(2, len(piece) + 1))
    characters = dict.fromkeys("▁ .,:" + "".join(PIECES) + "ivé")
    pieces = list(beginnings) + [c for c in characters if c != " "]
    tokens += pieces
    kinds += [TokenType.NORMAL] * len(pieces)
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    return len(tokens)


def byte_level(writer, pre):
    """The tokenizer of the text fixture."""
    import json

    state = json.loads(fixture_text.train_tokenizer().to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    special = set(fixture_text.SPECIAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in special else TokenType.NORMAL for t in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in state["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    return len(tokens)


def llama_like(folder, arch, seed, d, d_ff, heads, kv_heads, head_dim, kinds, embedding, tied, vocabulary):
    writer = gguf.GGUFWriter(folder / FILE, arch)
    sizes(writer, d, d_ff, heads, kv_heads, layers=2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500.0)
    writer.add_rope_dimension_count(head_dim)
    if head_dim * heads != d:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    vocab = vocabulary(writer)
    writer.add_vocab_size(vocab)
    tensors = Tensors(writer, seed, kinds)
    tensors.matrix("token_embd", vocab, d, SPREAD["embed"], embedding)
    for i in range(2):
        block = f"blk.{i}"
        tensors.vector(f"{block}.attn_norm.weight", d)
        for part, n in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            tensors.matrix(f"{block}.attn_{part}", n * head_dim, d)
            if arch == "qwen2":
                tensors.vector(f"{block}.attn_{part}.bias", n * head_dim)
        tensors.matrix(f"{block}.attn_output", d, heads * head_dim)
        tensors.vector(f"{block}.ffn_norm.weight", d)
        tensors.matrix(f"{block}.ffn_gate", d_ff, d)
        tensors.matrix(f"{block}.ffn_up", d_ff, d)
        tensors.matrix(f"{block}.ffn_down", d, d_ff)
    tensors.vector("output_norm.weight", d)
    if not tied:
        tensors.matrix("output", vocab, d, SPREAD["embed"] / 2, Q.Q4_K)
    write(writer)


def llama(folder):
    """Two query heads to a key head, own head, blocks of 256; SentencePiece."""
    kinds = [Q.Q4_K, Q.Q5_K, Q.Q6_K]
    llama_like(folder, "llama", 41, 256, 64, 4, 2, 16, kinds, Q.Q6_K, False, sentence_piece)


def qwen2(folder):
    """Biases on q, k and v, tied, blocks of 32."""
    kinds = [Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0]
    llama_like(folder, "qwen2", 42, 64, 96, 4, 2, 16, kinds, Q.Q5_1, True, lambda writer: byte_level(writer, "qwen2"))


def gpt2(folder):
    """attn_output is square, own head; F16, BF16, Q8_0 and Q4_1. Context and d_ff are what transformers assumes of the kind."""
    d, context = 64, 1024
    writer = gguf.GGUFWriter(folder / FILE, "gpt2")
    sizes(writer, d, 4 * d, 4, None, layers=2, context=context)
    writer.add_layer_norm_eps(1e-5)
    vocab = byte_level(writer, "gpt-2")
    tensors = Tensors(writer, 43, [Q.F16, Q.Q8_0, Q.BF16, Q.Q4_1])
    tensors.matrix("token_embd", vocab, d, SPREAD["embed"], Q.Q8_0)
    tensors.matrix("position_embd", context, d, SPREAD["position"], Q.Q4_0)
    for i in range(2):
        for part, n_out, n_in in (("attn_qkv", 3 * d, d), ("attn_output", d, d), ("ffn_up", 4 * d, d), ("ffn_down", d, 4 * d)):
            tensors.matrix(f"blk.{i}.{part}", n_out, n_in)
            tensors.vector(f"blk.{i}.{part}.bias", n_out)
        for norm in ("attn_norm", "ffn_norm"):
            tensors.vector(f"blk.{i}.{norm}.weight", d)
            tensors.vector(f"blk.{i}.{norm}.bias", d)
    tensors.vector("output_norm.weight", d)
    tensors.vector("output_norm.bias", d)
    tensors.matrix("output", vocab, d, SPREAD["embed"], Q.Q5_0)
    write(writer)


def text_records(folder):
    """What transformers makes of some texts with the tokenizer it builds from the file."""
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    return {"texts": [{"text": t, "ids": tokenizer(t, add_special_tokens=False)["input_ids"]} for t in TEXTS]}


# seeds of the records: greedy text must not hang on rounding
SEEDS = {"gguf-llama": 180, "gguf-qwen2": 190, "gguf-gpt2": 200}
CASES = {"gguf-llama": llama, "gguf-qwen2": qwen2, "gguf-gpt2": gpt2}
