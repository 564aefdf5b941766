#!/usr/bin/env python3
"""Prompt tuning as fast as plain torch gets by hand: what a person does who knows torch well and writes no kernel.

usage: torch_by_hand.py --model DIR [--rows F] [--prompt 20] [--batch 32] [--steps 1] [--dtype f32|bf16]
                        [--buckets 1] [--round 1] [--compile] [--check]

Beside a plain implementation:
    frozen weights require no gradient, so nothing is computed or saved for them
    rows are sorted by length, padded to a multiple of --round and packed one after the other: with 1 there is no padding
    --buckets N cuts the sorted rows into N parts, each with its own forward and backward: less memory at one time
    attention is torch's fused scaled_dot_product_attention, causal, without a mask
    behind the last attention only the tokens before a completion's are computed, and so is the head
Packing without padding and one part were the fastest measured; README.md tells what else was tried.
--check compares loss and gradient of the prompt with those of transformers and times nothing.
"""

import torch
import torch.nn.functional as F

import common
import decoders


def padded_length(row, multiple=1):
    text = len(row[0]) + len(row[1])
    return -(-text // multiple) * multiple


def spans_of(rows, multiple):
    """Neighbouring rows of one padded length; rows are sorted by length."""
    lengths = [padded_length(row, multiple) for row in rows]
    return [(lengths.count(length), length) for length in sorted(set(lengths))]


def embed(model, prompt, rows, spans):
    """[tokens, width]: in each row the prompt, then its text, then zeros' embeddings up to the span's length."""
    parts, rows = [], iter(rows)
    for count, length in spans:
        ids = torch.zeros(count, length, dtype=torch.long)
        for i in range(count):
            text = sum(next(rows), [])
            ids[i, : len(text)] = torch.tensor(text)
        parts.append(torch.cat((prompt.expand(count, -1, -1), F.embedding(ids, model.embeddings)), 1).flatten(0, 1))
    return torch.cat(parts)


def targets_of(rows, spans, n_prompt):
    """The tokens that predict a completion's token, and those tokens' ids."""
    begins, begin = [], 0
    for count, length in spans:
        begins += range(begin, begin + count * length, length)
        begin += count * length
    outputs, labels = [], []
    for begin, (text, completion) in zip(begins, rows):
        first = begin + n_prompt + len(text) - 1
        outputs += range(first, first + len(completion))
        labels += completion
    return torch.tensor(outputs), torch.tensor(labels)


def sum_of_losses(model, prompt, rows, multiple):
    spans = spans_of(rows, multiple)
    x = embed(model, prompt, rows, spans)
    spans = [(count, len(prompt) + length) for count, length in spans]
    outputs, labels = targets_of(rows, spans, len(prompt))
    logits = F.linear(decoders.hidden_states(model, x, spans, outputs), model.embeddings)
    return F.cross_entropy(logits, labels, reduction="sum")


def backward(a, model, prompt, batch):
    """Adds the gradient of the mean loss to the prompt's and returns the loss."""
    rows = sorted(batch, key=lambda row: padded_length(row))
    n_targets = sum(len(completion) for _, completion in rows)
    size = -(-len(rows) // a.buckets)
    total = 0.0
    for begin in range(0, len(rows), size):
        loss = sum_of_losses(model, prompt, rows[begin : begin + size], a.round) / n_targets
        loss.backward()
        total += loss.item()
    return total


def check(a, model, prompt):
    """Loss and gradient by hand against those of transformers, row by row."""
    from transformers import AutoModelForCausalLM

    batch = next(common.batches(a))
    loss = backward(a, model, prompt, batch)
    peer = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    expected = prompt.detach().clone().requires_grad_()
    total, n_targets = 0.0, sum(len(completion) for _, completion in batch)
    for text, completion in batch:
        ids = torch.tensor(text + completion)
        x = torch.cat((expected, peer.get_input_embeddings()(ids)))[None]
        logits = peer(inputs_embeds=x).logits[0, len(expected) + len(text) - 1 : -1]
        part = F.cross_entropy(logits, torch.tensor(completion), reduction="sum") / n_targets
        part.backward()
        total += part.item()
    scale = expected.grad.abs().max()
    off = ((prompt.grad - expected.grad).abs().max() / scale).item()
    assert abs(loss - total) < 1e-4 and off < 1e-4 and scale > 0, f"loss {loss} and {total}, gradient off by {off}"
    print(f"loss {loss:.6f} as in transformers, {total:.6f}; gradient within {off:.1e} of its largest number")


def main():
    parser = common.step_options(__doc__, buckets=1, round=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile for the blocks behind attention")
    parser.add_argument("--check", action="store_true")
    a = common.parse(parser)
    model = decoders.load(a.model, common.DTYPES[a.dtype])
    if a.compile:
        model.rest = torch.compile(model.rest, dynamic=True)
    prompt = torch.nn.Parameter(model.embeddings[torch.randint(len(model.embeddings), (a.prompt,))].clone())
    if a.check:
        return check(a, model, prompt)
    optimizer = torch.optim.AdamW([prompt], lr=1e-3, weight_decay=0.0)

    def step(batch):
        loss = backward(a, model, prompt, batch)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    common.run_steps(a, "torch by hand", step)


if __name__ == "__main__":
    main()
