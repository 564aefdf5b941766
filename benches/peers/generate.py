#!/usr/bin/env python3
"""Greedy generation by transformers: new tokens per second, with and without a soft prompt in front.

usage: generate.py --model DIR [--new 64] [--batch 1] [--prompt 0] [--text 16] [--repeats 3] [--dtype f32|bf16] [--json]

The text is --text random tokens for each of --batch rows, the soft prompt --prompt random vectors. Ends of text are
ignored, so that each row gets --new tokens. Reading the prompt is part of the time, and is also measured alone: a
generation of one token. `tokens_per_s` counts what comes after that one.
"""

import statistics
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

import common


def main():
    parser = common.options(__doc__, new=64, batch=1, prompt=0, text=16, repeats=3)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    a = common.parse(parser)
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=common.DTYPES[a.dtype])
    embeddings = model.get_input_embeddings().weight
    ids = torch.randint(len(embeddings), (a.batch, a.text))
    soft = torch.randn(a.prompt, embeddings.shape[1]).to(embeddings.dtype) * embeddings.std()
    x = torch.cat((soft.expand(a.batch, -1, -1), embeddings[ids]), 1).detach()
    mask = torch.ones(x.shape[:2], dtype=torch.long)

    def generate(count):
        with torch.inference_mode():
            made = model.generate(
                inputs_embeds=x,
                attention_mask=mask,
                do_sample=False,
                min_new_tokens=count,
                max_new_tokens=count,
                pad_token_id=0,
            )
        assert made.shape == (a.batch, count)

    first = min(common.times(lambda: generate(1), a.repeats))
    seconds = common.times(lambda: generate(a.new), a.repeats)
    after = a.batch * (a.new - 1)
    common.show(
        a,
        peer="transformers generate",
        model=a.model.name,
        dtype=a.dtype,
        batch=a.batch,
        prompt=a.prompt,
        text=a.text,
        new=a.new,
        first_token_s=first,
        min_s=min(seconds),
        median_s=statistics.median(seconds),
        tokens_per_s=after / (min(seconds) - first),
        median_tokens_per_s=after / (statistics.median(seconds) - first),
        weights_gb_per_s=sum(p.nbytes for p in model.parameters()) * (a.new - 1) / (min(seconds) - first) / 1e9,
        peak_rss_bytes=common.peak_rss_bytes(),
    )


if __name__ == "__main__":
    main()
