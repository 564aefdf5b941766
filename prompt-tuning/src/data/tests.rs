//! Good files in every form, and each way in which a row can be bad.

use super::*;

const TASK: &str =
    "name = \"t\"\ntemplate = \"{a} and {b}:{label}\"\n[labels]\npos = \" good\"\n1 = \" bad\"";

fn task() -> Task {
    Task::parse(TASK).unwrap()
}

fn file(name: &str, bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn examples(name: &str, bytes: impl AsRef<[u8]>, labels: Labels) -> Result<Vec<Example>, String> {
    let (_folder, path) = file(name, bytes);
    let prefix = path.display().to_string();
    let data = read_examples(&path, &task(), labels);
    data.map(|d| d.rows)
        .map_err(|e| e.to_string().strip_prefix(&prefix).expect("it names the file").to_string())
}

fn pairs(text: &str) -> Result<Vec<Pair>, String> {
    let (_folder, path) = file("p.jsonl", text);
    let data = read_pairs(&path).map(|d| d.rows);
    data.map_err(|e| e.to_string().rsplit_once("p.jsonl").expect("it names the file").1.to_string())
}

fn example(line: usize, a: &str, b: &str, label: usize) -> Example {
    let fields = BTreeMap::from([("a".to_string(), a.to_string()), ("b".to_string(), b.to_string())]);
    Example { line, fields, label: Some(label), answer: None }
}

#[test]
fn the_same_rows_in_every_format() {
    let jsonl = "\u{feff}\n{\"a\": \"x, 1\", \"b\": \"é\\n\", \"label\": \"pos\", \"idx\": 3}\r\n  \r\n{\"b\":\"z\",\"a\":\"y\",\"label\":1}";
    let csv = "\u{feff}a,idx,label,b\r\n\r\n\"x, 1\",3,pos,\"é\n\"\r\n\r\ny,,1,z\r\n";
    assert_eq!(
        examples("d.jsonl", jsonl, Labels::Required),
        Ok(vec![example(2, "x, 1", "é\n", 0), example(4, "y", "z", 1)])
    );
    assert_eq!(
        examples("d.CSV", csv, Labels::Required),
        Ok(vec![example(3, "x, 1", "é\n", 0), example(6, "y", "z", 1)])
    );
    let tsv = "label\ta\tb\npos\t\"x, 1\té\n1\ty\tz";
    assert_eq!(
        examples("d.tsv", tsv, Labels::Required),
        Ok(vec![example(2, "\"x, 1", "é", 0), example(3, "y", "z", 1)])
    );
}

#[test]
fn bad_jsonl_rows_are_named_by_line() {
    let good = "{\"a\": \"x\", \"b\": \"y\", \"label\": \"pos\"}\n";
    let cases = [
        ("{\"a\": \"x\"", ":2: invalid JSON at column 9: EOF while parsing an object"),
        ("{\"a\": x}", ":2: invalid JSON at column 7: expected value"),
        ("[1]", ":2: a row must be an object"),
        ("[{\"a\":", ":2: this looks like one JSON list"),
        (
            "{\"a\": \"x\", \"label\": \"pos\"}",
            ":2: there is no field `b`, which the template needs (the row has: a, label)",
        ),
        ("{\"a\": \"x\", \"b\": 3, \"label\": \"pos\"}", ":2: `b` must be a string, not a number"),
        ("{\"a\": \"x\", \"b\": \" \", \"label\": \"pos\"}", ":2: field `b` is empty"),
        ("{\"a\": \"x\", \"b\": \"y\"}", ":2: there is no field `label`"),
        (
            "{\"a\": \"x\", \"b\": \"y\", \"label\": \"neg\"}",
            ":2: label `neg` is not in the verbalizer of task `t` (pos, 1)",
        ),
        (
            "{\"a\": \"x\", \"b\": \"y\", \"label\": 1.5}",
            ":2: `label` must be a string or a whole number, not a number",
        ),
        ("{\"a\": \"x\", \"b\": \"y\", \"label\": true}", ":2: `label` must be a string or a whole number"),
    ];
    for (bad, expected) in cases {
        let error = examples("d.jsonl", format!("{good}{bad}\n{good}"), Labels::Required).unwrap_err();
        assert!(error.starts_with(expected) && !error.contains('\n'), "{expected}: {error}");
    }
}

#[test]
fn bad_tables_are_named_by_line() {
    let cases = [
        ("a,b,label\nx,y,pos\nx,y\n", ":3: it has 2 columns, the header has 3"),
        ("a,b,label\n\nx,\"y\n\",pos\n\n\nx, ,pos\n", ":7: field `b` is empty"),
        ("a,b,a\n", ":1: the header names column `a` twice"),
        ("a,label\nx,pos\n", ":2: there is no field `b`"),
        ("a,b,label\nx,y,pos\nx,\"y,pos\nx,y,pos\n", ":3: "),
        ("a,b,label\nx,y,pos\nx,y,\"pos\nx,y,pos\n", ":3: a quote that is opened here is never closed"),
        ("a,b,label\n", ": it has no rows"),
        ("", ": it has no rows"),
    ];
    for (text, expected) in cases {
        let error = examples("d.csv", text, Labels::Required).unwrap_err();
        assert!(error.starts_with(expected) && !error.contains('\n'), "{expected}: {error}");
    }
}

#[test]
fn bytes_that_are_not_utf8_and_unknown_names() {
    let error = examples("d.jsonl", b"{}\n\n\xff\xfe", Labels::Required).unwrap_err();
    assert!(error.starts_with(":3: it is not UTF-8"), "{error}");
    let error = examples("d.txt", "x", Labels::Required).unwrap_err();
    assert!(error.contains(".jsonl, .csv or .tsv"), "{error}");
    let missing = read_examples(Path::new("no/d.csv"), &task(), Labels::Required).unwrap_err();
    assert_eq!((missing.exit_code(), missing.to_string().starts_with("cannot read `no/d.csv`")), (2, true));
}

#[test]
fn prediction_needs_no_labels_but_checks_them() {
    let rows = examples("d.csv", "a,b,label\nx,y,\nx,y,1\n", Labels::Optional).unwrap();
    assert_eq!((rows[0].label, rows[1].label), (None, Some(1)));
    let rows =
        examples("d.jsonl", "{\"a\": \"x\", \"b\": \"y\", \"label\": null}", Labels::Optional).unwrap();
    assert_eq!(rows[0].label, None);
    assert!(examples("d.csv", "a,b,label\nx,y,no\n", Labels::Optional).unwrap_err().contains("label `no`"));
}

#[test]
fn pairs_of_text_and_of_ids() {
    let text = pairs("{\"prompt\": \"\", \"completion\": \" c\", \"more\": 1}").unwrap();
    let content = Content::Text { prompt: "".into(), completion: " c".into() };
    assert_eq!(text, [Pair { line: 1, content }]);
    let ids = pairs("{\"prompt_ids\": [5, 4294967295], \"completion_ids\": [0]}").unwrap();
    let content = Content::Ids { prompt: vec![5, u32::MAX], completion: vec![0] };
    assert_eq!(ids, [Pair { line: 1, content }]);
    let masked = pairs("{\"ids\": [5, 9, 9], \"mask_positions\": [2, 1], \"labels\": [7, 8]}").unwrap();
    let content = Content::Masked { ids: vec![5, 9, 9], masks: vec![(2, 7), (1, 8)] };
    assert_eq!(masked, [Pair { line: 1, content }]);
}

#[test]
fn bad_pairs_are_named_by_line() {
    let cases = [
        ("{\"prompt\": \"p\", \"completion\": \"\"}", ":1: the completion is empty"),
        ("{\"prompt_ids\": [1], \"completion_ids\": []}", ":1: the completion is empty"),
        ("{\"prompt\": \"p\"}", ":1: there is no field `completion` (the row has: prompt)"),
        ("{\"prompt\": [1], \"completion\": \"c\"}", ":1: `prompt` must be a string, not a list"),
        ("{\"prompt_ids\": \"1\", \"completion_ids\": [2]}", ":1: `prompt_ids` must be a list of token ids"),
        ("{\"prompt_ids\": [1.5], \"completion_ids\": [2]}", "not a list with 1.5"),
        ("{\"prompt_ids\": [1], \"completion_ids\": [-2]}", "not a list with -2"),
        ("{\"prompt_ids\": [4294967296], \"completion_ids\": [2]}", "not a list with 4294967296"),
        ("{\"completion_ids\": [2]}", ":1: there is no field `prompt_ids`"),
        (
            "{\"prompt\": \"p\", \"completion\": \"c\", \"prompt_ids\": []}",
            ":1: it has both text and token ids",
        ),
        ("{\"text\": \"p\", \"label\": \"c\"}", "give a --task file"),
        (
            "{\"prompt\":\"p\",\"completion\":\"c\"}\n\n{\"prompt_ids\":[1],\"completion_ids\":[2]}",
            ":3: rows of different kinds",
        ),
        ("{\"ids\": [1, 2], \"mask_positions\": [1]}", ":1: there is no field `labels`"),
        ("{\"ids\": [1], \"mask_positions\": [], \"labels\": []}", "`mask_positions` has 0 entries"),
        ("{\"ids\": [1], \"mask_positions\": [0], \"labels\": [1, 2]}", "1 entries and `labels` 2"),
        (
            "{\"ids\": [1, 2], \"mask_positions\": [2], \"labels\": [1]}",
            "has 2, but the places in `ids` are 0 to 1",
        ),
        ("{\"ids\": [], \"mask_positions\": [0], \"labels\": [1]}", "the places in `ids` are 0 to 0"),
        ("{\"ids\": [1, 2], \"mask_positions\": [1, 1], \"labels\": [1, 2]}", "has 1 twice"),
    ];
    for (text, expected) in cases {
        let error = pairs(text).unwrap_err();
        assert!(error.contains(expected) && !error.contains('\n'), "{expected}: {error}");
    }
}

#[test]
fn texts_as_arguments() {
    let one = Task::parse(&TASK.replace("{b}", "{a}")).unwrap();
    let data = examples_of_texts(&["x".into(), "y".into()], &one).unwrap();
    assert_eq!((data.rows[1].fields["a"].as_str(), data.rows[1].line, data.rows[1].label), ("y", 2, None));
    assert!(
        examples_of_texts(&["x".into(), "".into()], &one)
            .unwrap_err()
            .to_string()
            .contains("text 2 is empty")
    );
    assert!(examples_of_texts(&["x".into()], &task()).unwrap_err().to_string().contains("a, b"));
}

#[test]
fn answers_that_are_texts_or_lists() {
    let task = |rest: &str| {
        Task::parse(&format!(
            "name = \"t\"\ntemplate = \"{{text}}{{label}}\"\n[answer]\nfield = \"fr\"\n{rest}"
        ))
        .unwrap()
    };
    let read = |name: &str, content: &str, task: &Task, labels| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        read_examples(&path, task, labels)
            .map(|data| data.rows.into_iter().map(|row| row.answer).collect::<Vec<_>>())
            .map_err(|e| e.to_string())
    };
    let (plain, list) = (task(""), task("list = \",\""));
    let rows = "{\"text\": \"a\", \"fr\": \"un\"}\n{\"text\": \"b\"}";
    assert_eq!(read("d.jsonl", rows, &plain, Labels::Optional).unwrap(), [Some("un".into()), None]);
    let error = read("d.jsonl", rows, &plain, Labels::Required).unwrap_err();
    assert!(error.contains(":2: there is no field `fr`"), "{error}");
    assert_eq!(read("d.csv", "text,fr\na,un\n", &plain, Labels::Required).unwrap(), [Some("un".into())]);
    let rows = "{\"text\": \"a\", \"fr\": [\"Rome\", \"Bonn\"]}\n{\"text\": \"b\", \"fr\": []}";
    let answers = read("d.jsonl", rows, &list, Labels::Required).unwrap();
    assert_eq!(answers, [Some("Rome, Bonn".into()), Some(String::new())]);
    for (content, task, why) in [
        ("{\"text\": \"a\", \"fr\": [\"x\"]}", &plain, "must be a string, not a list"),
        ("{\"text\": \"a\", \"fr\": [3]}", &list, "a list of strings"),
        ("{\"text\": \"a\", \"fr\": [\"x, y\"]}", &list, "which separates items"),
    ] {
        let error = read("d.jsonl", content, task, Labels::Required).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
