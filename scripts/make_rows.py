#!/usr/bin/env python3
"""Rows of random token ids as long as SST-2's sentences, for a model folder that has none.

usage: make_rows.py FOLDER [--rows N] [--seed S]

Reads the size of the vocabulary from FOLDER/config.json and writes FOLDER/rows.jsonl: N rows {"prompt_ids",
"completion_ids"}, the last token of a row being its completion. Needs numpy.
"""

import json

import shape

if __name__ == "__main__":
    a = shape.arguments(__doc__)
    vocab = json.loads((a.folder / "config.json").read_text())["vocab_size"]
    shape.write_rows(a.folder, a.rows, a.seed + 1, vocab)
