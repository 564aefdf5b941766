"""Small random checkpoints in the layouts found on the hub, each written so that a loader's mistakes show in the numbers.

All weights are random, biases and norm weights too (a fresh model has zeros and ones there, which hide mistakes), and
large enough that logits spread by 1 to 3.
"""

import json

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

SPREAD = {"embed": 0.35, "position": 0.2, "bias": 0.2, "norm": 0.25, "matrix": 1.2}


def randomise(model, seed):
    """Fill every parameter with seeded random numbers; matrices are scaled by their number of inputs."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("bias"):
            value = SPREAD["bias"] * noise
        elif p.dim() == 1:
            value = 1 + SPREAD["norm"] * noise
        elif "wpe" in name or "position_embeddings" in name or "token_type" in name:
            value = SPREAD["position"] * noise
        elif any(part in name for part in ("wte", "embed_tokens", "word_embeddings", "lm_head", "predictions.decoder")):
            value = SPREAD["embed"] * noise
        else:
            conv1d = name.split(".")[-2] in ("c_attn", "c_proj", "c_fc")  # [in, out]; all others are [out, in]
            value = SPREAD["matrix"] * noise / p.shape[0 if conv1d else 1] ** 0.5
        p.data.copy_(value)


def gpt2(seed, **changes):
    settings = dict(n_embd=48, n_layer=2, n_head=4, n_positions=64, vocab_size=131, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(GPT2Config(**(settings | changes)))
    randomise(model, seed)
    return model


LLAMA = dict(
    hidden_size=40,
    intermediate_size=90,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    vocab_size=131,
    bos_token_id=0,
    eos_token_id=1,
)


def llama(seed, **changes):
    model = LlamaForCausalLM(LlamaConfig(**(LLAMA | changes)))
    randomise(model, seed)
    return model


def qwen2(seed, **changes):
    model = Qwen2ForCausalLM(Qwen2Config(**(LLAMA | changes)))
    randomise(model, seed)
    return model


def weights(model, dtype):
    """The state dict as it goes into a file: cast, and without the head where it is tied."""
    tied = model.config.tie_word_embeddings
    return {
        name: x.detach().to(dtype).contiguous()
        for name, x in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }


def rope_v4(config):
    """Configuration as transformers 4 wrote it: `rope_theta` and `rope_scaling` beside each other, `torch_dtype`."""
    config = dict(config)
    parameters = dict(config.pop("rope_parameters"))
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = parameters if parameters["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    return config


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def config_of(model, dtype):
    config = model.config.to_dict()
    config["architectures"] = [type(model).__name__]
    config["dtype"] = str(dtype).removeprefix("torch.")
    config.pop("_name_or_path", None)
    return config


def write_sharded(folder, tensors, shards):
    """Deal the tensors out to `shards` files, with the index that says where each one is."""
    names = sorted(tensors)
    weight_map = {}
    for s in range(shards):
        file = f"model-{s + 1:05}-of-{shards:05}.safetensors"
        part = names[s::shards]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(x.numel() * x.element_size() for x in tensors.values())
    index = {"metadata": {"total_parameters": sum(x.numel() for x in tensors.values()), "total_size": total}}
    write_json(folder / "model.safetensors.index.json", index | {"weight_map": weight_map})


def write_single(folder, tensors):
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def gpt2_plain(folder, dtype=torch.float32, seed=1):
    """Names with the `transformer.` prefix, tied head."""
    model = gpt2(seed)
    write_single(folder, weights(model, dtype))
    write_json(folder / "config.json", config_of(model, dtype))
    return model


def gpt2_square(folder):
    """Every projection but c_attn is square, names have no prefix, own head, and mask buffers of both usual kinds."""
    model = gpt2(seed=2, n_embd=32, n_inner=32, n_head=2, n_layer=3, tie_word_embeddings=False)
    tensors = {n.removeprefix("transformer."): x for n, x in weights(model, torch.float32).items()}
    mask = torch.ones(64, 64, dtype=torch.bool).tril()[None, None]
    tensors["h.0.attn.bias"] = mask.float()
    tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    tensors["h.1.attn.bias"] = mask.clone()
    tensors["h.2.attn.bias"] = mask.clone()
    write_single(folder, tensors)
    write_json(folder / "config.json", config_of(model, torch.float32))
    return model


def llama_gqa(folder):
    """Two query heads to a key head, bf16, tied, `rope_theta` in the old place."""
    model = llama(seed=3, tie_word_embeddings=True)
    write_single(folder, weights(model, torch.bfloat16))
    write_json(folder / "config.json", rope_v4(config_of(model, torch.bfloat16)))
    return model


def llama_sharded(folder):
    """Three shards, own head, heads wider than hidden/heads (4 x 16 = 64 against 40), `rope_parameters`."""
    rope = {"rope_type": "default", "rope_theta": 500.0}
    model = llama(seed=4, head_dim=16, rope_parameters=rope, tie_word_embeddings=False)
    write_sharded(folder, weights(model, torch.float32), shards=3)
    write_json(folder / "config.json", config_of(model, torch.float32))
    return model


def llama3_rope(folder):
    """Scaled rotary frequencies; some are kept, two fall in the blended band, the rest are divided by the factor."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    model = llama(seed=5, head_dim=16, rope_parameters=rope, max_position_embeddings=128, tie_word_embeddings=True)
    write_single(folder, weights(model, torch.float32))
    config = config_of(model, torch.float32)
    write_json(folder / "config.json", rope_v4(config))
    write_json(folder / "config.v5.json", config)
    return model


def qwen2_bias(folder):
    """Bias on q, k and v but not on o; tied."""
    rope = {"rope_type": "default", "rope_theta": 1e6}
    model = qwen2(seed=6, rope_parameters=rope, tie_word_embeddings=True)
    write_single(folder, weights(model, torch.float32))
    write_json(folder / "config.json", rope_v4(config_of(model, torch.float32)))
    return model


CASES = {
    "gpt2-tied-f32": gpt2_plain,
    "gpt2-tied-f16": lambda folder: gpt2_plain(folder, torch.float16, seed=7),
    "gpt2-square": gpt2_square,
    "llama-gqa-tied-bf16": llama_gqa,
    "llama-untied-sharded-f32": llama_sharded,
    "llama3-rope": llama3_rope,
    "qwen2-bias-tied": qwen2_bias,
}
