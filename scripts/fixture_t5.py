"""Small random T5 checkpoints, and what transformers and PEFT compute with them.

A row is an encoder input; the decoder gets the completion shifted right behind the start token. The prompt is where PEFT
puts it: in front of the encoder input.
"""

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch.nn.functional import log_softmax
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

import fixture_records
from fixture_models import SPREAD, config_of, write_json, write_single
from fixture_records import N_VIRTUAL, prompt_of

SETTINGS = dict(
    d_model=32,
    d_kv=8,
    d_ff=50,
    num_layers=2,
    num_heads=4,
    vocab_size=131,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=12,
    decoder_start_token_id=2,
    pad_token_id=0,
    eos_token_id=1,
)
OPTIMIZERS = dict(fixture_records.OPTIMIZERS)
OPTIMIZERS["adafactor"] = OPTIMIZERS["adafactor"] | dict(lr=0.3)
DECODER_ROWS = 6
BEAMS = 3


def t5(seed, **changes):
    """A random model of the size of `SETTINGS`; the start token is not the pad token, so that the two cannot be mixed up."""
    model = T5ForConditionalGeneration(T5Config(**(SETTINGS | changes)))
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name == "decoder.final_layer_norm.weight" and model.config.scale_decoder_outputs:
            value = 3 + SPREAD["norm"] * noise  # the scaled head makes logits small
        elif p.dim() == 1:
            value = 1 + SPREAD["norm"] * noise
        elif "relative_attention_bias" in name:
            value = noise
        elif name.endswith(("SelfAttention.q.weight", "EncDecAttention.q.weight")):
            value = noise / (p.shape[1] * SETTINGS["d_kv"]) ** 0.5  # scores are not divided by sqrt(d_kv)
        elif "shared" in name or "lm_head" in name:
            value = 2 * SPREAD["embed"] * noise
        else:
            value = SPREAD["matrix"] * noise / p.shape[1] ** 0.5
        p.data.copy_(value)
    return model


def weights(model, head, dtype=torch.float32):
    """The state dict as files have it: the embedding under one name, or two, and the head where it is of its own."""
    tensors = {n: x.detach().to(dtype).contiguous().clone() for n, x in model.state_dict().items()}
    tensors.pop("encoder.embed_tokens.weight", None)
    tensors.pop("decoder.embed_tokens.weight", None)
    tensors.pop("lm_head.weight")
    if head is not None:
        tensors["lm_head.weight"] = head.to(dtype)
    return tensors


def config_v4(model, scaled):
    """As transformers 4 wrote it: `tie_word_embeddings` says whether outputs are scaled and the head is tied."""
    config = config_of(model, torch.float32)
    config.pop("scale_decoder_outputs")
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    config["tie_word_embeddings"] = scaled
    return config


def t5_v10(folder):
    """v1.0: relu, tied and scaled head, one decoder block more, and the leftovers that old files have."""
    model = t5(seed=21, feed_forward_proj="relu", num_decoder_layers=3)
    tensors = weights(model, None)
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.full((8, 4), 9.0)
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
    write_single(folder, tensors)
    write_json(folder / "config.json", config_v4(model, True))
    write_json(folder / "config.v5.json", config_of(model, torch.float32))
    return model


def t5_v11(folder):
    """v1.1: gated-gelu, own head that is not scaled, heads narrower than d_model (3 x 8 = 24 against 32), bf16."""
    model = t5(seed=28, feed_forward_proj="gated-gelu", num_heads=3, tie_word_embeddings=False)
    generator = torch.Generator().manual_seed(23)
    head = SPREAD["embed"] * torch.randn(131, SETTINGS["d_model"], generator=generator)
    write_single(folder, weights(model, head, torch.bfloat16))
    write_json(folder / "config.json", config_v4(model, False))
    v5 = config_of(model, torch.bfloat16)
    assert v5["tie_word_embeddings"] and not v5["scale_decoder_outputs"]
    write_json(folder / "config.v5.json", v5)
    model.lm_head.weight = torch.nn.Parameter(head)
    return model


