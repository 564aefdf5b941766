//! The tokenizer in a GGUF file, as the `tokenizer.json` that the `tokenizers` library reads.
//!
//! Two kinds are there. `gpt2` is byte-level BPE with its merges, where the file only *names* the pattern that splits a text
//! first. `llama` is SentencePiece BPE: pieces with scores, no merges; two pieces are joined where their union is a piece,
//! the one with the best score first, so every such pair is a merge, in the order of scores.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value as Json, json};
use tensor::Checkpoint;
use tensor::gguf::{Metadata, Value};

use crate::{Error, Result};

/// ggml's kinds of tokens.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// How Llama 3 splits a text; Qwen2 differs in the number of digits.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How SentencePiece spells a space.
const WORD_START: &str = "\u{2581}";

/// A tokenizer and what is said about its tokens.
pub(crate) struct Parts {
    pub(crate) inner: tokenizers::Tokenizer,
    /// Ends a text.
    pub(crate) eos: Option<u32>,
    /// Stands for what the vocabulary does not know.
    pub(crate) unknown: Option<u32>,
}

/// The tokenizer of a GGUF file.
///
/// # Errors
/// The file has none, or one of a kind that is not known.
pub(crate) fn tokenizer(path: &Path) -> Result<Parts> {
    let checkpoint = Checkpoint::open_gguf(path)?;
    let wrong = |why: String| Error::Tokenizer { path: path.into(), why };
    let metadata = checkpoint.metadata().ok_or_else(|| wrong("it has no metadata".into()))?;
    let vocabulary = Vocabulary::read(metadata).map_err(wrong)?;
    let bytes = serde_json::to_vec(&vocabulary.json().map_err(wrong)?).map_err(|e| wrong(e.to_string()))?;
    let inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| wrong(e.to_string()))?;
    let eos = vocabulary.id("eos");
    Ok(Parts { inner, eos, unknown: vocabulary.id("unknown").filter(|&id| Some(id) != eos) })
}

