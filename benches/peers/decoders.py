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


class Gpt2:
    def __init__(self, config, weights):
        self.w = {name.removeprefix("transformer."): x for name, x in weights.items()}
        self.layers, self.heads = config["n_layer"], config["n_head"]
        self.eps = config["layer_norm_epsilon"]
        self.embeddings = self.w["wte.weight"]

    def linear(self, x, name):
        return F.linear(x, self.w[name + ".weight"].t(), self.w[name + ".bias"])

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], self.eps)

    def context(self, spans):
        """What every block needs to know about the rows."""
        return spans

    def start(self, x, spans):
        return x + self.w["wpe.weight"][positions(spans)]

    def attention(self, x, i, spans):
        qkv = self.linear(self.norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")
        return attend(*qkv.view(len(x), 3, self.heads, -1).unbind(1), spans)

    def rest(self, x, mixed, i):
        """The block behind its attention."""
        x = x + self.linear(mixed, f"h.{i}.attn.c_proj")
        up = self.linear(self.norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        return x + self.linear(F.gelu(up, approximate="tanh"), f"h.{i}.mlp.c_proj")

    def finish(self, x):
        return self.norm(x, "ln_f")


class Llama:
    def __init__(self, config, weights):
        self.w = {name.removeprefix("model."): x for name, x in weights.items()}
        self.layers = config["num_hidden_layers"]
        self.head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        self.eps = config["rms_norm_eps"]
        self.embeddings = self.w["embed_tokens.weight"]
        self.rotary = LlamaRotaryEmbedding(LlamaConfig(**config))

    def linear(self, x, name):
        return F.linear(x, self.w[name + ".weight"])

    def norm(self, x, name):
        return F.rms_norm(x, x.shape[-1:], self.w[name + ".weight"], self.eps)

    def context(self, spans):
        cos, sin = self.rotary(self.embeddings[:1], positions(spans)[None])
        return spans, cos[0, :, None], sin[0, :, None]

    def start(self, x, _):
        return x

    def attention(self, x, i, context):
        spans, cos, sin = context
        n = self.norm(x, f"layers.{i}.input_layernorm")
        q, k, v = (
            self.linear(n, f"layers.{i}.self_attn.{part}_proj").view(len(x), -1, self.head_dim) for part in "qkv"
        )
        return attend(rotate(q, cos, sin), rotate(k, cos, sin), v, spans)

    def rest(self, x, mixed, i):
        """The block behind its attention."""
        x = x + self.linear(mixed, f"layers.{i}.self_attn.o_proj")
        n = self.norm(x, f"layers.{i}.post_attention_layernorm")
        gate, up = (self.linear(n, f"layers.{i}.mlp.{part}_proj") for part in ("gate", "up"))
        return x + self.linear(F.silu(gate) * up, f"layers.{i}.mlp.down_proj")

    def finish(self, x):
        return self.norm(x, "norm")


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def hidden_states(model, x, spans, outputs):
    """From embeddings [tokens, width] to the final hidden states of the tokens `outputs`."""
    context = model.context(spans)
    x = model.start(x, spans)
    for i in range(model.layers):
        mixed = model.attention(x, i, context)
        if i == model.layers - 1:
            x, mixed = x[outputs], mixed[outputs]
        x = model.rest(x, mixed, i)
    return model.finish(x)


def load(folder, dtype):
    """The model of a Hugging Face folder with one weight file and a tied head."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: x.to(dtype) for name, x in load_file(folder / "model.safetensors").items()}
    kind = {"gpt2": Gpt2, "llama": Llama}[config["model_type"]]
    return kind(config, weights)
