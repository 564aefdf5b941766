//! What a comparison begins with: everything that can be wrong is found before the first cell.

use model::LanguageModel;
use sha2::{Digest, Sha256};
use wildmatch::WildMatch;

use super::{CompareArgs, Other, Size, fit};
use crate::cli::perplexity::DEFAULT_CONTEXT;
use crate::cli::shots::sampled;
use crate::compare::plan::{self, How, Planned, PlannedCell};
use crate::compare::{Comparison, Side};
use crate::data::{self, Dataset, Example, Labels};
use crate::error::{Error, Result};
use crate::hub;
use crate::pretrain::corpus;
use crate::study::{command, machine};
use crate::task::{Answers, Task};

/// Everything that is known before the first cell.
pub(in crate::cli) struct Setup<'a> {
    pub(in crate::cli) args: &'a CompareArgs,
    pub(super) task: Task,
    pub(in crate::cli) methods: Vec<Planned>,
    sizes: Vec<usize>,
    pub(super) train: Dataset<Example>,
    pub(super) data: Dataset<Example>,
    /// Right label of each measured row.
    pub(in crate::cli) gold: Vec<usize>,
    model_size: u64,
    pub(super) fingerprint: String,
    other_names: Vec<String>,
    /// Of every text that perplexity is measured on: what is left of the window with the longest prompt in front.
    pub(super) context: usize,
    /// Methods and rows that are left out, and why.
    pub(super) left_out: Vec<String>,
}