/// Tokens and what is said about them.
struct Vocabulary<'a> {
    metadata: &'a Metadata,
    tokens: Vec<&'a str>,
    /// One of ggml's kinds each.
    kinds: Vec<u64>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Vocabulary<'a>, String> {
        let tokens = strings(metadata, "tokenizer.ggml.tokens")?
            .ok_or("it has no `tokenizer.ggml.tokens`; give token ids instead of text")?;
        let whole = |v: Value| match v {
            Value::Unsigned(n) => Some(n),
            Value::Signed(n) => u64::try_from(n).ok(),
            _ => None,
        };
        let kinds = match metadata.array("tokenizer.ggml.token_type") {
            None => vec![1; tokens.len()],
            Some(kinds) => kinds.into_iter().map(whole).collect::<Option<Vec<u64>>>().unwrap_or_default(),
        };
        if kinds.len() != tokens.len() {
            return Err(format!(
                "`tokenizer.ggml.token_type` does not give {} kinds, one for each token",
                tokens.len()
            ));
        }
        Ok(Vocabulary { metadata, tokens, kinds })
    }

    /// The id of a special token, if it is there.
    fn id(&self, name: &str) -> Option<u32> {
        match self.metadata.get(&format!("tokenizer.ggml.{name}_token_id"))? {
            Value::Unsigned(id) if (id as usize) < self.tokens.len() => Some(id as u32),
            _ => None,
        }
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        match self.metadata.get(&format!("tokenizer.ggml.{name}")) {
            Some(Value::Bool(flag)) => flag,
            _ => default,
        }
    }

    fn json(&self) -> Result<Json, String> {
        match self.metadata.get("tokenizer.ggml.model") {
            Some(Value::Text("gpt2")) => self.byte_level(),
            Some(Value::Text("llama")) => self.sentence_piece(),
            Some(other) => {
                Err(format!("`tokenizer.ggml.model` {other} is not supported; \"gpt2\" and \"llama\" are"))
            }
            None => Err("it has no `tokenizer.ggml.model`; give token ids instead of text".into()),
        }
    }

    fn byte_level(&self) -> Result<Json, String> {
        let merges =
            strings(self.metadata, "tokenizer.ggml.merges")?.ok_or("it has no `tokenizer.ggml.merges`")?;
        let pair = |merge: &&str| match merge.split_once(' ') {
            Some((left, right)) => Ok(json!([left, right])),
            None => Err(format!("the merge {merge:?} has no space")),
        };
        let merges = merges.iter().map(pair).collect::<Result<Vec<Json>, String>>()?;
        let pattern = match self.metadata.get("tokenizer.ggml.pre") {
            Some(Value::Text(name)) => name,
            _ => "gpt-2",
        };
        let bytes = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
        let first_split = |regex: &str| {
            let split = json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false });
            json!({ "type": "Sequence", "pretokenizers": [split, bytes(false)] })
        };
        let pre_tokenizer = match pattern {
            "gpt-2" | "gpt2" => bytes(true),
            "smollm" => {
                let digits = json!({ "type": "Digits", "individual_digits": true });
                json!({ "type": "Sequence", "pretokenizers": [digits, bytes(true)] })
            }
            "llama-bpe" | "llama3" | "llama-v3" => first_split(LLAMA_3),
            "qwen2" => first_split(QWEN_2),
            other => {
                return Err(format!(
                    "`tokenizer.ggml.pre` {other:?} is not supported; gpt-2, smollm, llama-bpe and qwen2 are: give token ids \
                     instead of text"
                ));
            }
        };
        let llama_3 = matches!(pattern, "llama-bpe" | "llama3" | "llama-v3");
        Ok(json!({
            "version": "1.0",
            "added_tokens": self.added(),
            "normalizer": if pattern == "qwen2" { json!({ "type": "NFC" }) } else { Json::Null },
            "pre_tokenizer": pre_tokenizer,
            "post_processor": self.post_processor(llama_3),
            "decoder": bytes(true),
            "model": self.bpe(merges, json!({ "ignore_merges": llama_3 })),
        }))
    }

    fn sentence_piece(&self) -> Result<Json, String> {
        let scores = self.metadata.array("tokenizer.ggml.scores").unwrap_or_default();
        let number = |v: &Value| if let Value::Float(x) = v { Some(*x) } else { None };
        let scores = scores.iter().map(number).collect::<Option<Vec<f64>>>().unwrap_or_default();
        if scores.len() != self.tokens.len() {
            return Err(format!(
                "`tokenizer.ggml.scores` does not give {} scores, one for each token",
                self.tokens.len()
            ));
        }
        let unknown = self.kinds.iter().position(|&kind| kind == UNKNOWN).map(|id| self.tokens[id]);
        let prefix = self.flag("add_space_prefix", true);
        let mut normalizers = vec![];
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": WORD_START }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if prefix {
            normalizers.push(json!({ "type": "Prepend", "prepend": WORD_START }));
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        normalizers.push(json!({ "type": "Replace", "pattern": { "String": " " }, "content": WORD_START }));
        let more = json!({ "unk_token": unknown, "fuse_unk": true, "byte_fallback": true });
        Ok(json!({
            "version": "1.0",
            "added_tokens": self.added(),
            "normalizer": { "type": "Sequence", "normalizers": normalizers },
            "pre_tokenizer": null,
            "post_processor": self.post_processor(true),
            "decoder": { "type": "Sequence", "decoders": decoders },
            "model": self.bpe(self.merges(&scores), more),
        }))
    }

    fn bpe(&self, merges: Vec<Json>, more: Json) -> Json {
        let vocab: serde_json::Map<String, Json> =
            self.tokens.iter().zip(0..).map(|(token, id)| (token.to_string(), json!(id))).collect();
        let mut model = json!({ "type": "BPE", "vocab": vocab, "merges": merges });
        if let (Json::Object(model), Json::Object(more)) = (&mut model, more) {
            model.extend(more);
        }
        model
    }

    /// Tokens that are found in a text before anything else is done to it.
    fn added(&self) -> Vec<Json> {
        let added = |(id, (token, kind)): (usize, (&&str, &u64))| {
            let special = matches!(*kind, CONTROL | UNKNOWN);
            (special || *kind == USER_DEFINED).then(|| {
                json!({
                    "id": id, "content": token, "special": special,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
        };
        self.tokens.iter().zip(&self.kinds).enumerate().filter_map(added).collect()
    }

    /// What is put around a text with special tokens.
    fn post_processor(&self, begins: bool) -> Json {
        let special = |id: u32| json!({ "SpecialToken": { "id": self.tokens[id as usize], "type_id": 0 } });
        let bos = self.id("bos").filter(|_| self.flag("add_bos_token", begins));
        let eos = self.id("eos").filter(|_| self.flag("add_eos_token", false));
        if bos.or(eos).is_none() {
            return Json::Null;
        }
        let around = |name: &str, type_id: u32| {
            let text = json!({ "Sequence": { "id": name, "type_id": type_id } });
            bos.map(special).into_iter().chain([text]).chain(eos.map(special)).collect::<Vec<Json>>()
        };
        let tokens = bos.into_iter().chain(eos).map(|id| {
            let token = self.tokens[id as usize];
            (token.to_string(), json!({ "id": token, "ids": [id], "tokens": [token] }))
        });
        let pair = [around("A", 0), around("B", 1)].concat();
        json!({
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": pair,
            "special_tokens": tokens.collect::<serde_json::Map<String, Json>>(),
        })
    }

    /// Every pair of pieces whose union is one: the best score first, then the longest left piece, then the longest right.
    fn merges(&self, scores: &[f64]) -> Vec<Json> {
        let ids: HashMap<&str, usize> = self.tokens.iter().zip(0..).map(|(token, id)| (*token, id)).collect();
        let mut all = Vec::new();
        for (token, &score) in self.tokens.iter().zip(scores) {
            let mut here = Vec::new();
            for (left, right) in token.char_indices().skip(1).map(|(at, _)| token.split_at(at)) {
                if let (Some(l), Some(r)) = (ids.get(left), ids.get(right)) {
                    here.push(((l, r), left, right));
                }
            }
            here.sort_by_key(|&(ids, ..)| ids);
            all.extend(here.into_iter().map(|(_, l, r)| (score, l, r)));
        }
        let length = |text: &str| text.chars().count();
        all.sort_by(|a, b| {
            b.0.total_cmp(&a.0).then_with(|| (length(b.1), length(b.2)).cmp(&(length(a.1), length(a.2))))
        });
        all.into_iter().map(|(_, l, r)| json!([l, r])).collect()
    }
}

/// The strings of an array, if it is there.
fn strings<'a>(metadata: &'a Metadata, key: &str) -> Result<Option<Vec<&'a str>>, String> {
    let Some(values) = metadata.array(key) else { return Ok(None) };
    let text = |v: Value<'a>| match v {
        Value::Text(text) => Ok(text),
        other => Err(format!("`{key}` holds {other}, but must hold strings")),
    };
    values.into_iter().map(text).collect::<Result<_, _>>().map(Some)
}
