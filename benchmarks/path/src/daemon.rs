//! The variant with the path: the real daemon, its confined worker, and a client a thread.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use veritas_ipc::ClientOptions;
use veritas_ipc::blocking::{Client, Flow};

use crate::workload::{Answer, CLIENTS_MAX, Seen, daemon_request, micros};

/// How long the daemon may take to read its model, or to end: far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at whether it has come that far.
const POLL: Duration = Duration::from_millis(10);
/// Time between two round trips while others stream: so few that they are not the load themselves.
const PROBE_PAUSE: Duration = Duration::from_millis(1);

/// A daemon of our own, which ends with this value.
pub(crate) struct Daemon {
    folder: tempfile::TempDir,
    socket: PathBuf,
    child: Child,
    /// Tokens of each answer.
    n_tokens: u32,
}

impl Daemon {
    /// Starts it and waits until it serves `model`.
    ///
    /// # Errors
    /// If it does not start, with the end of its log.
    pub(crate) fn start(
        binary: &Path,
        model: &Path,
        n_threads: usize,
        n_pages: u32,
        n_tokens: u32,
    ) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for the daemon")?;
        let socket = folder.path().join("run/veritas-sdr.sock");
        // An empty configuration: what this machine may have for its own daemon does not count.
        let config = folder.path().join("veritas-sdr.toml");
        std::fs::write(&config, "").context("cannot write the daemon's configuration")?;
        let log = File::create(folder.path().join("log")).context("cannot write the daemon's log")?;
        let mut named = std::ffi::OsString::from("path=");
        named.push(std::path::absolute(model)?);
        let child = Command::new(binary)
            .arg("serve")
            .arg("--socket")
            .arg(&socket)
            .arg("--config")
            .arg(&config)
            .arg("--model")
            .arg(named)
            .args(["--max-sequences", &CLIENTS_MAX.to_string()])
            .args(["--kv-pages", &n_pages.to_string()])
            .args(["--threads", &n_threads.to_string()])
            .args(["--prefill-chunk", &veritas_engine::DEFAULT_CHUNK_TOKENS.to_string()])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| {
                format!("cannot start {}; build it or name it with --binary", binary.display())
            })?;
        let mut daemon = Self { folder, socket, child, n_tokens };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended with {status}: {}", self.log());
            }
            let answer = self.client().and_then(|mut client| Ok(client.ready()?));
            match answer {
                Ok(reply) if reply.ready => return Ok(()),
                _ if began.elapsed() < PATIENCE => std::thread::sleep(POLL),
                Ok(_) => bail!("the daemon does not serve after {PATIENCE:?}: {}", self.log()),
                Err(error) => return Err(error.context(format!("the daemon does not serve: {}", self.log()))),
            }
        }
    }

    /// Its process: the supervisor.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of its worker.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn worker_pid(&self) -> Result<u32> {
        let models = self.client()?.model_list()?;
        let worker = models.into_iter().next().and_then(|model| model.worker);
        worker.and_then(|worker| worker.pid).context("the daemon has no worker")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_else(|error| error.to_string())
    }

    /// `n` clients, each over a connection of its own.
    ///
    /// # Errors
    /// If one cannot connect.
    pub(crate) fn clients(&self, n: usize) -> Result<Vec<Client>> {
        (0..n).map(|_| self.client()).collect()
    }

    fn client(&self) -> Result<Client> {
        let options = ClientOptions {
            name: "benchmark".to_owned(),
            timeout: Some(PATIENCE),
            silence_timeout: Some(PATIENCE),
            ..ClientOptions::default()
        };
        Ok(Client::connect(&self.socket, &options)?)
    }

    /// Microseconds of `n` round trips of an empty request over one connection, after `n_warm_up` that do not count.
    ///
    /// # Errors
    /// If one fails.
    pub(crate) fn round_trips_us(&self, n_warm_up: usize, n: usize) -> Result<Vec<f64>> {
        let mut client = self.client()?;
        for _ in 0..n_warm_up {
            client.live()?;
        }
        let mut times = Vec::with_capacity(n);
        for _ in 0..n {
            let began = Instant::now();
            client.live()?;
            times.push(micros(began.elapsed()));
        }
        Ok(times)
    }

    /// Microseconds of round trips of an empty request while a client for each prompt streams, `n_waves` times.
    ///
    /// # Errors
    /// If a request fails.
    pub(crate) fn round_trips_meanwhile_us(&self, prompts: &[String], n_waves: usize) -> Result<Vec<f64>> {
        let mut client = self.client()?;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let probe = scope.spawn(|| -> Result<Vec<f64>> {
                let mut times = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(PROBE_PAUSE);
                    let began = Instant::now();
                    client.live()?;
                    times.push(micros(began.elapsed()));
                }
                Ok(times)
            });
            let seen = self.clients(prompts.len()).and_then(|clients| self.run(clients, prompts, n_waves));
            is_over.store(true, Ordering::Relaxed);
            let times = probe.join().map_err(|_| anyhow!("the thread of a client panicked"))?;
            seen.and(times)
        })
    }

    /// Asks one request for each prompt, each with a client of its own, all at once, `n_waves` times.
    ///
    /// # Errors
    /// If a request fails.
    pub(crate) fn run(&self, clients: Vec<Client>, prompts: &[String], n_waves: usize) -> Result<Seen> {
        let barrier = Barrier::new(prompts.len() + 1);
        std::thread::scope(|scope| {
            let threads = clients.into_iter().zip(prompts).map(|(client, prompt)| {
                let barrier = &barrier;
                scope.spawn(move || ask(client, prompt, self.n_tokens, n_waves, barrier))
            });
            let threads = threads.collect::<Vec<_>>();
            // A wave begins when every client stands at the barrier for the first time, and ends at the second.
            for _ in 0..n_waves {
                barrier.wait();
                barrier.wait();
            }
            let mut answers = Vec::new();
            for thread in threads {
                let waves = thread.join().map_err(|_| anyhow!("the thread of a client panicked"))??;
                answers.push(waves.into_iter());
            }
            let mut seen = Seen::default();
            for _ in 0..n_waves {
                seen.add_wave(answers.iter_mut().filter_map(Iterator::next).collect(), self.n_tokens)?;
            }
            Ok(seen)
        })
    }

    /// Ends it as a service manager does.
    ///
    /// # Errors
    /// If it does not end in time, or not well.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("the daemon has no pid")?;
        kill_process(pid, Signal::TERM).context("cannot end the daemon")?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the daemon ended with {status}: {}", self.log());
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        bail!("the daemon does not end within {PATIENCE:?}: {}", self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client: in each wave it asks once. One that has failed still comes to the barrier, since the others wait there.
fn ask(
    mut client: Client,
    prompt: &str,
    n_tokens: u32,
    n_waves: usize,
    barrier: &Barrier,
) -> Result<Vec<Answer>> {
    let mut outcome = Ok(Vec::with_capacity(n_waves));
    for _ in 0..n_waves {
        barrier.wait();
        if let Ok(waves) = &mut outcome {
            match generate(&mut client, prompt, n_tokens) {
                Ok(answer) => waves.push(answer),
                Err(error) => outcome = Err(error),
            }
        }
        barrier.wait();
    }
    outcome
}

fn generate(client: &mut Client, prompt: &str, n_tokens: u32) -> Result<Answer> {
    let mut answer = Answer::new(n_tokens);
    client.generate(daemon_request(prompt, n_tokens), &mut |delta| {
        delta.choices.iter().for_each(|choice| answer.push(&choice.ids));
        Flow::Continue
    })?;
    Ok(answer)
}
