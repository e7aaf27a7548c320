//! A daemon for a test: the real binary on a socket of its own.
#![allow(dead_code)] // Each test file uses the part that it needs.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use veritas_ipc::ClientOptions;
use veritas_ipc::blocking::Client;

use crate::common::{Outcome, folder, in_folder, veritas};

/// The model that every daemon serves: the one that is built into the binary, as a file.
pub(crate) const MODEL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/demo-model/veritas-demo.gguf");

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_veritas-sdr");

/// Tokens that a prompt and its answer may have together where an answer must not end by itself.
pub(crate) const ENDLESS_TOKENS: u32 = 65536;

/// How long anything may take that is waited for; far beyond what it takes, so that a busy machine fails no test.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Daemon {
    folder: tempfile::TempDir,
    socket: String,
    args: Vec<String>,
    child: Child,
    /// Where its configuration stands, as long as it may be read again.
    config: Option<tempfile::TempDir>,
}

/// How a daemon is started, where it is not as usual.
#[derive(Clone, Default)]
pub(crate) struct Launch {
    /// Descriptors that it may have.
    pub(crate) descriptors: Option<u32>,
    /// The user and group that it is run by.
    pub(crate) uid: Option<u32>,
    /// Variables besides those of the test.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Daemon {
    /// Serves [`MODEL`] as `story`.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_models(&[("story", MODEL)], flags)
    }

    pub(crate) fn start_models(models: &[(&str, &str)], flags: &[&str]) -> Self {
        let models = models.iter().flat_map(|(name, path)| ["--model".to_owned(), format!("{name}={path}")]);
        Self::launch(
            models.chain(flags.iter().map(|flag| (*flag).to_owned())).collect(),
            &[],
            &Launch::default(),
        )
    }

    pub(crate) fn start_with_token(file: &str) -> Self {
        let args = ["--model", &format!("story={MODEL}"), "--token-file", file].map(str::to_owned).to_vec();
        Self::launch(args, &["--token-file", file], &Launch::default())
    }

    /// A configuration besides the model.
    pub(crate) fn with_config(text: &str, flags: &[&str]) -> Self {
        let files = folder();
        let path = in_folder(&files, "veritas-sdr.toml");
        std::fs::write(&path, text).unwrap();
        let mut daemon = Self::start(&[&["--config", &path][..], flags].concat());
        daemon.config = Some(files);
        daemon
    }

    /// A configuration with its models.
    pub(crate) fn with_file(path: &str) -> Self {
        Self::launch(vec!["--config".to_owned(), path.to_owned()], &[], &Launch::default())
    }

    /// Serves [`MODEL`] as each of `names`, in a context far longer than its own, so that an answer takes minutes if nobody
    /// ends it: what it says there is of no interest.
    pub(crate) fn endless(names: &[&str], config: &str) -> Self {
        let models = names.iter().map(|name| {
            format!(
                "[[models]]\nname = \"{name}\"\npath = \"{MODEL}\"\nctx = {ENDLESS_TOKENS}\n\
                 override_kv = [\"llama.context_length=int:{ENDLESS_TOKENS}\"]\n"
            )
        });
        let files = folder();
        let path = in_folder(&files, "veritas-sdr.toml");
        std::fs::write(&path, config.to_owned() + &models.collect::<String>()).unwrap();
        let mut daemon = Self::with_file(&path);
        daemon.config = Some(files);
        daemon
    }

    /// Serves [`MODEL`] as `story`, started in a way of its own; `probe` are the flags of a client.
    pub(crate) fn start_as(flags: &[&str], probe: &[&str], launch: &Launch) -> Self {
        let model = ["--model".to_owned(), format!("story={MODEL}")];
        let flags = flags.iter().map(|flag| (*flag).to_owned());
        Self::launch(model.into_iter().chain(flags).collect(), probe, launch)
    }

    fn launch(args: Vec<String>, probe: &[&str], launch: &Launch) -> Self {
        let folder = folder();
        let socket = in_folder(&folder, "run/veritas-sdr.sock");
        if let Some(uid) = launch.uid {
            // Its own, so that it can make the folder of the socket there; others pass through.
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(uid)).unwrap();
            set_mode(folder.path(), 0o755);
        }
        let child = spawn(&folder, &socket, &args, launch);
        let mut daemon = Self { folder, socket, args, child, config: None };
        daemon.wait_until_ready(probe);
        daemon
    }

    fn wait_until_ready(&mut self, flags: &[&str]) {
        let start = Instant::now();
        while self.run(&[&["ready"][..], flags].concat()).code != Some(0) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "it does not serve: {ended:?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn socket(&self) -> &str {
        &self.socket
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        veritas(&[args, &["--socket", &self.socket]].concat(), b"")
    }

    /// Starts a command against it.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        Command::new(BINARY)
            .args(args)
            .args(["--socket", &self.socket])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        let options =
            ClientOptions { name: "test".to_owned(), timeout: Some(PATIENCE), ..ClientOptions::default() };
        Client::connect(Path::new(&self.socket), &options).unwrap()
    }

    /// A connection without a handshake.
    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn status(&self) -> Value {
        self.run(&["status", "--json"]).json()
    }

    pub(crate) fn model(&self, name: &str) -> Value {
        let models = self.status()["models"].as_array().unwrap().clone();
        models.into_iter().find(|model| model["name"] == name).unwrap_or(Value::Null)
    }

    /// Opens the socket and the folders that lead to it to everybody.
    pub(crate) fn open_to_everybody(&self) {
        set_mode(self.folder.path(), 0o755);
        set_mode(Path::new(&self.socket).parent().unwrap(), 0o755);
        set_mode(Path::new(&self.socket), 0o666);
    }

    /// Descriptors, threads, and resident bytes of a process.
    pub(crate) fn holdings(pid: u32) -> (usize, u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let n_descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        (n_descriptors, number("Threads:"), number("VmRSS:") << 10)
    }

    /// The process of a model's worker, once there is one.
    pub(crate) fn worker_pid(&self, model: &str) -> u32 {
        eventually("it has a worker", || self.model(model)["worker"]["pid"].is_u64());
        self.model(model)["worker"]["pid"].as_u64().unwrap() as u32
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it once more on the same socket.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.folder, &self.socket, &self.args, &Launch::default());
        self.wait_until_ready(&[]);
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        signal(self.pid(), "TERM");
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that failed may have left it stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