impl<'a> Setup<'a> {
    pub(super) fn read(args: &'a CompareArgs) -> Result<Setup<'a>> {
        let task = Task::read(&args.task)?;
        if let Answers::Text(_) = task.answers {
            let why = "its answers are texts, and a comparison needs labels";
            return Err(Error::file(&args.task, why));
        }
        if !task.template.soft().is_empty() {
            let why = "its template has soft tokens; give one without: every method puts its own in front";
            return Err(Error::file(&args.task, why));
        }
        let train = data::read_examples(&args.train, &task, Labels::Required)?;
        let documents = if args.text.is_empty() { Vec::new() } else { corpus::read(&args.text)? };
        let model = LanguageModel::open(&hub::model_folder(&args.model)?)?;
        let numbers = |name: &String| {
            Ok(model.checkpoint().tensor_of_any_shape(name)?.shape().iter().product::<usize>())
        };
        let numbers: Vec<usize> = model
            .weight_names()
            .iter()
            .map(numbers)
            .collect::<std::result::Result<_, tensor::Error>>()
            .map_err(model::Error::from)?;
        let (methods, mut left_out) = methods(args, &task, &model)?;
        let data = unseen(args, &task, (&train, &methods), &mut left_out)?;
        let context = fit::room(&methods, model.config().n_positions)?.min(DEFAULT_CONTEXT);
        let other_names = args.other.iter().map(other_name).collect::<Result<_>>()?;
        Ok(Setup {
            args,
            methods,
            sizes: sizes(&args.sizes, train.rows.len()),
            gold: data.rows.iter().filter_map(|e| e.label).collect(),
            task,
            train,
            data,
            model_size: numbers.iter().sum::<usize>() as u64,
            fingerprint: format!("{}\n{}", model.fingerprint(), documents.join("\n\n")),
            other_names,
            context,
            left_out,
        })
    }

    /// All cells of the comparison, in the order in which they are run.
    pub(super) fn cells(&self) -> Vec<PlannedCell> {
        let seeds = self.args.seed..self.args.seed + u64::from(self.args.seeds);
        plan::cells(&self.methods, &self.sizes, seeds)
    }

    /// Rows of the training file.
    pub(in crate::cli) fn n_train(&self) -> usize {
        self.train.rows.len()
    }

    /// A name for the files of a cell. What the method is called and how it is run decide.
    pub(in crate::cli) fn folder_name(&self, cell: PlannedCell) -> String {
        let method = &self.methods[cell.method];
        let name: String = method.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let how = format!("{:x}", Sha256::digest(format!("{method:?}")));
        format!("{name}-{}-{}-{}", &how[..6], cell.n_train, cell.seed)
    }

    /// What a cell is called.
    pub(super) fn title(&self, cell: PlannedCell) -> String {
        let name = &self.methods[cell.method].name;
        match cell.n_train {
            0 => name.clone(),
            n => format!("{name}, {n} rows, seed {}", cell.seed),
        }
    }

    /// A comparison without cells.
    pub(super) fn comparison(&self, before: Side) -> Comparison {
        let args = self.args;
        let text = |path: &std::path::PathBuf| path.display().to_string();
        Comparison {
            task: self.task.name.clone(),
            model: args.model.clone(),
            model_size: self.model_size,
            data: text(&args.data),
            train: text(&args.train),
            n_train: self.train.rows.len(),
            labels: self.task.labels().iter().map(|l| l.name.clone()).collect(),
            gold: self.gold.clone(),
            steps: args.steps,
            batch: args.batch,
            general: (!args.text.is_empty())
                .then(|| args.text.iter().map(text).collect::<Vec<_>>().join(", ")),
            others: self.other_names.clone(),
            before,
            methods: self.methods.iter().map(Planned::described).collect(),
            command: command(),
            machine: machine(),
            seconds: 0.0,
            cells: Vec::new(),
        }
    }
}

/// The rows that are measured: those of `--data` that no method learns from or chooses by.
fn unseen(
    args: &CompareArgs,
    task: &Task,
    (train, methods): (&Dataset<Example>, &[Planned]),
    left_out: &mut Vec<String>,
) -> Result<Dataset<Example>> {
    let read = |path: &std::path::Path| data::read_examples(path, task, Labels::Required);
    let mut data = read(&args.data)?;
    let mut dev = Vec::new();
    for arguments in methods.iter().map(fit::arguments) {
        dev.extend(arguments?.and_then(|arguments| arguments.dev));
    }
    dev.sort_unstable();
    dev.dedup();
    let dev: Vec<Dataset<Example>> = dev.iter().map(|path| read(path)).collect::<Result<_>>()?;
    let seen: Vec<&Dataset<Example>> = std::iter::once(train).chain(&dev).collect();
    let n = fit::without_seen(&mut data, &seen);
    if data.rows.is_empty() {
        return Err(Error::file(&args.data, "all of its rows are among those that methods learn from"));
    }
    if n > 0 {
        left_out
            .push(format!("{n} rows of {} that methods learn from are not measured", args.data.display()));
    }
    Ok(sampled(data, args.max_rows))
}

/// The methods of the plan that are asked for, and notes about those of them that cannot be run on this task and model. Who names
/// one of those is told so instead.
fn methods(args: &CompareArgs, task: &Task, model: &LanguageModel) -> Result<(Vec<Planned>, Vec<String>)> {
    let mut methods = plan::methods(args.plan.as_deref())?;
    let all: Vec<String> = methods.iter().map(|method| method.name.clone()).collect();
    for pattern in &args.methods {
        if !all.iter().any(|name| WildMatch::new(pattern).matches(name)) {
            return Err(Error::Input(format!("--methods {pattern}: there are {}", all.join(", "))));
        }
    }
    let asked =
        |name: &str| args.methods.is_empty() || args.methods.iter().any(|p| WildMatch::new(p).matches(name));
    methods.retain(|method| asked(&method.name));
    let (mut fitting, mut left_out) = (Vec::new(), Vec::new());
    for method in methods {
        let obstacle = match method.how {
            How::Wordings if task.wordings.is_empty() => {
                Some("the task has no other wordings in [templates] to choose from".to_string())
            }
            _ => fit::obstacle(&method, model)?,
        };
        match obstacle {
            None => fitting.push(method),
            Some(why) if args.methods.is_empty() && args.plan.is_none() => {
                left_out.push(format!("`{}` is left out: {why}", method.name));
            }
            Some(why) => return Err(Error::Input(format!("method `{}`: {why}", method.name))),
        }
    }
    Ok((fitting, left_out))
}

/// Numbers of rows that there are, from few to many, each once.
fn sizes(asked: &[Size], n_train: usize) -> Vec<usize> {
    let rows = asked.iter().map(|size| match size {
        Size::Rows(n) => *n,
        Size::All => n_train,
    });
    let mut sizes: Vec<usize> = rows.filter(|&n| n <= n_train).collect();
    sizes.sort_unstable();
    sizes.dedup();
    if sizes.is_empty() { vec![n_train] } else { sizes }
}

/// The name of another task, whose data can be read.
fn other_name(other: &Other) -> Result<String> {
    let task = Task::read(&other.task)?;
    data::read_examples(&other.data, &task, Labels::Required)?;
    Ok(task.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_there_are() {
        let asked = [Size::Rows(32), Size::All, Size::Rows(10), Size::Rows(1000), Size::Rows(32)];
        assert_eq!(sizes(&asked, 240), [10, 32, 240]);
        assert_eq!(sizes(&[Size::Rows(500)], 240), [240]);
    }
}
