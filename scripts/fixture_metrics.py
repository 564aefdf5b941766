#!/usr/bin/env python3
"""Write prompt-tuning/tests/fixtures/metrics.json: texts, references, and what sacrebleu and rouge_score say of them.

Needs sacrebleu and rouge-score (made with 2.6 and 0.1.2).
"""

import json
import random
from pathlib import Path

import sacrebleu
from rouge_score import rouge_scorer

OUT = Path(__file__).resolve().parent.parent / "prompt-tuning" / "tests" / "fixtures" / "metrics.json"
WORDS = """the cat sat on a mat . Paris is, 1,234.5 of (France) 3-4 &amp; "quoted" it's don't New-York e.g. $5.00 50% x<y
le chat déjà 判断 句子 情感 。 Größe ? ! : ; a/b [k] {v} ~ ` ^ _ = + * @home #1 tail- \\n""".split()


def corpus(seed):
    rng = random.Random(seed)
    sentence = lambda n: [rng.choice(WORDS) for _ in range(n)]
    pairs = []
    for _ in range(rng.randint(1, 12)):
        reference = sentence(rng.randint(1, 18))
        text = [w if rng.random() < 0.75 else rng.choice(WORDS) for w in reference]
        if rng.random() < 0.4:
            text = text[: rng.randint(0, len(text))] + sentence(rng.randint(0, 4))
        pairs.append((" ".join(text), " ".join(reference)))
    return pairs


def main():
    rouge = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    cases = []
    for seed in range(40):
        pairs = corpus(seed)
        texts, references = [t for t, _ in pairs], [r for _, r in pairs]
        cases.append(
            {
                "pairs": pairs,
                "bleu": sacrebleu.corpus_bleu(texts, [references]).score / 100,
                "chrf": sacrebleu.corpus_chrf(texts, [references]).score / 100,
                "rouge_l": sum(rouge.score(r, t)["rougeL"].fmeasure for t, r in pairs) / len(pairs),
            }
        )
    OUT.write_text(json.dumps(cases, ensure_ascii=False, indent=0) + "\n")
    print({key: [round(c[key], 3) for c in cases[:6]] for key in ("bleu", "chrf", "rouge_l")})


if __name__ == "__main__":
    main()
