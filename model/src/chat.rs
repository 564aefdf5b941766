//! Chat templates: how a model that follows instructions is told who says what.
//!
//! A model folder brings its template as Jinja, in `tokenizer_config.json` (`chat_template`: a string, or a list of named
//! ones of which `default` is meant) or in a file `chat_template.jinja`; a GGUF file in its metadata. It is rendered in a
//! sandbox (`minijinja`) with what transformers' `apply_chat_template` gives it: `messages`, `add_generation_prompt`,
//! `bos_token`, `eos_token`, `raise_exception`, `tojson`, `break` and `continue`, Python's string methods, and blocks whose
//! lines vanish. What it does not have: `strftime_now`, which makes a prompt of today another one tomorrow (templates that
//! ask whether it is defined write their own date), and `{% generation %}`, which marks what is trained.

use std::io::{self, Write};
use std::path::Path;

use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter};
use tensor::Checkpoint;
use tensor::gguf::Value as Stored;

use crate::read::Keys;
use crate::tokenizer::special_token;
use crate::{Error, Result};

/// The chat template of a model.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    bos: String,
    eos: String,
}

/// What one side says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What is said.
    pub content: String,
}

#[derive(Serialize)]
struct Context<'a> {
    messages: &'a [Message],
    add_generation_prompt: bool,
    bos_token: &'a str,
    eos_token: &'a str,
}

impl ChatTemplate {
    /// The template of a model folder or GGUF file; `None` when it has none.
    ///
    /// # Errors
    /// A file that is there cannot be read.
    pub fn open(folder: &Path) -> Result<Option<ChatTemplate>> {
        if folder.is_file() {
            return of_gguf(folder);
        }
        let file = folder.join("chat_template.jinja");
        let source = match file.is_file() {
            true => Some(std::fs::read_to_string(&file).map_err(|source| Error::Io { path: file, source })?),
            false => of_config(&folder.join("tokenizer_config.json"))?,
        };
        let Some(source) = source else { return Ok(None) };
        let token = |key| Ok::<_, Error>(special_token(folder, key)?.unwrap_or_default());
        Ok(Some(ChatTemplate { source, bos: token("bos_token")?, eos: token("eos_token")? }))
    }

    /// A template as text, for a model with these special tokens.
    pub fn new(source: &str, bos: &str, eos: &str) -> ChatTemplate {
        ChatTemplate { source: source.into(), bos: bos.into(), eos: eos.into() }
    }

    /// The conversation as the model reads it, up to where the assistant speaks next.
    ///
    /// # Errors
    /// The template is malformed, or refuses the messages (some know no system message).
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |why: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, why))
        });
        environment.add_filter("tojson", to_json);
        let context =
            Context { messages, add_generation_prompt: true, bos_token: &self.bos, eos_token: &self.eos };
        let rendered = environment.render_str(&self.source, context);
        rendered.map_err(|e| Error::Chat(e.to_string().replace('\n', "; ")))
    }
}

/// As transformers defines it, in the place of jinja's: `json.dumps`, with nothing escaped for HTML.
fn to_json(value: &minijinja::Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "tojson cannot write ASCII only"));
    }
    options.assert_all_used()?;
    let failed = |e: serde_json::Error| minijinja::Error::new(ErrorKind::InvalidOperation, e.to_string());
    let json = match indent {
        Some(n) => json_as(value, PrettyFormatter::with_indent(" ".repeat(n).as_bytes())),
        None => json_as(value, Spaced),
    };
    String::from_utf8(json.map_err(failed)?)
        .map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

fn json_as(value: &minijinja::Value, formatter: impl Formatter) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, formatter))?;
    Ok(json)
}

/// JSON on one line as Python writes it: a space after each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// `chat_template` of a `tokenizer_config.json`.
fn of_config(path: &Path) -> Result<Option<String>> {
    if !path.is_file() {
        return Ok(None);
    }
    let keys = Keys::open(path)?;
    let named = |list: &Vec<Value>| {
        let default = |item: &&Value| item.get("name").and_then(Value::as_str) == Some("default");
        let item = list.iter().find(default).or(list.first());
        item.and_then(|item| item.get("template")).and_then(Value::as_str).map(String::from)
    };
    Ok(match keys.get("chat_template") {
        Some(Value::String(source)) => Some(source.clone()),
        Some(Value::Array(list)) => named(list),
        _ => None,
    })
}

fn of_gguf(path: &Path) -> Result<Option<ChatTemplate>> {
    let checkpoint = Checkpoint::open_gguf(path)?;
    let Some(metadata) = checkpoint.metadata() else { return Ok(None) };
    let Some(Stored::Text(source)) = metadata.get("tokenizer.chat_template") else { return Ok(None) };
    let tokens = metadata.array("tokenizer.ggml.tokens").unwrap_or_default();
    let token = |name: &str| match metadata.get(&format!("tokenizer.ggml.{name}_token_id")) {
        Some(Stored::Unsigned(id)) => match tokens.get(id as usize) {
            Some(Stored::Text(token)) => *token,
            _ => "",
        },
        _ => "",
    };
    Ok(Some(ChatTemplate::new(source, token("bos"), token("eos"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(roles: &[(&'static str, &str)]) -> Vec<Message> {
        roles.iter().map(|&(role, content)| Message { role, content: content.into() }).collect()
    }

    /// A form of its own, with the loop, the conditions and the trimming that real ones have.
    const MARKED: &str = "{{ bos_token }}{% for m in messages %}
    {%- if m['role'] == 'system' and not loop.first %}{{ raise_exception('system must come first') }}{% endif %}
<{{ m['role'] }}>{{ m['content'].strip() }}</>
{% endfor %}
{% if add_generation_prompt %}
<assistant>
{%- endif %}";

    #[test]
    fn messages_are_marked_as_the_template_says() {
        let chat = ChatTemplate::new(MARKED, "<s>", "</s>");
        let rendered = chat.render(&messages(&[("system", "Be kind."), ("user", " Hi {{ x }} ")])).unwrap();
        assert_eq!(rendered, "<s><system>Be kind.</>\n<user>Hi {{ x }}</>\n<assistant>");
        let error = chat.render(&messages(&[("user", "a"), ("system", "b")])).unwrap_err().to_string();
        assert!(error.contains("system must come first") && !error.contains('\n'), "{error}");
        let error = ChatTemplate::new("{% for %}", "", "").render(&[]).unwrap_err().to_string();
        assert!(error.starts_with("chat template: ") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn where_a_folder_keeps_its_template() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let open = || ChatTemplate::open(folder.path()).unwrap();
        assert!(open().is_none());
        write(
            "tokenizer_config.json",
            r#"{"bos_token": {"content": "<s>"}, "chat_template": "a{{ bos_token }}"}"#,
        );
        assert_eq!(open().unwrap().render(&[]).unwrap(), "a<s>");
        write(
            "tokenizer_config.json",
            r#"{"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]}"#,
        );
        assert_eq!(open().unwrap().render(&[]).unwrap(), "d");
        write("chat_template.jinja", "j");
        assert_eq!(open().unwrap().render(&[]).unwrap(), "j");
    }
}
