//! Finding a model: a folder, a GGUF file, one that comes with the repository, or a hub id through `hf-hub` and its cache.
//!
//! What comes with the repository (models, small labelled sets) is in its folder `data`, which is looked for in
//! `PROMPT_TUNING_DATA`, then above the program, then where the program was built.
//!
//! `HF_HOME` (where the cache is), `HF_ENDPOINT` (which server) and `HF_HUB_OFFLINE=1` (only the cache) are honoured.

use std::path::{Component, Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo};

use crate::error::{Error, Result};

/// Models that come with the repository, in `data/models`.
pub const DEFAULT_MODELS: [&str; 2] = ["nano", "nano-mlm"];

/// The folder or GGUF file of model `name`: itself when it is one, else a default model, else fetched from the hub into the
/// cache.
///
/// # Errors
/// There is no such folder or file and the name is neither a default model nor a hub id, or the hub cannot be reached.
pub fn model_folder(name: &str) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.is_dir() {
        return Ok(path.to_path_buf());
    }
    if path.is_file() {
        if name.ends_with(".gguf") {
            return Ok(path.to_path_buf());
        }
        let what =
            "a file that is no .gguf is not a model; give a folder in Hugging Face layout, or a .gguf file";
        return Err(Error::Input(format!("--model `{name}`: {what}")));
    }
    if DEFAULT_MODELS.contains(&name) {
        return default_model(name);
    }
    if !is_hub_id(name) {
        return Err(Error::Input(format!(
            "--model `{name}`: no such folder or .gguf file, not a hub id (`owner/name`), and not one of {}",
            DEFAULT_MODELS.join(", ")
        )));
    }
    fetch(name)
}

/// The folder of a model that comes with the repository.
fn default_model(name: &str) -> Result<PathBuf> {
    data_folder("models").map(|models| models.join(name)).and_then(|folder| match folder.is_dir() {
        true => Ok(folder),
        false => Err(Error::Input(format!("--model {name}: `{}` is not there", folder.display()))),
    })
}

/// A folder in `data` of the repository, as `sentiment` or `models`.
///
/// # Errors
/// It is in none of the places where it is looked for.
pub fn data_folder(name: &str) -> Result<PathBuf> {
    let found: Vec<PathBuf> = data_folders().into_iter().map(|data| data.join(name)).collect();
    found.iter().find(|folder| folder.is_dir()).cloned().ok_or_else(|| {
        let looked: Vec<String> = found.iter().map(|folder| folder.display().to_string()).collect();
        Error::Input(format!(
            "the folder data/{name} of the repository was not found (looked for {}); set PROMPT_TUNING_DATA to its data folder",
            looked.join(", ")
        ))
    })
}

/// Where `data` of the repository may be.
fn data_folders() -> Vec<PathBuf> {
    let named = std::env::var_os("PROMPT_TUNING_DATA").map(PathBuf::from);
    let program = std::env::current_exe().unwrap_or_default();
    let above = program.ancestors().skip(1).map(|folder| folder.join("data"));
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("data");
    named.into_iter().chain(above.filter(|folder| folder.is_dir())).chain([built]).collect()
}

/// `owner/name`, each of letters, digits, `-`, `_` and `.`, and not something that starts like a path.
fn is_hub_id(name: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && !p.starts_with('.')
            && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    matches!(name.split('/').collect::<Vec<_>>()[..], [owner, model] if part(owner) && part(model))
}

/// Fetches model `id` into the cache, where it is not there yet; returns its folder.
///
/// # Errors
/// A needed file is neither in the cache nor on the hub, or offline mode forbids asking.
pub fn fetch(id: &str) -> Result<PathBuf> {
    let source = Source::new(id)?;
    let config = source.need("config.json")?;
    for optional in
        ["generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"]
    {
        source.find(optional)?;
    }
    if source.find("model.safetensors")?.is_none() {
        let index = source.need("model.safetensors.index.json")?;
        for shard in shards(&index)? {
            source.need(&shard)?;
        }
    }
    let folder = config.parent().map(Path::to_path_buf);
    folder.ok_or_else(|| Error::Failure(format!("the cache of `{id}` has no folder")))
}

/// The files an index names.
fn shards(index: &Path) -> Result<Vec<String>> {
    let bad = |why: String| Error::Input(format!("shard index `{}`: {why}", index.display()));
    let text = std::fs::read_to_string(index).map_err(|e| bad(e.to_string()))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| bad("it has no `weight_map`".into()))?;
    let mut files: Vec<String> = map.values().filter_map(|v| v.as_str().map(str::to_string)).collect();
    let plain = |file: &String| Path::new(file).components().all(|c| matches!(c, Component::Normal(_)));
    if let Some(file) = files.iter().find(|file| !plain(file)) {
        return Err(bad(format!("`{file}` leaves the model folder")));
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// Where files of one model come from.
enum Source {
    Hub(Box<ApiRepo>, String),
    Cache(CacheRepo, String),
}

impl Source {
    fn new(id: &str) -> Result<Source> {
        let offline =
            std::env::var("HF_HUB_OFFLINE").is_ok_and(|v| !matches!(v.as_str(), "" | "0" | "false"));
        if offline {
            return Ok(Source::Cache(Cache::from_env().repo(Repo::model(id.into())), id.into()));
        }
        let api = ApiBuilder::from_env().build();
        let api = api.map_err(|e| Error::Failure(format!("cannot prepare the hub client: {e}")))?;
        Ok(Source::Hub(Box::new(api.model(id.into())), id.into()))
    }

    fn get(&self, file: &str) -> std::result::Result<PathBuf, String> {
        match self {
            Source::Hub(repo, _) => repo.get(file).map_err(|e| e.to_string()),
            Source::Cache(repo, _) => {
                repo.get(file).ok_or_else(|| "not in the cache, and HF_HUB_OFFLINE is set".into())
            }
        }
    }

    /// The file, or `None` when the hub says (or the cache shows) that there is none.
    fn find(&self, file: &str) -> Result<Option<PathBuf>> {
        match (self.get(file), self) {
            (Ok(path), _) => Ok(Some(path)),
            (Err(_), Source::Cache(..)) => Ok(None),
            (Err(why), _) if why.contains("404") => Ok(None),
            (Err(_), _) => self.need(file).map(Some),
        }
    }

    fn need(&self, file: &str) -> Result<PathBuf> {
        let (Source::Hub(_, id) | Source::Cache(_, id)) = self;
        let hint = "check the id and the connection, or give a local folder; of a repository of GGUF files, download one and \
                    give it";
        self.get(file).map_err(|why| Error::Failure(format!("cannot get `{file}` of `{id}`: {why}; {hint}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_are_told_from_paths() {
        assert!(is_hub_id("HuggingFaceTB/SmolLM2-135M"));
        for path in ["./gpt2", "../a/b", "/models/x", "a/b/c", "gpt2", "a/", "~/x"] {
            assert!(!is_hub_id(path), "{path}");
        }
    }
}
