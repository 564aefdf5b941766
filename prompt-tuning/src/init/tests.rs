//! Every init against embeddings that tell which token they are of.

use kernels::testing::{Tolerance, close};

use super::*;

const V: usize = 50;

/// The embedding of token `id` is `[id, -id]`.
struct Numbered;

impl Embeddings for Numbered {
    fn vocab_size(&self) -> usize {
        V
    }

    fn d_model(&self) -> usize {
        2
    }

    fn row(&self, id: u32, out: &mut [f32]) {
        out.copy_from_slice(&[id as f32, -(id as f32)]);
    }
}

struct Bytes;

impl Encode for Bytes {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<u32>> {
        Ok(text.bytes().map(|b| u32::from(b - b'a')).collect())
    }
}

fn context(n_tokens: usize) -> InitContext<'static> {
    InitContext {
        widths: crate::soft_prompt::Widths { d_model: Numbered.d_model(), prefix: 0 },
        n_tokens,
        embeddings: &Numbered,
        tokenizer: Some(&Bytes),
        answers: &[],
        words: &[],
        seed: 1,
    }
}

fn ids(prompt: &SoftPrompt) -> Vec<f32> {
    assert!((0..prompt.n_tokens).all(|i| prompt.row(i)[1] == -prompt.row(i)[0]));
    (0..prompt.n_tokens).map(|i| prompt.row(i)[0]).collect()
}

#[test]
fn texts_of_the_command_line() {
    let parse = |text: &str| text.parse::<Init>();
    let cases = [
        ("vocab", Init::Vocab(5000)),
        ("vocab:all", Init::Vocab(usize::MAX)),
        ("vocab:7", Init::Vocab(7)),
        ("labels", Init::Labels),
        ("random", Init::Uniform(0.5)),
        ("random:0.25", Init::Uniform(0.25)),
        ("normal:0.02", Init::Normal(0.02)),
        ("text:a: \"b\"", Init::Text("a: \"b\"".into())),
        ("text:\"a b\"", Init::Text("a b".into())),
    ];
    for (text, init) in cases {
        assert_eq!(parse(text).as_ref(), Ok(&init));
        assert_eq!(parse(&init.to_string()), Ok(init));
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(parse(folder.path().to_str().unwrap()), Ok(Init::From(folder.path().into())));
    for bad in [
        "vocab:0",
        "vocab:x",
        "random:-1",
        "random:nan",
        "normal:inf",
        "normal",
        "text:",
        "text:\" \"",
        "no/such",
        "",
    ] {
        let why = parse(bad).unwrap_err();
        assert!(why.contains(&format!("`{bad}`")) || why.contains("text:"), "{bad}: {why}");
    }
}

#[test]
fn sampled_tokens_come_from_the_pool_and_differ() {
    let prompt = Init::Vocab(20).build(&context(15)).unwrap();
    let mut drawn = ids(&prompt);
    drawn.sort_by(f32::total_cmp);
    drawn.dedup();
    assert_eq!(drawn.len(), 15);
    assert!(drawn.iter().all(|&id| id < 20.0));
    assert_eq!(Init::Vocab(20).build(&context(15)).unwrap(), prompt);
    assert_ne!(Init::Vocab(20).build(&InitContext { seed: 2, ..context(15) }).unwrap(), prompt);
    // more than there are
    assert_eq!(ids(&Init::Vocab(usize::MAX).build(&context(60)).unwrap()).len(), 60);
}

#[test]
fn text_is_repeated_or_cut() {
    assert_eq!(ids(&Init::Text("bcd".into()).build(&context(5)).unwrap()), [1.0, 2.0, 3.0, 1.0, 2.0]);
    assert_eq!(ids(&Init::Text("bcd".into()).build(&context(2)).unwrap()), [1.0, 2.0]);
    let without = InitContext { tokenizer: None, ..context(2) };
    assert!(Init::Text("b".into()).build(&without).unwrap_err().to_string().contains("tokenizer.json"));
    assert!(Init::Text("".into()).build(&context(2)).unwrap_err().to_string().contains("no tokens"));
    let outside = [(0..1, vec![50])];
    let error = Init::Vocab(9).build(&InitContext { words: &outside, ..context(2) }).unwrap_err();
    assert!(error.to_string().contains("token id 50"), "{error}");
}

#[test]
fn labels_are_means_and_the_rest_is_sampled() {
    let answers = [vec![4], vec![1, 2, 6]];
    let with = |n_tokens| InitContext { answers: &answers, ..context(n_tokens) };
    let prompt = Init::Labels.build(&with(4)).unwrap();
    close(&ids(&prompt)[..2], &[4.0, 3.0], Tolerance::both(1e-6)).unwrap();
    assert_ne!(ids(&prompt)[2], ids(&prompt)[3]);
    assert_eq!(ids(&Init::Labels.build(&with(1)).unwrap()), [4.0]);
    assert!(Init::Labels.build(&context(1)).unwrap_err().to_string().contains("--task"));
}

#[test]
fn random_numbers_have_the_range_or_the_deviation() {
    let prompt = Init::Uniform(0.1).build(&context(1000)).unwrap();
    assert!(prompt.values.iter().all(|x| x.abs() <= 0.1));
    let variance = |prompt: &SoftPrompt| prompt.values.iter().map(|x| x * x).sum::<f32>() / 2000.0;
    // five standard errors of the variance
    close(&[variance(&prompt)], &[0.01 / 3.0], Tolerance { absolute: 0.0, relative: 0.1 }).unwrap();
    let prompt = Init::Normal(0.2).build(&context(1000)).unwrap();
    close(&[variance(&prompt)], &[0.04], Tolerance { absolute: 0.0, relative: 0.16 }).unwrap();
}

#[test]
fn words_of_the_template_win() {
    let words = [(1..4, vec![7, 8]), (4..5, vec![9])];
    let context = InitContext { words: &words, ..context(5) };
    let prompt = Init::Vocab(3).build(&context).unwrap();
    assert_eq!(ids(&prompt)[1..], [7.0, 8.0, 7.0, 9.0]);
    assert!(ids(&prompt)[0] < 3.0);
}

#[test]
fn another_prompt_must_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.npy");
    let prompt = SoftPrompt::new(3, 2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    npy::write(&path, &prompt).unwrap();
    let init = Init::From(path.clone());
    assert_eq!(init.build(&context(3)).unwrap(), prompt);
    assert!(init.build(&context(4)).unwrap_err().to_string().contains("3 virtual tokens, but 4"));
    npy::write(&path, &SoftPrompt::new(2, 3, prompt.values)).unwrap();
    assert!(init.build(&context(2)).unwrap_err().to_string().contains("another model"));
    assert_eq!(init.peft(), PeftInit::Random);
}
