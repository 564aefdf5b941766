#!/usr/bin/env python3
"""Collect plain English and Chinese text to pretrain the default models on, from a folder of data sets.

usage: nano-text.py FOLDER... --out FILE.jsonl [--also noncommercial] [--also unstated]

Each FOLDER has one folder per data set (sst2/, lm_text/, …), in the original format or as JSONL, or one per package of Debian,
unpacked (`apt-get download PACKAGE; dpkg-deb -x PACKAGE_*.deb FOLDER/PACKAGE`); `data` of this repository has text-zh. Writes one object a line,
{"text", "source"}, without any label, and prints a table: source, documents, characters, licence.

What a set may be used for decides whether it is taken:
    open            public domain, a licence that permits reuse, or permission of the authors   always
    noncommercial   research only                                                               with --also noncommercial
    unstated        no licence is stated: nothing permits passing on what was made from it       with --also unstated
The last two are a decision of whoever publishes the model; its card must name them.

Training parts only. A text that also occurs in a dev or test file of the folders (whatever its case, signs and spaces) is left out,
also where a set has no split of its own. Long documents are cut at line ends into pieces of about PIECE characters.
Markup is undone; texts that are tokenised or lower-cased in their set stay so.
"""

import argparse
import csv
import html
import json
import re
import sys
import unicodedata
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import nano_opinions

PIECE = 2000
HELD_OUT = re.compile(r"(dev|test|valid|val)\b|(dev|test)_|\.(dev|test|valid)\b")
TEXT_FIELDS = ("text", "text_pair", "sentence", "sentence1", "sentence2", "content")


def lines_of(path, encoding="utf-8"):
    return path.read_text(encoding=encoding).split("\n")


def json_texts(path):
    """Every text field of every row, labels and all else ignored."""
    for line in lines_of(path):
        if line.strip():
            row = json.loads(line)
            yield from (row[name] for name in TEXT_FIELDS if name in row)


def jsonl(name):
    return lambda folder: json_texts(folder / name)


def news(folder):
    """ "#39;" is what is left of "&#39;"."""
    for text in json_texts(folder / "train.jsonl"):
        text = html.unescape(html.unescape(re.sub(r" ?#(\d+);", r"&#\1;", text)))
        yield re.sub(r"<[^<>]*>", " ", text).replace("\\", " ")


def labelled_lines(name, encoding="utf-8"):
    """A label, a space, a text."""
    return lambda folder: (line.partition(" ")[2] for line in lines_of(folder / name, encoding))


def paragraphs(name, clean=lambda text: text):
    return lambda folder: re.split(r"\n\s*\n", clean((folder / name).read_text(encoding="utf-8")))


def whole(name, clean=lambda text: text):
    """One document, to be cut into pieces."""
    return lambda folder: [clean((folder / name).read_text(encoding="utf-8"))]


def zipped(name, pattern, clean=lambda text: text):
    """Every file of an archive whose path matches, one document each."""

    def texts(folder):
        with zipfile.ZipFile(folder / name) as archive:
            for path in sorted(archive.namelist()):
                if re.fullmatch(pattern, path):
                    data = archive.read(path)
                    try:
                        text = data.decode("utf-8")
                    except UnicodeDecodeError:
                        text = data.decode("latin-1")
                    yield clean(text)

    return texts


def quotes(text):
    return text.replace("``", '"').replace("''", '"')


def play(text):
    """The speeches of a play in XML, each its speaker and lines."""
    speeches = []
    for speech in re.findall(r"<SPEECH>(.*?)</SPEECH>", text, re.S):
        speakers = re.findall(r"<SPEAKER>(.*?)</SPEAKER>", speech)
        lines = re.findall(r"<LINE>(.*?)</LINE>", re.sub(r"<STAGEDIR>.*?</STAGEDIR>", "", speech, flags=re.S), re.S)
        lines = [html.unescape(" ".join(line.split())) for line in lines]
        speeches.append("\n".join([", ".join(speakers) + ":", *lines]))
    return "\n\n".join(speeches)


def wiki(folder):
    """Wikipedia without headings, without the sentences that have an unknown word."""
    for line in lines_of(folder / "valid.txt"):
        if line.strip() and not line.strip().startswith("="):
            line = re.sub(r" @(.)@ ", r"\1", line.strip())
            sentences = re.split(r"(?<= [.!?]) ", line)
            yield " ".join(sentence for sentence in sentences if "<unk>" not in sentence)


