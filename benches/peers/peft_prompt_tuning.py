#!/usr/bin/env python3
"""Prompt tuning as users of PEFT run it: transformers and PEFT on torch, right-padded batches, the model's own loss.

usage: peft_prompt_tuning.py --model DIR [--rows F] [--prompt 20] [--batch 32] [--steps 1] [--dtype f32|bf16]

A step is forward, backward and AdamW on the prompt. Labels are masked to the completion's tokens. Prints one line per
step and one in the end.
"""

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM

import common


def pad(batch):
    """Rectangles of ids, mask and labels, padded on the right."""
    length = max(len(prompt) + len(completion) for prompt, completion in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (prompt, completion) in enumerate(batch):
        end = len(prompt) + len(completion)
        ids[i, :end] = torch.tensor(prompt + completion)
        mask[i, :end] = 1
        labels[i, len(prompt) : end] = torch.tensor(completion)
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def main():
    a = common.parse(common.step_options(__doc__))
    base = AutoModelForCausalLM.from_pretrained(a.model, dtype=common.DTYPES[a.dtype])
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=a.prompt)
    model = get_peft_model(base, config)
    model.eval()  # no dropout: the same arithmetic as the others, and less work than with it
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)

    def step(batch):
        loss = model(**pad(batch)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    common.run_steps(a, "peft", step)


if __name__ == "__main__":
    main()
