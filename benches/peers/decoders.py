"""GPT-2 and Llama by hand, as little torch as they need: frozen weights, rows packed one after the other.

    hidden states are [tokens, width]: the rows of a batch one after the other, no batch axis
    spans         is [(rows, length)]: neighbouring rows of one length, which attention takes as one rectangle
    outputs       are the tokens whose hidden states are wanted: behind the last attention nothing else is computed

No weight requires a gradient, so torch's `linear` saves its weight for backward and not its input.
"""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding


def attend(q, k, v, spans):
    """Causal attention within rows: [tokens, heads, head_dim] each, to [tokens, heads * head_dim].

    `split` and not slices: its backward is one `cat`, that of a slice a tensor of zeros as large as the whole.
    """
    sizes = [rows * length for rows, length in spans]
    mixed = []
    for (rows, length), *qkv in zip(spans, q.split(sizes), k.split(sizes), v.split(sizes)):
        qkv = [x.view(rows, length, *x.shape[1:]).transpose(1, 2) for x in qkv]
        x = F.scaled_dot_product_attention(*qkv, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        mixed.append(x.transpose(1, 2).reshape(rows * length, -1))
    return torch.cat(mixed)


def positions(spans):
    return torch.cat([torch.arange(length).repeat(rows) for rows, length in spans])


def blocks_of(weights, prefix, count):
    """Each block's weights by their names within the block, so that one function serves (and compiles for) all."""
    parts = [f"{prefix}.{i}." for i in range(count)]
    return [{name.removeprefix(p): x for name, x in weights.items() if name.startswith(p)} for p in parts]


class Gpt2:
    def __init__(self, config, weights):
        weights = {name.removeprefix("transformer."): x for name, x in weights.items()}
        self.blocks = blocks_of(weights, "h", config["n_layer"])
        self.w = weights
        self.heads, self.eps = config["n_head"], config.get("layer_norm_epsilon", 1e-5)
        self.embeddings = weights["wte.weight"]

    def linear(self, x, w, name):
        return F.linear(x, w[name + ".weight"].t(), w[name + ".bias"])

    def norm(self, x, w, name):
        return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], self.eps)

    def context(self, spans):
        """What every block needs to know about the rows."""
        return spans

    def start(self, x, spans):
        return x + F.embedding(positions(spans), self.w["wpe.weight"])

    def attention(self, x, w, spans):
        qkv = self.linear(self.norm(x, w, "ln_1"), w, "attn.c_attn")
        return attend(*qkv.view(len(x), 3, self.heads, -1).unbind(1), spans)

    def rest(self, x, mixed, w):
        """The block behind its attention."""
        x = x + self.linear(mixed, w, "attn.c_proj")
        up = self.linear(self.norm(x, w, "ln_2"), w, "mlp.c_fc")
        return x + self.linear(F.gelu(up, approximate="tanh"), w, "mlp.c_proj")

    def finish(self, x):
        return self.norm(x, self.w, "ln_f")


class Llama:
    def __init__(self, config, weights):
        weights = {name.removeprefix("model."): x for name, x in weights.items()}
        self.blocks = blocks_of(weights, "layers", config["num_hidden_layers"])
        self.w = weights
        self.head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        self.eps = config["rms_norm_eps"]
        self.embeddings = weights["embed_tokens.weight"]
        self.rotary = LlamaRotaryEmbedding(LlamaConfig(**config))

    def linear(self, x, w, name):
        return F.linear(x, w[name + ".weight"])

    def norm(self, x, w, name):
        return F.rms_norm(x, x.shape[-1:], w[name + ".weight"], self.eps)

    def context(self, spans):
        """What every block needs to know about the rows: the spans, and the angles of the positions."""
        cos, sin = self.rotary(self.embeddings[:1], positions(spans)[None])
        return spans, cos[0, :, None], sin[0, :, None]

    def start(self, x, _):
        return x

    def attention(self, x, w, context):
        spans, cos, sin = context
        n = self.norm(x, w, "input_layernorm")
        q, k, v = (self.linear(n, w, f"self_attn.{part}_proj").view(len(x), -1, self.head_dim) for part in "qkv")
        return attend(rotate(q, cos, sin), rotate(k, cos, sin), v, spans)

    def rest(self, x, mixed, w):
        """The block behind its attention."""
        x = x + self.linear(mixed, w, "self_attn.o_proj")
        n = self.norm(x, w, "post_attention_layernorm")
        gate, up = (self.linear(n, w, f"mlp.{part}_proj") for part in ("gate", "up"))
        return x + self.linear(F.silu(gate) * up, w, "mlp.down_proj")

    def finish(self, x):
        return self.norm(x, self.w, "norm")


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def hidden_states(model, x, spans, outputs):
    """From embeddings [tokens, width] to the final hidden states of the tokens `outputs`."""
    context = model.context(spans)
    x = model.start(x, spans)
    for w in model.blocks:
        mixed = model.attention(x, w, context)
        if w is model.blocks[-1]:
            x, mixed = x[outputs], mixed[outputs]
        x = model.rest(x, mixed, w)
    return model.finish(x)


def load(folder, dtype):
    """The model of a Hugging Face folder with one weight file and a tied head."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: x.to(dtype) for name, x in load_file(folder / "model.safetensors").items()}
    kind = {"gpt2": Gpt2, "llama": Llama}[config["model_type"]]
    return kind(config, weights)
