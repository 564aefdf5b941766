"""Small random BERTs, and what transformers says about them. PEFT has no masked task: the soft prompt is put in front by hand.

`bert-english` has a WordPiece vocabulary trained on data/reviews; `bert-chinese` one of single characters, in the folder
layout of the first releases (vocab.txt only, gamma and beta, tensors of other heads); `bert-untied` no tokenizer.
"""

import json
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer, processors
from torch.nn.functional import log_softmax
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, BertForPreTraining

from fixture_models import config_of, randomise, write_json, write_single
from fixture_records import MAKE, N_VIRTUAL, OPTIMIZERS, STEPS, logits  # noqa: F401 (make_fixtures asks for it)

REVIEWS = Path(__file__).resolve().parent.parent / "data" / "reviews"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLS, SEP, MASK = 2, 3, 4
ENGLISH = [
    "Review: A fine film. Sentiment: [MASK].",
    "[MASK] CAFÉ, naïve  and\tun-bend[MASK]!",
    "unseen \U0001f600 word",
]
CHINESE = ["巴黎是法国的[MASK]。", "北京 是[MASK][MASK]的首都, OK?", "龘 unknown"]
CHARACTERS = "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很业最间新什打便位因重被走电四第门相次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水万市眼体别处总才场师书比住员九笑性通目华报立马命张活难神数件安表原车白应路期叫死常提感金何更反合放做系计或司利受光王果亲界及今京务制解各任至清物台象记边共风战干接它许八特觉望直服毛林题建南度统色字请交爱让认算论百吃义科怎元社术结六功指思非流每青管夫连远资队跟带花快条院变联言权往展该领传近留红治决周保达办运武半候七必城父强步完革深区即求品士转量空甚众技轻程告江语英基派满式李息写呢识极令黄德收脸钱党倒未持取设始版双历越史商千片容研像找友孩站广改议形委早房音火际则首单据导影失拿网香似斯专石若兵弟谁校读志飞观争究包组造落视济喜离虽坏巴黎喜欢讨厌"


def bert(seed, vocab, cls=BertForMaskedLM, **changes):
    settings = dict(
        vocab_size=vocab,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
    )
    model = cls(BertConfig(**(settings | changes)))
    randomise(model, seed)
    return model


def weights(model, dtype=torch.float32):
    """The state dict as it goes into a file, the decoder's weight only where it is its own."""
    tensors = {name: x.detach().to(dtype).contiguous() for name, x in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("cls.predictions.decoder.weight")
        tensors.pop("cls.predictions.decoder.bias", None)
    return tensors


def english(folder):
    """Names as transformers writes them now, tied, `tokenizer.json`."""
    rows = [json.loads(line) for line in (REVIEWS / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    texts = [f"Review: {r['text']} Sentiment: {r['label']}" for r in rows]
    tokenizer.train_from_iterator(texts, vocab_size=320, special_tokens=SPECIAL, show_progress=False)
    assert tokenizer.token_to_id("[MASK]") == MASK
    tokenizer._tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "mask_token": "[MASK]", "model_max_length": 64}
    write_json(folder / "tokenizer_config.json", settings)
    model = bert(seed=21, vocab=tokenizer.get_vocab_size())
    write_single(folder, weights(model))
    write_json(folder / "config.json", config_of(model, torch.float32))
    return model


def chinese(folder):
    """As the first releases: gamma and beta, both heads of pretraining, a buffer of positions; tanh gelu."""
    vocab = SPECIAL + sorted(set(CHARACTERS)) + list("。，、！？,.!?ok") + ["##k", "paris", "##s"]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False, "model_max_length": 64})
    model = bert(seed=22, vocab=len(vocab), cls=BertForPreTraining, hidden_act="gelu_new", hidden_size=32, num_attention_heads=2)
    old = lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    tensors = {old(name): x for name, x in weights(model).items()}
    tensors["bert.embeddings.position_ids"] = torch.arange(64)[None]
    write_single(folder, tensors)
    config = config_of(model, torch.float32)
    write_json(folder / "config.json", config | {"architectures": ["BertForMaskedLM"]})
    return masked_part(model)


def masked_part(model):
    """The same weights without the head that guesses the next sentence."""
    masked = BertForMaskedLM(model.config)
    masked.load_state_dict({k: v for k, v in model.state_dict().items() if k in masked.state_dict()})
    return masked


def untied(folder):
    """A decoder of its own with a bias, relu, bf16, no tokenizer."""
    model = bert(
        seed=23,
        vocab=131,
        hidden_act="relu",
        hidden_size=36,
        num_attention_heads=3,
        intermediate_size=36,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    write_single(folder, weights(model, torch.bfloat16))  # `cls.predictions.bias` is there too, and not used
    write_json(folder / "config.json", config_of(model, torch.bfloat16))
    return model


def open_model(folder):
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def mask_logits(model, ids, masks, prompt=None):
    """Logits at the masks, [len(masks), V]; soft tokens in front count positions too, and are of type 0."""
    embeds = model.get_input_embeddings()(torch.tensor([ids]))
    n = 0 if prompt is None else len(prompt)
    if n:
        embeds = torch.cat((prompt[None], embeds), dim=1)
    out = model(inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long)).logits[0]
    return out[[n + m for m in masks]]


