#!/usr/bin/env python3
"""Write prompt-tuning/tests/fixtures: P-tuning and prefix tuning by PEFT on the checkpoints of model/tests/fixtures.

usage: fixture_peft.py [CASE ...]

Of each case: the parameters of the prompt encoder before training and the losses of ten AdamW steps, the adapter folder
that PEFT saves after them, and the logits that it gives. Needs what make_fixtures.py needs.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, TaskType, get_peft_model
from safetensors.torch import save_file

from fixture_models import write_json
from fixture_records import STEPS, batch_loss, logits, open_model

HERE = Path(__file__).resolve().parent.parent
MODELS = HERE / "model" / "tests" / "fixtures"
FIXTURES = HERE / "prompt-tuning" / "tests" / "fixtures"
N_VIRTUAL = 4
LR = 1e-2


def mlp(hidden):
    return PromptEncoderConfig(
        task_type=TaskType.CAUSAL_LM, num_virtual_tokens=N_VIRTUAL, encoder_hidden_size=hidden
    )


def lstm(hidden, layers):
    return PromptEncoderConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=N_VIRTUAL,
        encoder_hidden_size=hidden,
        encoder_reparameterization_type="LSTM",
        encoder_num_layers=layers,
    )


def prefix(**options):
    return PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=N_VIRTUAL, **options)


CASES = {
    "p-tuning-mlp": ("gpt2-tied-f32", lambda: mlp(12)),
    "p-tuning-lstm": ("llama-gqa-tied-bf16", lambda: lstm(6, 2)),
    "prefix": ("gpt2-tied-f32", prefix),
    "prefix-gqa": ("llama-gqa-tied-bf16", prefix),
    "prefix-projected": ("qwen2-bias-tied", lambda: prefix(prefix_projection=True, encoder_hidden_size=10)),
}


def make(name, seed):
    base, config = CASES[name]
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    recorded = json.loads((MODELS / base / "expected.json").read_text())
    model = get_peft_model(open_model(MODELS / base), config())
    model.eval()  # no dropout
    encoder = model.prompt_encoder["default"]
    tensors = {f"init.{n}": p.detach().clone() for n, p in encoder.named_parameters()}
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=LR, weight_decay=0.0)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = batch_loss(model, recorded["batch"])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tensors |= {f"final.{n}": p.detach().clone() for n, p in encoder.named_parameters()}
    with torch.no_grad():
        for i, row in enumerate(recorded["rows"]):
            tensors[f"logits.{i}"] = logits(model, row).contiguous()
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    save_file({n: x.float().contiguous() for n, x in tensors.items()}, folder / "expected.safetensors")
    write_json(folder / "expected.json", {"model": base, "lr": LR, "n_virtual": N_VIRTUAL, "losses": losses})
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    print(f"{name}: {losses[0]:.3f} -> {losses[-1]:.3f}, {[tuple(x.shape) for n, x in tensors.items() if n[:4] == 'init']}")


def main():
    torch.set_num_threads(1)
    for i, name in enumerate(CASES):
        if not sys.argv[1:] or name in sys.argv[1:]:
            make(name, seed=500 + 10 * i)


if __name__ == "__main__":
    main()