class Paragraphs(HTMLParser):
    """The paragraphs of a page (HTML or Mallard), whatever is inside them in one line; no code, no headings."""

    IGNORED = {"pre", "code", "script", "style", "screen"}

    def __init__(self):
        super().__init__()
        self.found, self.open, self.ignored = [], None, 0

    def handle_starttag(self, tag, attrs):
        if tag == "p":
            self.open = ""
        self.ignored += tag in self.IGNORED

    def handle_endtag(self, tag):
        self.ignored -= tag in self.IGNORED
        if tag == "p" and self.open:
            self.found.append(" ".join(self.open.split()))
            self.open = None

    def handle_data(self, data):
        if self.open is not None and not self.ignored:
            self.open += data


def is_chinese(text):
    """Most of it Han characters: translations keep paragraphs that nobody has translated."""
    return sum("\u4e00" <= character <= "\u9fff" for character in text) > len(text) / 2


def manual(pattern):
    """The Chinese paragraphs of every page of a manual, one document a page."""

    def texts(folder):
        for path in sorted(folder.glob(pattern)):
            parser = Paragraphs()
            parser.feed(path.read_text(encoding="utf-8"))
            yield "\n".join(filter(is_chinese, parser.found))

    return texts


def own(folder):
    for path in sorted(folder.glob("*.txt")):
        yield from re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))


PUBLIC = "public domain"
NONE = "none stated"
# name, folder, texts, class, licence
SOURCES = [
    ("brown", "lm_text", paragraphs("brown.train.txt", quotes), "open", "redistribution permitted (Brown corpus)"),
    ("inaugural", "lm_text", zipped("inaugural.zip", r".*/\d.*\.txt"), "open", f"{PUBLIC} (US government)"),
    ("state_union", "lm_text", zipped("state_union.zip", r".*/\d.*\.txt"), "open", f"{PUBLIC} (US government)"),
    ("genesis", "lm_text", zipped("genesis.zip", r".*/english-(kjv|web)\.txt"), "open", PUBLIC),
    ("shakespeare", "lm_text", zipped("shakespeare.zip", r".*\.xml", play), "open", PUBLIC),
    ("tinyshakespeare", "tinyshakespeare", whole("input.txt"), "open", PUBLIC),
    ("wikitext2", "wikitext2", wiki, "open", "CC BY-SA"),
    ("movie_reviews", "movie_reviews", zipped("movie_reviews.zip", r".*/cv.*\.txt"), "open", "by permission of the authors"),
    ("text-zh", "text-zh", own, "open", "written for this project"),
    ("opinions", None, lambda _: nano_opinions.documents(), "open", "written for this project (nano_opinions.py)"),
    *(
        (package, package, manual(pattern), "open", licence)
        for package, pattern, licence in (
            ("gnome-user-docs", "**/zh_CN/**/*.page", "CC BY-SA 3.0"),
            ("debian-reference-zh-cn", "**/*.zh-cn.html", "GPL-2+"),
            ("debian-faq-zh-cn", "**/*.zh-cn.html", "GPL-2+"),
            ("maint-guide-zh-cn", "**/*.zh-cn.html", "GPL-2+"),
            ("libreoffice-help-zh-cn", "**/zh-CN/**/*.html", "MPL-2.0"),
        )
    ),
    ("ag_news", "ag_news", news, "noncommercial", "non-commercial research"),
    ("sst2", "sst2", jsonl("train.jsonl"), "unstated", NONE),
    ("sst5", "sst5", labelled_lines("stsa.fine.train"), "unstated", NONE),
    ("subj", "subj", labelled_lines("subj.all", "latin-1"), "unstated", NONE),
    ("trec", "trec", jsonl("train.jsonl"), "unstated", NONE),
    ("rte", "rte", jsonl("train.jsonl"), "unstated", NONE),
    ("chnsenticorp", "chnsenticorp", jsonl("train.jsonl"), "unstated", NONE),
    ("waimai", "waimai", jsonl("train.jsonl"), "unstated", NONE),
    *(
        (f"fewclue/{name}", f"fewclue/{name}", jsonl(file), "unstated", NONE)
        for name, file in (
            ("eprstmt", "train.jsonl"),
            ("tnews", "train.jsonl"),
            ("csldcp", "train_few_all.json"),
            ("ocnli", "train_few_all.json"),
            ("bustm", "train_few_all.json"),
            ("cluewsc", "train_few_all.json"),
        )
    ),
]


