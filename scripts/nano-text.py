#!/usr/bin/env python3
"""Collect English and Chinese text for the default models, as JSONL of {"text", "source"}.

usage: nano-text.py DATA OUT.jsonl

DATA holds public data sets, one folder each, in their original form (see SOURCES for what is read; a set that is not there is
skipped with a message). Only training splits are read, and of them only the texts: no label is in the output. The licence of each
source is printed, and is in the model cards. Nothing of the text belongs into this repository.
"""

import json
import re
import sys
import zipfile
from pathlib import Path


def jsonl(*fields):
    def read(path):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield " ".join(row[f] for f in fields if row.get(f))

    return read


def paragraphs(path):
    """Documents between blank lines; short ones together, so that there is something to learn from."""
    text = ""
    for part in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace")):
        part = re.sub(r"[ \t]+", " ", part).strip()
        text = f"{text}\n\n{part}" if text else part
        if len(text) > 600:
            yield text
            text = ""
    if text:
        yield text


def wikitext(path):
    """Tokenised text, put together again."""
    for part in re.split(r"\n = [^=].* = \n", path.read_text(encoding="utf-8")):
        text = part.replace("<unk>", "").replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".")
        text = re.sub(r" ([,.;:!?)'%])", r"\1", text).replace("( ", "(").replace(" n't", "n't")
        for piece in re.split(r"\n+", text):
            if len(piece) > 80:
                yield piece.strip()


def brown(path):
    for part in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
        text = re.sub(r" ([,.;:!?)])", r"\1", part).replace("`` ", '"').replace(" ''", '"')
        if text.strip():
            yield text.strip()


def zipped(path):
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt") and "README" not in name:
                text = archive.read(name).decode("utf-8", errors="replace")
                text = re.sub(r" ([,.;:!?)'])", r"\1", text)
                for piece in range(0, len(text), 4000):
                    yield " ".join(text[piece : piece + 4000].split())


SOURCES = [
    ("ag_news/train.jsonl", jsonl("text"), "non-commercial research (its readme)"),
    ("sst2/train.jsonl", jsonl("text"), "none stated (Stanford Sentiment Treebank)"),
    ("trec/train.jsonl", jsonl("text"), "MIT (repository)"),
    ("chnsenticorp/train.jsonl", jsonl("text"), "none stated"),
    ("waimai/train.jsonl", jsonl("text"), "none stated"),
    ("fewclue/eprstmt/train.jsonl", jsonl("text"), "none stated"),
    ("fewclue/tnews/train.jsonl", jsonl("text"), "none stated"),
    ("fewclue/csldcp/train_few_all.json", jsonl("content"), "none stated"),
    ("movie_reviews/movie_reviews.zip", zipped, "by permission of the authors (its readme)"),
    ("lm_text/brown/brown.train.txt", brown, "redistribution permitted (its readme)"),
    ("lm_text/inaugural/inaugural.zip", zipped, "public domain"),
    ("lm_text/state_union/state_union.zip", zipped, "public domain"),
    ("wikitext2/valid.txt", wikitext, "CC BY-SA"),
    ("tinyshakespeare/input.txt", paragraphs, "public domain"),
]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    print(f"{'source':38} {'documents':>9} {'characters':>10}  licence")
    with out.open("w", encoding="utf-8") as file:
        for name, read, licence in SOURCES:
            path = data / name
            if not path.is_file():
                found = sorted(p for p in data.glob(f"{name.split('/')[0]}/**/*") if p.name == path.name)
                if not found:
                    print(f"{name:38} not there", file=sys.stderr)
                    continue
                path = found[0]
            documents = characters = 0
            for text in read(path):
                text = text.strip()
                if len(text) < 4:
                    continue
                file.write(json.dumps({"text": text, "source": name.split("/")[0]}, ensure_ascii=False) + "\n")
                documents += 1
                characters += len(text)
            print(f"{name:38} {documents:9} {characters:10}  {licence}")


if __name__ == "__main__":
    main()
