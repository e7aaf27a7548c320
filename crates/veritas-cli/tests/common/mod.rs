//! Running the real binary and looking at what it says.
#![allow(dead_code, unused_imports)] // Each test file uses the part that it needs.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
pub(crate) use veritas_testkit::{committed, test_data};

/// What a run of the binary gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs the binary with these arguments, and with these bytes on stdin.
pub(crate) fn veritas(args: &[&str], stdin: &[u8]) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_veritas-sdr"))
        .args(args)
        .env_remove("NO_COLOR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut pipe = child.stdin.take().expect("stdin is a pipe");
    let stdin = stdin.to_vec();
    // From a thread, so that a child that answers before it has read everything is not waited for. One that does not read
    // its stdin breaks the pipe, which is its right.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
    let output = child.wait_with_output().expect("the binary ends");
    writer.join().expect("the writer ends");
    Outcome {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Outcome {
    /// Success: stdout as text.
    pub(crate) fn text(&self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        String::from_utf8(self.stdout.clone()).expect("stdout is UTF-8")
    }

    /// Success: stdout as one JSON value.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text()).expect("stdout is JSON")
    }

    /// Failure with `--json`: the exit status, the code and the message.
    pub(crate) fn error(&self) -> (i32, String, String) {
        let code = self.code.unwrap_or_else(|| panic!("ended by a signal: {}", self.stderr));
        assert_ne!(code, 0, "the command did not fail");
        let line = self.stderr.lines().last().unwrap_or_default();
        let error: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON error on stderr: {}", self.stderr));
        let field = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
        (code, field("code"), field("message"))
    }
}

/// The path of a committed file as an argument.
pub(crate) fn data(name: &str) -> String {
    path_text(committed(name))
}

pub(crate) fn path_text(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("the path is UTF-8")
}

/// A folder for the files of a test.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A file in such a folder, as an argument.
pub(crate) fn in_folder(folder: &tempfile::TempDir, name: &str) -> String {
    path_text(folder.path().join(name))
}
