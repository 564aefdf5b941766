"""The checkpoint for whole runs on text: a tiny bf16 GPT-2 with a byte-level BPE tokenizer trained on data/reviews."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from fixture_models import config_of, gpt2, weights, write_json, write_single

REVIEWS = Path(__file__).resolve().parent.parent / "data" / "reviews"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB = 384
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "",
    "Review: A fine film.\nSentiment: positive",
    " negative",
    " terrible",
    "  two  spaces,\ttabs\nand lines ",
    "café 北京 \U0001f600",
    "<|im_start|>user\nHi<|im_end|>",
]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Was it good?"}]


def train_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = [json.loads(line) for line in (REVIEWS / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    tokenizer.train_from_iterator((f"Review: {r['text']}\nSentiment: {r['label']}" for r in rows), trainer)
    assert tokenizer.get_vocab_size() == VOCAB
    for word in (" positive", " negative"):
        assert len(tokenizer.encode(word).ids) == 1, f"{word!r} should be one token"
    return tokenizer


def gpt2_text(folder):
    tokenizer = train_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIAL[0],
        "model_max_length": 256,
        "chat_template": CHAT,
    }
    write_json(folder / "tokenizer_config.json", settings)
    model = gpt2(seed=8, n_embd=32, vocab_size=VOCAB, n_positions=256)
    write_single(folder, weights(model, torch.bfloat16))
    write_json(folder / "config.json", config_of(model, torch.bfloat16))
    return model


def text_records(folder):
    """What the tokenizers library and transformers make of some texts and of a conversation."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [{"text": t, "ids": tokenizer(t, add_special_tokens=False)["input_ids"]} for t in TEXTS]
    chat = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    return {"texts": texts, "chat": {"messages": MESSAGES, "text": chat}}


CASES = {"gpt2-text": gpt2_text}
