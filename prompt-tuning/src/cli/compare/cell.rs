//! One cell: its files, the commands that measure it, and what they said.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Other;
use super::child::{self, Words};
use super::setup::Setup;
use super::watch::Watch;
use crate::atomic;
use crate::compare::plan::{How, PlannedCell};
use crate::compare::{Cell, Kind, Side, Training, share_right, subset};
use crate::data::{Dataset, Example};
use crate::error::{Error, Result};
use crate::task::DEFAULT_WORDING;
use crate::train::run_folder::Existing;

/// Most training rows that are asked again to see how well they are known.
const ASKED_AGAIN: usize = 200;

/// The folder of a comparison, and how its cells are measured.
pub(super) struct Cells<'a> {
    setup: &'a Setup<'a>,
    folder: PathBuf,
}

/// What is measured of a cell: the model, and what stands in front of its texts.
struct Subject {
    model: String,
    prompt: Option<PathBuf>,
}

impl<'a> Cells<'a> {
    /// The folder, empty or with cells of the same comparison.
    ///
    /// # Errors
    /// It has something else in it, or cannot be written.
    pub(super) fn open(setup: &'a Setup<'a>, existing: Existing) -> Result<Cells<'a>> {
        let args = setup.args;
        let folder = args.out.join("cells");
        if folder.exists() {
            match existing {
                Existing::Keep => {
                    return Err(Error::Input(format!(
                        "`{}` has a comparison; continue it with --resume or replace it with --overwrite",
                        args.out.display()
                    )));
                }
                Existing::Overwrite => {
                    std::fs::remove_dir_all(&folder).map_err(|e| Error::write(&folder, e))?;
                }
                Existing::Resume => {}
            }
        }
        atomic::prepare_folder(&folder)?;
        let cells = Cells { setup, folder };
        cells.check_same()?;
        cells.write_rows("measured.jsonl", &setup.data, None)?;
        Ok(cells)
    }

    /// That what is continued is the same comparison. Methods, sizes and seeds may be added.
    fn check_same(&self) -> Result<()> {
        let path = self.folder.join("inputs");
        let now = self.fingerprint()?;
        match std::fs::read_to_string(&path) {
            Ok(before) if before == now => Ok(()),
            Ok(_) => Err(Error::Input(format!(
                "`{}` has a comparison of another model, task, data, text or budget; choose another --out or use --overwrite",
                self.setup.args.out.display()
            ))),
            Err(_) => atomic::write(&path, now.as_bytes()),
        }
    }

    /// Names model, task, data, texts, budget, threads and program: seconds of different ones are not compared.
    fn fingerprint(&self) -> Result<String> {
        let args = self.setup.args;
        let mut hash = Sha256::new();
        hash.update(&self.setup.fingerprint);
        let others = args.other.iter().flat_map(|other| [&other.task, &other.data]);
        for path in [&args.task, &args.train, &args.data].into_iter().chain(others) {
            hash.update(std::fs::read(path).map_err(|e| Error::read(path, e))?);
        }
        let common = &args.common;
        let budget = (args.steps, args.batch, args.max_rows, common.threads);
        // a longer prompt among the methods leaves less room for the text in front of which it stands
        hash.update(format!("{budget:?} {} {}", self.setup.context, env!("CARGO_PKG_VERSION")));
        hash.update(common.arithmetic());
        Ok(format!("{:x}", hash.finalize()))
    }

    /// What the model does without adaptation.
    pub(super) fn before(&self, watch: &mut dyn Watch) -> Result<Side> {
        let path = self.folder.join("before.json");
        if path.exists() {
            return atomic::read_json(&path);
        }
        let subject = Subject { model: self.setup.args.model.clone(), prompt: None };
        let side = self.side(&subject, watch)?;
        atomic::write_json(&path, &side)?;
        Ok(side)
    }

    /// The cell, if it was measured before.
    pub(super) fn kept(&self, planned: PlannedCell) -> Result<Option<Cell>> {
        let path = self.path(planned);
        path.exists().then(|| atomic::read_json(&path)).transpose()
    }

    /// Measures the cell, and keeps it.
    pub(super) fn measure(&self, planned: PlannedCell, watch: &mut dyn Watch) -> Result<Cell> {
        let start = Instant::now();
        let mut cell = match &self.setup.methods[planned.method].how {
            How::Shots(k) => self.asked(planned, *k, watch)?,
            How::Wordings => self.worded(planned, watch)?,
            How::Train(words) => self.trained(planned, words, watch)?,
        };
        cell.seconds = start.elapsed().as_secs_f64();
        atomic::write_json(&self.path(planned), &cell)?;
        Ok(cell)
    }

    fn path(&self, planned: PlannedCell) -> PathBuf {
        self.folder.join(self.setup.folder_name(planned) + ".json")
    }

    fn cell(&self, planned: PlannedCell, predicted: Vec<usize>) -> Cell {
        Cell {
            method: self.setup.methods[planned.method].name.clone(),
            n_train: planned.n_train,
            seed: planned.seed,
            predicted,
            train_accuracy: None,
            wording: None,
            training: None,
            after: Side::default(),
            seconds: 0.0,
        }
    }

    /// With demonstrations, or none.
    fn asked(&self, planned: PlannedCell, shots: u8, watch: &mut dyn Watch) -> Result<Cell> {
        let mut words = self.predict(
            &self.setup.args.model,
            None,
            &self.setup.args.task,
            &self.folder.join("measured.jsonl"),
        );
        if shots > 0 {
            words = words
                .option("--shots", shots.to_string())
                .option("--train", &self.setup.args.train)
                .option("--seed", planned.seed.to_string())
                .option("--policy", "drop-farthest");
        }
        Ok(self.cell(planned, self.labels(&words, watch)?))
    }

    /// With the wording that is best on the training rows; the first of equals.
    fn worded(&self, planned: PlannedCell, watch: &mut dyn Watch) -> Result<Cell> {
        let (train, gold) = self.training_rows(planned, "train", planned.n_train)?;
        let mut names = vec![DEFAULT_WORDING.to_string()];
        names.extend(self.setup.task.wordings.iter().map(|(name, _)| name.clone()));
        let mut best: Option<(f64, String, PathBuf)> = None;
        for name in names {
            let task = self.task_with_wording(&name)?;
            let predicted = self.labels(&self.predict(&self.setup.args.model, None, &task, &train), watch)?;
            let accuracy = share_right(&predicted, &gold);
            if best.as_ref().is_none_or(|(most, ..)| accuracy > *most) {
                best = Some((accuracy, name, task));
            }
        }
        let (accuracy, name, task) = best.expect("there is at least the template itself");
        let measured = self.folder.join("measured.jsonl");
        let predicted = self.labels(&self.predict(&self.setup.args.model, None, &task, &measured), watch)?;
        let cell = self.cell(planned, predicted);
        Ok(Cell { train_accuracy: Some(accuracy), wording: Some(name), ..cell })
    }

    /// Trained, then measured.
    fn trained(&self, planned: PlannedCell, how: &[String], watch: &mut dyn Watch) -> Result<Cell> {
        let args = self.setup.args;
        let (train, _) = self.training_rows(planned, "train", planned.n_train)?;
        let out = self.folder.join(self.setup.folder_name(planned));
        let mut words = Words::of("train")
            .option("--model", &args.model)
            .option("--task", &args.task)
            .option("--train", &train)
            .option("--out", &out)
            .option("--steps", args.steps.to_string())
            .option("--batch", args.batch.min(planned.n_train).to_string())
            .option("--seed", planned.seed.to_string())
            .word("--no-state")
            .word("--overwrite");
        let said = |name: &str| how.iter().any(|word| word.split('=').next() == Some(name));
        for (name, value) in [("--schedule", "linear"), ("--clip", "1")] {
            if !said(name) {
                words = words.option(name, value);
            }
        }
        words.0.extend(how.iter().map(Into::into));
        let lines = child::run(&self.common(words), |line| watch.line(line))?;
        let is_weights = self.setup.methods[planned.method].kind() == Kind::Weights;
        let subject = match is_weights {
            true => Subject { model: out.display().to_string(), prompt: None },
            false => Subject { model: args.model.clone(), prompt: Some(out.clone()) },
        };
        let training = training(lines.last(), &out)?;
        let predict = |data: &Path| self.predict(&subject.model, subject.prompt.as_deref(), &args.task, data);
        let predicted = self.labels(&predict(&self.folder.join("measured.jsonl")), watch)?;
        let (again, gold) = self.training_rows(planned, "again", ASKED_AGAIN)?;
        let known = share_right(&self.labels(&predict(&again), watch)?, &gold);
        // a classifier predicts no tokens: it has forgotten the language altogether
        let after = if said("--head") { Side::default() } else { self.side(&subject, watch)? };
        if is_weights && !args.keep {
            std::fs::remove_dir_all(&out).map_err(|e| Error::write(&out, e))?;
        }
        let cell = self.cell(planned, predicted);
        Ok(Cell { train_accuracy: Some(known), training: Some(training), after, ..cell })
    }

    fn predict(&self, model: &str, prompt: Option<&Path>, task: &Path, data: &Path) -> Words {
        let words =
            Words::of("predict").option("--model", model).option("--task", task).option("--data", data);
        self.common(words.maybe("--prompt", prompt))
    }

    /// What every command gets.
    fn common(&self, words: Words) -> Words {
        let common = &self.setup.args.common;
        let words = words.maybe("--threads", common.threads.map(|n| n.to_string()));
        common.options().into_iter().fold(words, |words, (name, value)| words.maybe(name, value))
    }

    /// Labels that `predict` prints.
    fn labels(&self, words: &Words, watch: &mut dyn Watch) -> Result<Vec<usize>> {
        let label = |line: &Value| {
            let label = line["label"].as_str().and_then(|name| self.setup.task.label(name));
            label
                .ok_or_else(|| Error::Failure(format!("predict said {line}, which has no label of the task")))
        };
        child::run(words, |line| watch.line(line))?.iter().map(label).collect()
    }

    /// Perplexity on general text, and accuracy on the other tasks.
    fn side(&self, subject: &Subject, watch: &mut dyn Watch) -> Result<Side> {
        let on = |words: Words| {
            self.common(words.option("--model", &subject.model).maybe("--prompt", subject.prompt.as_ref()))
        };
        let mut number = |words: Words, name: &str| {
            let lines = child::run(&words, |line| watch.line(line))?;
            let number = lines.last().and_then(|line| line[name].as_f64());
            number.ok_or_else(|| Error::Failure(format!("no `{name}` was said")))
        };
        let perplexity = match &self.setup.args.text[..] {
            [] => None,
            texts => {
                let words = on(Words::of("perplexity").option("--context", self.setup.context.to_string()));
                let words = texts.iter().fold(words.word("--text"), Words::word);
                Some(number(words, "perplexity")?)
            }
        };
        let accuracy = |other: &Other| {
            let words = on(Words::of("eval")).option("--task", &other.task).option("--data", &other.data);
            number(words.maybe("--max-rows", self.setup.args.max_rows.map(|n| n.to_string())), "accuracy")
        };
        Ok(Side { perplexity, others: self.setup.args.other.iter().map(accuracy).collect::<Result<_>>()? })
    }

    /// A file of the cell's training rows, no more than `most` of them, and their labels.
    fn training_rows(&self, planned: PlannedCell, name: &str, most: usize) -> Result<(PathBuf, Vec<usize>)> {
        let Setup { train, task, .. } = self.setup;
        let labels: Vec<usize> = train.rows.iter().filter_map(|e| e.label).collect();
        let n = planned.n_train.min(most);
        let drawn = subset::draw(&labels, task.labels().len(), n, planned.seed);
        let gold = drawn.iter().map(|&i| labels[i]).collect();
        let name = format!("{}.{name}.jsonl", self.setup.folder_name(planned));
        Ok((self.write_rows(&name, train, Some(&drawn))?, gold))
    }

    /// Rows as JSONL, in the order of `chosen`, or all.
    fn write_rows(&self, name: &str, data: &Dataset<Example>, chosen: Option<&[usize]>) -> Result<PathBuf> {
        let all: Vec<usize> = (0..data.rows.len()).collect();
        let mut text = String::new();
        for example in chosen.unwrap_or(&all).iter().map(|&i| &data.rows[i]) {
            let mut row: serde_json::Map<String, Value> =
                example.fields.iter().map(|(name, text)| (name.clone(), text.clone().into())).collect();
            let label = example.label.map(|label| self.setup.task.labels()[label].name.clone());
            row.insert("label".into(), label.into());
            text.push_str(&Value::Object(row).to_string());
            text.push('\n');
        }
        let path = self.folder.join(name);
        atomic::write(&path, text.as_bytes())?;
        Ok(path)
    }

    /// A task file with one of the wordings as its template.
    fn task_with_wording(&self, name: &str) -> Result<PathBuf> {
        if name == DEFAULT_WORDING {
            return Ok(self.setup.args.task.clone());
        }
        let path = &self.setup.args.task;
        let text = std::fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
        let mut task: toml::Table =
            text.parse().map_err(|e: toml::de::Error| Error::file(path, e.to_string()))?;
        let wordings = task.remove("templates");
        let wording = wordings.as_ref().and_then(|all| all.get(name)).cloned();
        let wording = wording.ok_or_else(|| Error::file(path, format!("it has no wording `{name}`")))?;
        task.insert("template".into(), wording);
        let i = self.setup.task.wordings.iter().position(|(known, _)| known == name).unwrap_or(0);
        let written = self.folder.join(format!("wording-{i}.toml"));
        atomic::write(&written, task.to_string().as_bytes())?;
        Ok(written)
    }
}

/// What `train` said at its end, and what it left in its folder.
fn training(summary: Option<&Value>, out: &Path) -> Result<Training> {
    let number = |name: &str| {
        let value = summary.and_then(|line| line[name].as_f64());
        value.ok_or_else(|| Error::Failure(format!("train did not say `{name}`")))
    };
    let names = ["adapter_model.safetensors", "model.safetensors"];
    let stored =
        names.iter().filter_map(|name| std::fs::metadata(out.join(name)).ok()).map(|m| m.len()).sum();
    Ok(Training {
        steps: number("steps")? as u64,
        trained: number("trained_numbers")? as u64,
        stored_bytes: stored,
        seconds: number("seconds")?,
        seconds_per_step: number("seconds_per_step")?,
        flops: number("flops")?,
        peak_rss_bytes: number("peak_rss_bytes").ok().map(|bytes| bytes as u64),
    })
}
