//! `fetch` from a hub that runs in this test, and what is in the cache afterwards.

mod fixture;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Serves the files of `folder` as the hub does: with a commit, a tag and ranges. Ends with the process.
fn hub(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // a client that goes away is its own business
            answer(stream, &folder).ok();
        }
    });
    format!("http://{address}")
}

fn answer(stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let (mut range, mut words) = (None, request.split(' '));
    for line in lines {
        let line = line?.to_lowercase();
        range = line.strip_prefix("range: bytes=").map(String::from).or(range);
        if line.is_empty() {
            break;
        }
    }
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let name = path.split("/resolve/main/").nth(1).unwrap_or("none");
    let mut out = stream;
    let Ok(data) = std::fs::read(folder.join(name)) else {
        return write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let (from, to) = match range.as_deref().and_then(|r| r.split_once('-')) {
        Some((a, b)) => {
            (a.parse().unwrap_or(0), b.parse().map_or(data.len(), |b: usize| data.len().min(b + 1)))
        }
        None => (0, data.len()),
    };
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    write!(
        out,
        "HTTP/1.1 {status}\r\nX-Repo-Commit: {}\r\nETag: \"{name}\"\r\nAccept-Ranges: bytes\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        "c".repeat(40),
        to.max(1) - 1,
        data.len(),
        to - from
    )?;
    if method == "GET" { out.write_all(&data[from..to]) } else { Ok(()) }
}

fn run(home: &Path, vars: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-tuning"));
    command.env("HF_HOME", home).env_remove("HF_HUB_OFFLINE").envs(vars.iter().copied()).args(args);
    command.output().expect("it runs")
}

#[test]
fn a_model_is_fetched_once_and_then_used_offline() {
    for name in ["llama-untied-sharded-f32", "gpt2-text"] {
        let home = tempfile::tempdir().expect("a folder");
        let hub = hub(fixture::folder(name));
        let fetched = run(home.path(), &[("HF_ENDPOINT", &hub)], &["fetch", "owner/tiny"]);
        assert!(fetched.status.success(), "{name}: {}", String::from_utf8_lossy(&fetched.stderr));
        let args = ["generate", "--model", "owner/tiny", "--ids", "1,2,3", "--max-new-tokens", "2"];
        let used = run(home.path(), &[("HF_HUB_OFFLINE", "1")], &args);
        assert!(used.status.success(), "{name}: {}", String::from_utf8_lossy(&used.stderr));
        assert!(!used.stdout.is_empty());
    }
}

#[test]
fn what_cannot_be_fetched_is_said_in_one_line() {
    let home = tempfile::tempdir().expect("a folder");
    let refused = |output: Output, part: &str| {
        let stderr = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(part), "{stderr}");
    };
    refused(run(home.path(), &[("HF_HUB_OFFLINE", "1")], &["fetch", "owner/tiny"]), "HF_HUB_OFFLINE");
    refused(
        run(home.path(), &[("HF_ENDPOINT", "http://127.0.0.1:1")], &["fetch", "owner/tiny"]),
        "config.json",
    );

    // an index that leaves the folder is refused before anything is written there
    let evil = tempfile::tempdir().expect("a folder");
    std::fs::write(evil.path().join("config.json"), "{}").expect("a file");
    let index = r#"{"weight_map": {"w": "../../../escaped.safetensors"}}"#;
    std::fs::write(evil.path().join("model.safetensors.index.json"), index).expect("a file");
    let hub = hub(evil.path().to_path_buf());
    let output = run(home.path(), &[("HF_ENDPOINT", &hub)], &["fetch", "owner/evil"]);
    let stderr = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(output.status.code() == Some(2) && stderr.contains("leaves the model folder"), "{stderr}");
}