CASES = {"t5-v1.0-relu-tied": t5_v10, "t5-v1.1-gated-bf16": t5_v11}


def open_model(folder):
    """With the head of the file: transformers 5 ties it to the embedding whatever the file has."""
    from safetensors.torch import load_file

    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    head = load_file(folder / "model.safetensors").get("lm_head.weight")
    if head is not None:
        model.lm_head.weight = torch.nn.Parameter(head.float())
    model.config.name_or_path = model.name_or_path = folder.name
    model.config.use_cache = False  # transformers makes one for as many layers as the encoder has
    return model.eval()


def add_prompt(model, prompt):
    config = PromptTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=len(prompt))
    peft_model = get_peft_model(model, config)
    weight = prompt_of(peft_model)
    assert weight.shape[0] == 2 * len(prompt)
    weight.data[: len(prompt)].copy_(prompt)
    weight.data[len(prompt) :].copy_(prompt.flip(0))  # what PEFT keeps and never looks at
    return peft_model.eval()


def logits(model, ids, labels):
    """Logits at every decoder token when the labels are fed behind the start token, [len(labels), V]."""
    ids, labels = torch.tensor([ids]), torch.tensor([labels])
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).logits[0]


def completion_log_probs(model, row):
    labels = row["completion_ids"]
    out = log_softmax(logits(model, row["prompt_ids"], labels), dim=-1)
    return out[torch.arange(len(labels)), torch.tensor(labels)]


def batch_loss(model, batch):
    return -torch.cat([completion_log_probs(model, row) for row in batch]).mean()


def train(peft_model, batch, name, start):
    """Ten full-batch steps of the first half of the table, which alone gets a gradient."""
    table = prompt_of(peft_model)
    half = len(start)
    table.data[:half].copy_(start)
    prompt = torch.nn.Parameter(start.clone())
    optimizer = fixture_records.MAKE[name]([prompt], **OPTIMIZERS[name])
    losses = []
    for _ in range(fixture_records.STEPS):
        table.data[:half].copy_(prompt.data)
        loss = batch_loss(peft_model, batch)
        (grad,) = torch.autograd.grad(loss, table)
        assert not grad[half:].any()
        prompt.grad = grad[:half].clone()
        optimizer.step()
        losses.append(loss.item())
    return losses, prompt.detach().clone()


def greedy(model, ids, count=12):
    made = []
    for _ in range(count):
        best = logits(model, ids, made + [0])[-1].topk(2)  # the last label is not fed
        assert best.values[0] - best.values[1] > 2e-3, "two tokens are too close: change the seed"
        made.append(int(best.indices[0]))
    return made


