"""What the fixtures remember: logits, the prompt gradient through PEFT, ten training steps of each optimizer, greedy text.

Everything is computed in f32 on the weights of the file, one row at a time, so no padding or batching takes part.
"""

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM
from transformers.optimization import Adafactor

N_VIRTUAL = 5
STEPS = 10
OPTIMIZERS = {
    "adamw": dict(lr=1e-2, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0),
    "sgd": dict(lr=0.1),
    "adafactor": dict(
        lr=0.03, eps=[1e-30, 1e-3], clip_threshold=1.0, decay_rate=-0.8, scale_parameter=False, relative_step=False
    ),
}
MAKE = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "adafactor": Adafactor}


def open_model(folder):
    gguf = {"gguf_file": "model.gguf"} if (folder / "model.gguf").exists() else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **gguf)
    model.config.name_or_path = model.name_or_path = folder.name
    return model.eval()


def add_prompt(model, prompt):
    """A PEFT model around `model` whose soft prompt is `prompt` [n_virtual, d_model]."""
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=len(prompt))
    peft_model = get_peft_model(model, config)
    prompt_of(peft_model).data.copy_(prompt)
    return peft_model.eval()


def prompt_of(peft_model):
    return peft_model.prompt_encoder["default"].embedding.weight


def logits(model, ids):
    """Logits at every position: [len(ids), V], or [n_virtual + len(ids), V] for a PEFT model."""
    ids = torch.tensor([ids])
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]


def completion_log_probs(model, row):
    """Log-probability of each completion token, given all before it."""
    completion = torch.tensor(row["completion_ids"])
    out = logits(model, row["prompt_ids"] + row["completion_ids"])[-len(completion) - 1 : -1]
    return log_softmax(out, dim=-1)[torch.arange(len(completion)), completion]


def batch_loss(model, batch):
    """Mean over all completion tokens of the batch."""
    parts = torch.cat([completion_log_probs(model, row) for row in batch])
    return -parts.mean()


def train(peft_model, batch, name, start):
    """Ten full-batch steps from `start`: the loss before each step, and the prompt after the last."""
    prompt = prompt_of(peft_model)
    prompt.data.copy_(start)
    optimizer = MAKE[name]([prompt], **OPTIMIZERS[name])
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = batch_loss(peft_model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, prompt.detach().clone()


@torch.no_grad()
def greedy(model, ids, count=12):
    """`count` tokens, recomputing everything for each; refuses to record a choice that rounding could turn."""
    made = []
    for _ in range(count):
        best = logits(model, ids + made)[-1].topk(2)
        assert best.values[0] - best.values[1] > 2e-3, "two tokens are too close: change the seed"
        made.append(int(best.indices[0]))
    return made


def draw_rows(vocab, seed):
    """Token rows of unequal length, some with a common beginning, and a batch that holds one row twice."""
    generator = torch.Generator().manual_seed(seed)
    ids = lambda n: torch.randint(0, vocab, (n,), generator=generator).tolist()
    shared, other = ids(4), ids(2)
    rows = [shared + ids(3), shared + ids(1), shared[:2], other + ids(9), other + ids(4)]
    batch = [
        {"prompt_ids": shared + ids(2), "completion_ids": ids(1)},
        {"prompt_ids": shared + ids(1), "completion_ids": ids(3)},
        {"prompt_ids": other + ids(7), "completion_ids": ids(2)},
        {"prompt_ids": ids(1), "completion_ids": ids(1)},
    ]
    return rows, batch + [dict(batch[1])]


def record(folder, seed):
    """Everything about one checkpoint: (values for expected.json, tensors for expected.safetensors)."""
    model = open_model(folder)
    vocab, width = model.get_input_embeddings().weight.shape
    rows, batch = draw_rows(vocab, seed)
    start = 0.5 * torch.randn(N_VIRTUAL, width, generator=torch.Generator().manual_seed(seed + 1))
    tensors = {"prompt.init": start}
    with torch.no_grad():
        for i, row in enumerate(rows):
            tensors[f"base.logits.{i}"] = logits(model, row)
        for row in batch:
            row["base_log_probs"] = completion_log_probs(model, row).tolist()
    generated = [{"ids": row, "base": greedy(model, row)} for row in rows[:3]]

    peft_model = add_prompt(model, start)
    with torch.no_grad():
        for i, row in enumerate(rows):
            tensors[f"prompted.logits.{i}"] = logits(peft_model, row)
        for row in batch:
            row["prompted_log_probs"] = completion_log_probs(peft_model, row).tolist()
    for entry in generated:
        entry["prompted"] = greedy(peft_model, entry["ids"])
    loss = batch_loss(peft_model, batch)
    (tensors["prompt.grad"],) = torch.autograd.grad(loss, prompt_of(peft_model))
    losses = {}
    for name in OPTIMIZERS:
        losses[name], tensors[f"{name}.prompt"] = train(peft_model, batch, name, start)
    values = {
        "n_virtual": N_VIRTUAL,
        "d_model": width,
        "vocab_size": vocab,
        "rows": rows,
        "batch": batch,
        "loss": loss.item(),
        "losses": losses,
        "optimizers": OPTIMIZERS,
        "generate": generated,
    }
    return values, {name: x.detach().float().contiguous() for name, x in tensors.items()}, peft_model


def rounding(folder, values, tensors):
    """Largest distance of the records from the same in f64: what a correct f32 program may differ by."""
    start = tensors["prompt.init"].double()
    model = add_prompt(open_model(folder).double(), start).double()
    prompt_of(model).data.copy_(start)  # PEFT makes its prompt in f32
    (grad,) = torch.autograd.grad(batch_loss(model, values["batch"]), prompt_of(model))
    apart = [(grad - tensors["prompt.grad"]).abs().max().item()]
    with torch.no_grad():
        for i, row in enumerate(values["rows"]):
            apart.append((logits(model, row) - tensors[f"prompted.logits.{i}"]).abs().max().item())
    for name, recorded in values["losses"].items():
        losses, prompt = train(model, values["batch"], name, start)
        apart.append((prompt - tensors[f"{name}.prompt"]).abs().max().item())
        apart += [abs(a - b) for a, b in zip(losses, recorded)]
    return max(apart)


def save_adapter(peft_model, prompt, values, folder):
    """Write `prompt` as PEFT writes it, and return the logits it gives for each row."""
    prompt_of(peft_model).data.copy_(prompt)
    peft_model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # a model card template; nothing reads it
    with torch.no_grad():
        return {f"adapter.logits.{i}": logits(peft_model, row).contiguous() for i, row in enumerate(values["rows"])}
