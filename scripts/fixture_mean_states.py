#!/usr/bin/env python3
"""Write model/tests/fixtures/mean-states.json: rows of tokens and the mean of transformers' last hidden states of each.

Needs torch and transformers (made with torch 2.15, transformers 5.23), and the checkpoints that make_fixtures.py writes.
"""

import json
from pathlib import Path

import torch
from transformers import AutoModel, T5EncoderModel

FIXTURES = Path(__file__).resolve().parent.parent / "model" / "tests" / "fixtures"
NAMES = ["gpt2-square", "llama-gqa-tied-bf16", "qwen2-bias-tied", "bert-english", "bert-chinese", "bert-untied"]
T5 = ["t5-v1.0-relu-tied", "t5-v1.1-gated-bf16"]
# a beginning that rows share, a row twice, one token; every vocabulary has 120 tokens
ROWS = [[91, 47, 44, 32, 94, 109, 86], [91, 47, 44, 32, 19], [91, 47], [7], [91, 47, 44, 32, 19], list(range(60, 83))]


def main():
    torch.set_num_threads(1)
    means = {}
    for name in NAMES + T5:
        kind = T5EncoderModel if name in T5 else AutoModel
        model = kind.from_pretrained(FIXTURES / name, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            states = [model(input_ids=torch.tensor([row])).last_hidden_state[0] for row in ROWS]
        means[name] = [state.mean(0).tolist() for state in states]
    rounded = {name: [[round(x, 6) for x in row] for row in rows] for name, rows in means.items()}
    (FIXTURES / "mean-states.json").write_text(json.dumps({"rows": ROWS, "means": rounded}) + "\n")


if __name__ == "__main__":
    main()
