#!/usr/bin/env python3
"""Check the sentences of data/reviews: form, balance, and that nothing in one place gives away another.

usage: check_data.py [FOLDER]      default: data/reviews of this repository; fails with a list of what is wrong

* every line is {"text", "label"} with one of two labels, text trimmed and on one line
* each split has as many positive as negative rows, and all together at least 240
* no text occurs twice, anywhere, not even with other case or punctuation
* no two texts are near-duplicates: they share at most MAX_SHARED runs of five words

and, without FOLDER,

* the sets of SETS, in the same way: at least 400 rows, balanced splits, no text and no entity twice, no run of five words or eight
  Chinese characters in two texts, no label's name in a text, and the entity of a row once in its text
* the small sets of data/examples: no row occurs twice in a set, be it in another file, labels are balanced, and each file has
  at least MIN_EXAMPLES rows.
"""

import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

SPLITS = ("train", "dev", "test")
LABELS = ("negative", "positive")
MIN_ROWS = 240
MIN_EXAMPLES = 24
RUN = 5
MAX_SHARED = 0
SETS = ("sentiment", "sentiment-zh", "topics", "topics-zh", "entities", "entities-zh", "reviews-zh")
MIN_SET = 400
RUN_OF_CHARACTERS = 8


def words(text):
    return re.findall(r"[a-z0-9']+", text.lower().replace("’", "'"))


def read(folder, problems):
    """All rows as (place, text, label)."""
    rows = []
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        labels = Counter()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            place = f"{path.name}:{number}"
            row = json.loads(line)
            if set(row) != {"text", "label"} or row["label"] not in LABELS:
                problems.append(f"{place}: wanted text and one of the labels {', '.join(LABELS)}")
                continue
            text = row["text"]
            if text != " ".join(text.split()) or not words(text):
                problems.append(f"{place}: empty text, or white space to tidy")
            rows.append((place, text, row["label"]))
            labels[row["label"]] += 1
        if labels["positive"] != labels["negative"]:
            problems.append(f"{path.name}: not balanced, {dict(labels)}")
    if len(rows) < MIN_ROWS:
        problems.append(f"{len(rows)} rows, at least {MIN_ROWS} are wanted")
    return rows


def find_repeats(rows, problems):
    seen, runs, shared = {}, defaultdict(list), Counter()
    for place, text, _ in rows:
        key = tuple(words(text))
        if key in seen:
            problems.append(f"{place}: the same text as {seen[key]}")
        seen[key] = place
        for run in {key[i : i + RUN] for i in range(len(key) - RUN + 1)}:
            shared.update((other, place) for other in runs[run])
            runs[run].append(place)
    for (a, b), count in shared.items():
        if count > MAX_SHARED:
            problems.append(f"{a} and {b}: {count} runs of {RUN} words in common")


def units(text):
    """What runs are made of: words, or characters where there are no words."""
    is_han = any("\u4e00" <= c <= "\u9fff" for c in text)
    return (re.findall(r"\w", text), RUN_OF_CHARACTERS) if is_han else (words(text), RUN)


def check_set(folder, problems):
    """Rows of one of SETS, all splits together."""
    seen, entities, runs, n = {}, {}, {}, 0
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        labels = Counter(row["label"] for row in rows)
        if len(set(labels.values())) != 1:
            problems.append(f"{folder.name}/{path.name}: not balanced, {dict(labels)}")
        for number, row in enumerate(rows, 1):
            place, text = f"{folder.name}/{path.name}:{number}", row["text"]
            parts, length = units(text)
            if text != " ".join(text.split()) or not parts:
                problems.append(f"{place}: empty text, or white space to tidy")
            if any(label in text.lower() for label in labels):
                problems.append(f"{place}: a label's name is in the text")
            if seen.setdefault(tuple(parts), place) != place:
                problems.append(f"{place}: the same text as {seen[tuple(parts)]}")
            for run in {tuple(parts[i : i + length]) for i in range(len(parts) - length + 1)}:
                if runs.setdefault(run, place) != place:
                    problems.append(f"{place} and {runs[run]}: `{' '.join(run)}` in both")
            entity = row.get("entity")
            if entity is not None and (text.count(entity) != 1 or entities.setdefault(entity, place) != place):
                problems.append(f"{place}: {entity} is not once in the text, or also in {entities.get(entity)}")
        n += len(rows)
    if n < MIN_SET:
        problems.append(f"{folder.name}: {n} rows, at least {MIN_SET} are wanted")
    return n


def check_example(folder, problems):
    """Rows of one of the small sets: never twice, and as many of each label."""
    seen, n = {}, 0
    for path in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        labels = Counter(row["label"] for row in rows if "label" in row)
        if len(set(labels.values())) > 1:
            problems.append(f"{path.parent.name}/{path.name}: not balanced, {dict(labels)}")
        for number, row in enumerate(rows, 1):
            place = f"{path.parent.name}/{path.name}:{number}"
            texts = [v for name, v in row.items() if isinstance(v, str) and name != "body"]
            if any(v != " ".join(v.split()) for v in texts):
                problems.append(f"{place}: white space to tidy")
            # the text without case and punctuation, in any script
            key = re.sub(r"\W+", " ", str(next(iter(row.values()))).casefold()).strip()
            if key in seen:
                problems.append(f"{place}: the same as {seen[key]}")
            seen[key] = place
        if len(rows) < MIN_EXAMPLES:
            problems.append(f"{folder.name}/{path.name}: {len(rows)} rows, at least {MIN_EXAMPLES} are wanted")
        n += len(rows)
    return n


def main():
    data = Path(__file__).resolve().parent.parent / "data"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else data / "reviews"
    problems = []
    rows = read(folder, problems)
    find_repeats(rows, problems)
    examples = 0 if len(sys.argv) > 1 else sum(check_example(f, problems) for f in (data / "examples").iterdir() if f.is_dir())
    sets = {} if len(sys.argv) > 1 else {name: check_set(data / name, problems) for name in SETS}
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(1)
    lengths = sorted(len(words(text)) for _, text, _ in rows)
    counts = Counter(place.split(".")[0] for place, _, _ in rows)
    sizes = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
    print(f"{len(rows)} rows ({sizes}), {lengths[0]} to {lengths[-1]} words, median {lengths[len(lengths) // 2]}")
    for name, n in sets.items():
        print(f"{name}: {n} rows")
    if examples:
        print(f"{examples} rows of examples")


if __name__ == "__main__":
    main()