def key(text):
    """Letters and digits alone, so that neither case nor signs nor spaces hide a repetition."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).lower())


def held_out_texts(path):
    """The texts of a dev or test file, whatever its format."""
    if path.suffix in (".jsonl", ".json"):
        return json_texts(path)
    if path.suffix == ".tsv":
        rows = csv.reader(lines_of(path), delimiter="\t", quoting=csv.QUOTE_NONE)
        return (cell for row in rows for cell in row)
    return (part for line in lines_of(path, "latin-1") for part in (line, line.partition(" ")[2]))


def held_out(folders):
    """Keys of every text that must not be learnt from. Short ones say nothing: anybody writes "very good"."""
    keys = set()
    names = {folder.split("/")[0] for _, folder, *_ in SOURCES if folder}
    for folder in folders:
        # the labelled sets of this repository are no sources, but are held out as well
        sets = names | {task.parent.name for task in folder.glob("*/task.toml")}
        for path in sorted(path for name in sets for path in (folder / name).rglob("*") if path.is_file()):
            is_source = path.parent.name == "wikitext2" and path.name == "valid.txt"
            is_original = (path.parent.name, path.name) == ("ag_news", "dev.tsv")  # train.jsonl is drawn from it
            if HELD_OUT.search(path.name) and path.suffix not in (".zip", ".gz") and not is_source and not is_original:
                keys.update(key(text) for text in held_out_texts(path))
    keys.discard("")
    return keys


def pieces(text):
    """A text cut at line ends, if it can be at a blank line, into pieces of about PIECE characters."""
    found, piece = [], ""
    for line in text.split("\n"):
        room = PIECE - len(piece)
        if piece.strip() and (room < len(line) or (not line and room < PIECE / 4)):
            found.append(piece)
            piece = ""
        piece += line + "\n"
    return [piece.strip() for piece in [*found, piece]]


def tidy(text):
    lines = (" ".join(line.split()) for line in text.replace("\r\n", "\n").split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def collect(folders, classes):
    """Rows {"text", "source"}, and for the table of each source: documents, characters, left out, class, licence."""
    forbidden, seen = held_out(folders), set()
    rows, table = [], []
    for name, folder, texts, kind, licence in SOURCES:
        # what is made by a program needs no folder
        found = [base / folder for base in folders if (base / folder).is_dir()] if folder else [None]
        documents, left_out = [], 0
        for path in found if kind in classes else []:
            for text in texts(path):
                for piece in pieces(tidy(text)):
                    if not key(piece) or key(piece) in seen:
                        continue
                    seen.add(key(piece))
                    if key(piece) in forbidden:
                        left_out += 1
                    else:
                        documents.append(piece)
        rows += ({"text": text, "source": name} for text in documents)
        table.append((name, len(documents), sum(map(len, documents)), left_out, kind, licence, bool(found)))
    return rows, table


def print_table(table, classes):
    print(f"{'source':24}{'documents':>10}{'characters':>12}{'held out':>10}  licence")
    for name, n, characters, left_out, kind, licence, found in table:
        note = "" if kind in classes else f"  (not taken: {kind})"
        note = note if found else "  (not there)"
        print(f"{name:24}{n:10}{characters:12}{left_out:10}  {licence}{note}")
    print(f"{'sum':24}{sum(row[1] for row in table):10}{sum(row[2] for row in table):12}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.jsonl")
    parser.add_argument("--also", action="append", default=[], choices=["noncommercial", "unstated"])
    arguments = parser.parse_args()
    for folder in arguments.folders:
        if not folder.is_dir():
            parser.error(f"{folder} is not a folder")
    classes = {"open", *arguments.also}
    rows, table = collect(arguments.folders, classes)
    if not rows:
        sys.exit("no text was found; is FOLDER the one that has the data sets' folders in it?")
    with open(arguments.out, "w", encoding="utf-8", newline="\n") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    print_table(table, classes)


if __name__ == "__main__":
    main()