def log_probs(model, row, prompt=None):
    labels = torch.tensor(row["labels"])
    out = mask_logits(model, row["ids"], row["mask_positions"], prompt)
    return log_softmax(out, dim=-1)[torch.arange(len(labels)), labels]


def batch_loss(model, batch, prompt):
    return -torch.cat([log_probs(model, row, prompt) for row in batch]).mean()


def train(model, batch, name, start):
    prompt = torch.nn.Parameter(start.clone())
    optimizer = MAKE[name]([prompt], **OPTIMIZERS[name])
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = batch_loss(model, batch, prompt)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, prompt.detach()


def draw_batch(vocab, seed):
    """Rows of unequal length, two of them alike but for a word, one of them twice; masks out of order in one."""
    generator = torch.Generator().manual_seed(seed)
    ids = lambda n: torch.randint(len(SPECIAL), vocab, (n,), generator=generator).tolist()
    shared, other = ids(5), ids(9)
    wrap = lambda *parts: [CLS] + [i for part in parts for i in part] + [SEP]
    row = lambda text, masks: {"ids": text, "mask_positions": masks, "labels": ids(len(masks))}
    batch = [
        row(wrap(shared, [MASK]), [6]),
        row(wrap(shared, [MASK], ids(1)), [6]),
        row(wrap([MASK], other, [MASK, MASK]), [12, 1, 11]),
        row(wrap(ids(1), [MASK]), [2]),
    ]
    return batch + [dict(batch[2])]


def record(folder, seed):
    """Everything about one checkpoint: (values for expected.json, tensors for expected.safetensors, no PEFT model)."""
    model = open_model(folder)
    for p in model.parameters():
        p.requires_grad_(False)
    vocab, width = model.get_input_embeddings().weight.shape
    batch = draw_batch(vocab, seed)
    start = 0.5 * torch.randn(N_VIRTUAL, width, generator=torch.Generator().manual_seed(seed + 1))
    tensors = {"prompt.init": start}
    for kind, prompt in (("base", None), ("prompted", start)):
        for i, row in enumerate(batch):
            tensors[f"{kind}.logits.{i}"] = mask_logits(model, row["ids"], row["mask_positions"], prompt)
            row[f"{kind}_log_probs"] = log_probs(model, row, prompt).tolist()
    prompt = start.clone().requires_grad_()
    loss = batch_loss(model, batch, prompt)
    (tensors["prompt.grad"],) = torch.autograd.grad(loss, prompt)
    losses = {}
    for name in OPTIMIZERS:
        losses[name], tensors[f"{name}.prompt"] = train(model, batch, name, start)
    values = {
        "n_virtual": N_VIRTUAL,
        "d_model": width,
        "vocab_size": vocab,
        "batch": batch,
        "loss": loss.item(),
        "losses": losses,
        "optimizers": OPTIMIZERS,
    }
    values |= text_records(folder, model)
    return values, {name: x.detach().float().contiguous() for name, x in tensors.items()}, None


def text_records(folder, model):
    """What transformers makes of some texts, and the five likeliest tokens at each of their masks."""
    texts = {"bert-english": ENGLISH, "bert-chinese": CHINESE}.get(folder.name)
    if texts is None:
        return {}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    records = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        masks = [i for i, id in enumerate(ids) if id == tokenizer.mask_token_id]
        top = mask_logits(model, ids, masks).softmax(-1).topk(5) if masks else None
        fill = [{"ids": i.tolist(), "probabilities": p.tolist()} for p, i in zip(*top)] if masks else []
        records.append({"text": text, "ids": ids, "masks": masks, "fill": fill})
    return {"texts": records}


def rounding(folder, values, tensors):
    """Largest distance of the records from the same in f64: what a correct f32 program may differ by."""
    model = open_model(folder).double()
    start = tensors["prompt.init"].double()
    prompt = start.clone().requires_grad_()
    (grad,) = torch.autograd.grad(batch_loss(model, values["batch"], prompt), prompt)
    apart = [(grad - tensors["prompt.grad"]).abs().max().item()]
    with torch.no_grad():
        for i, row in enumerate(values["batch"]):
            theirs = mask_logits(model, row["ids"], row["mask_positions"], start)
            apart.append((theirs - tensors[f"prompted.logits.{i}"]).abs().max().item())
    for name, recorded in values["losses"].items():
        losses, prompt = train(model, values["batch"], name, start)
        apart.append((prompt - tensors[f"{name}.prompt"]).abs().max().item())
        apart += [abs(a - b) for a, b in zip(losses, recorded)]
    return max(apart)


CASES = {"bert-english": english, "bert-chinese": chinese, "bert-untied": untied}
