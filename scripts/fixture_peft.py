#!/usr/bin/env python3
"""Write prompt-tuning/tests/fixtures: P-tuning and prefix tuning by PEFT on the checkpoints of model/tests/fixtures, and
prefix tuning on a T5 of its own (PEFT needs as many layers in encoder and decoder, and heads as wide as the model).

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
from transformers import T5Config, T5ForConditionalGeneration

import fixture_records
from fixture_models import write_json
from fixture_records import STEPS, logits, open_model

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


def completion_log_probs(model, row):
    """Log-probabilities of the decoder's tokens after the encoder's."""
    ids, labels = torch.tensor([row["prompt_ids"]]), torch.tensor(row["completion_ids"])
    decoder = torch.tensor([[0, *row["completion_ids"][:-1]]])
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=decoder).logits[0]
    return torch.log_softmax(out, -1)[torch.arange(len(labels)), labels]


def make_t5(name, seed):
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "model").mkdir(parents=True)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=40, d_model=16, d_kv=4, num_heads=4, num_layers=3, d_ff=24, dropout_rate=0.0, decoder_start_token_id=0
    )
    made = T5ForConditionalGeneration(config).eval()
    for p in made.parameters():
        p.data.mul_(2.0)  # logits that depend on what is read
    made.save_pretrained(folder / "model")
    made.config.name_or_path = made.name_or_path = name
    model = get_peft_model(made, PrefixTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=N_VIRTUAL)).eval()
    ids = lambda n: torch.randint(1, 40, (n,)).tolist()
    batch = [{"prompt_ids": ids(a), "completion_ids": ids(b)} for a, b in ((5, 2), (3, 3), (7, 1))]
    train(name, folder, model, batch, {"batch": batch})


def make(name, seed):
    base, config = CASES[name]
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    recorded = json.loads((MODELS / base / "expected.json").read_text())
    model = get_peft_model(open_model(MODELS / base), config())
    model.eval()  # no dropout
    train(name, folder, model, recorded["batch"], {"model": base}, recorded["rows"])


def train(name, folder, model, batch, values, rows=()):
    encoder = model.prompt_encoder["default"]
    tensors = {f"init.{n}": p.detach().clone() for n, p in encoder.named_parameters()}
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=LR, weight_decay=0.0)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        log_probs = fixture_records.completion_log_probs if rows else completion_log_probs
        loss = -torch.cat([log_probs(model, row) for row in batch]).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tensors |= {f"final.{n}": p.detach().clone() for n, p in encoder.named_parameters()}
    with torch.no_grad():
        for i, row in enumerate(rows):
            tensors[f"logits.{i}"] = logits(model, row).contiguous()
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    save_file({n: x.float().contiguous() for n, x in tensors.items()}, folder / "expected.safetensors")
    write_json(folder / "expected.json", values | {"lr": LR, "n_virtual": N_VIRTUAL, "losses": losses})
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)
    print(f"{name}: {losses[0]:.3f} -> {losses[-1]:.3f}, {[tuple(x.shape) for n, x in tensors.items() if n[:4] == 'init']}")


def main():
    torch.set_num_threads(1)
    for i, name in enumerate(CASES):
        if not sys.argv[1:] or name in sys.argv[1:]:
            make(name, seed=500 + 10 * i)
    if not sys.argv[1:] or "prefix-t5" in sys.argv[1:]:
        make_t5("prefix-t5", seed=600)


if __name__ == "__main__":
    main()