fn spawn(folder: &tempfile::TempDir, socket: &str, args: &[String], launch: &Launch) -> Child {
    let log = File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
    let mut command = match launch.descriptors {
        None => Command::new(BINARY),
        Some(n) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("ulimit -Hn {n}; ulimit -n {n}; exec \"$0\" \"$@\""), BINARY]);
            shell
        }
    };
    if let Some(uid) = launch.uid {
        // The configuration of who runs the test is not that user's to read.
        command.uid(uid).gid(uid).env("HOME", folder.path()).env_remove("XDG_CONFIG_HOME");
    }
    command
        .args(["serve", "--socket", socket])
        .args(args)
        .env_remove("NOTIFY_SOCKET")
        .envs(launch.variables.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Sends a signal by its name without `SIG`.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -s {name} {pid}")]).status().unwrap();
    assert!(status.success(), "kill -s {name} {pid}");
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The flags of one of several different requests.
pub(crate) fn ask(k: usize) -> [String; 10] {
    let prompts =
        ["Once upon a time", "In a little village", "Mira was a brave cat", "There was a golden hat"];
    let (seed, n) = (k.to_string(), (20 + k * 5).to_string());
    let flags =
        ["--raw", prompts[k % prompts.len()], "--seed", &seed, "--temp", "0.9", "-n", &n, "--logprobs", "1"];
    flags.map(str::to_owned)
}