def beams(model, prompt, ids, eos, length_penalty):
    """Beam search of transformers over embeddings, so that a prompt can be in front of them."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    embeds = base.get_input_embeddings()(torch.tensor([ids]))
    embeds = torch.cat([prompt[None], embeds], dim=1) if prompt is not None else embeds
    out = base.generate(
        inputs_embeds=embeds,
        attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
        num_beams=BEAMS,
        do_sample=False,
        use_cache=False,
        max_new_tokens=10,
        eos_token_id=eos,
        length_penalty=length_penalty,
        return_dict_in_generate=True,
        output_scores=True,
    )
    tokens = out.sequences[0, 1:].tolist()
    if eos in tokens:
        tokens = tokens[: tokens.index(eos)]
    return {"tokens": tokens, "score": out.sequences_scores[0].item()}


@torch.no_grad()
def generated(model, peft_model, rows, start):
    items = []
    for row in rows[:3]:
        item = {"ids": row, "base": greedy(model, row), "prompted": greedy(peft_model, row)}
        # a token that does come, so that sequences end at different lengths
        eos = item["prompted"][4]
        item["beams"] = [
            {"eos": eos, "length_penalty": p, "num_beams": BEAMS, **beams(model, start, row, eos, p)}
            for p in (0.0, 1.0, 2.0)
        ]
        items.append(item)
    return items


def record(folder, seed):
    """Everything about one checkpoint: (values for expected.json, tensors for expected.safetensors, PEFT model)."""
    model = open_model(folder)
    vocab, width = model.get_input_embeddings().weight.shape
    rows, batch = fixture_records.draw_rows(vocab, seed)
    # two completions of one text share its encoder pass
    batch[1]["prompt_ids"] = batch[0]["prompt_ids"]
    batch[-1] = dict(batch[1])
    generator = torch.Generator().manual_seed(seed + 1)
    start = torch.randn(N_VIRTUAL, width, generator=generator)
    labels = torch.randint(0, vocab, (DECODER_ROWS,), generator=generator).tolist()
    tensors = {"prompt.init": start}
    with torch.no_grad():
        for i, row in enumerate(rows):
            encoder = model.get_encoder()(input_ids=torch.tensor([row])).last_hidden_state[0]
            tensors[f"base.encoder.{i}"] = encoder
            tensors[f"base.logits.{i}"] = logits(model, row, labels)
        for row in batch:
            row["base_log_probs"] = completion_log_probs(model, row).tolist()
    bases = open_model(folder)
    peft_model = add_prompt(model, start)
    with torch.no_grad():
        for i, row in enumerate(rows):
            tensors[f"prompted.logits.{i}"] = logits(peft_model, row, labels)
        for row in batch:
            row["prompted_log_probs"] = completion_log_probs(peft_model, row).tolist()
    loss = batch_loss(peft_model, batch)
    (grad,) = torch.autograd.grad(loss, prompt_of(peft_model))
    tensors["prompt.grad"] = grad[:N_VIRTUAL]
    losses = {}
    for name in OPTIMIZERS:
        losses[name], tensors[f"{name}.prompt"] = train(peft_model, batch, name, start)
    prompt_of(peft_model).data[:N_VIRTUAL].copy_(start)
    values = {
        "n_virtual": N_VIRTUAL,
        "d_model": width,
        "vocab_size": vocab,
        "rows": rows,
        "labels": labels,
        "batch": batch,
        "loss": loss.item(),
        "losses": losses,
        "optimizers": OPTIMIZERS,
        "generate": generated(bases, peft_model, rows, start),
    }
    return values, {name: x.detach().float().contiguous() for name, x in tensors.items()}, peft_model


def rounding(folder, values, tensors):
    """Largest distance of the records from the same in f64: what a correct f32 program may differ by."""
    start = tensors["prompt.init"].double()
    model = add_prompt(open_model(folder).double(), start).double()
    prompt_of(model).data[: len(start)].copy_(start)
    (grad,) = torch.autograd.grad(batch_loss(model, values["batch"]), prompt_of(model))
    apart = [(grad[: len(start)] - tensors["prompt.grad"]).abs().max().item()]
    with torch.no_grad():
        for i, row in enumerate(values["rows"]):
            theirs = logits(model, row, values["labels"])
            apart.append((theirs - tensors[f"prompted.logits.{i}"]).abs().max().item())
    for name, recorded in values["losses"].items():
        losses, prompt = train(model, values["batch"], name, start)
        apart.append((prompt - tensors[f"{name}.prompt"]).abs().max().item())
        apart += [abs(a - b) for a, b in zip(losses, recorded)]
    return max(apart)


def save_adapter(peft_model, prompt, values, folder):
    """Write `prompt` as PEFT writes it, 2n rows, and return the logits it gives for each row."""
    prompt_of(peft_model).data[: len(prompt)].copy_(prompt)
    peft_model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    with torch.no_grad():
        rows = enumerate(values["rows"])
        return {f"adapter.logits.{i}": logits(peft_model, row, values["labels"]).contiguous() for i, row in rows}


def buckets():
    """The bucket of every distance from -200 to 200, both ways, for the usual table and a small one."""
    from transformers.models.t5.modeling_t5 import T5Attention

    relative = torch.arange(-200, 201)
    of = T5Attention._relative_position_bucket
    return [
        {
            "n": n,
            "max_distance": far,
            "bidirectional": both,
            "first": -200,
            "buckets": of(relative, bidirectional=both, num_buckets=n, max_distance=far).tolist(),
        }
        for n, far in [(32, 128), (8, 12), (20, 100)]
        for both in (True, False)
    ]
