//! `chat`: a conversation at a terminal, or one message a line from a pipe.
//!
//! The history is kept in memory alone, since what people type may be secret. Nothing of it is ever dropped unseen: when
//! it no longer fits the context, that is an error, and the user decides.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::json;
use veritas_proto::v1;
use veritas_proto::v1::generate_request::Prompt;

use crate::args::ChatArgs;
use crate::commands::conversation::{Conversation, check_date};
use crate::commands::talk::Talk;
use crate::failure::{Code, Failure};
use crate::screen::Screen;
use crate::{answer, interrupt, report, terminal};

const HELP: &str = "\
/help           show this
/reset          forget the conversation; the system message stays
/system [TEXT]  set the system message, or take it away; forgets the conversation
/save FILE      write the conversation to a new file, as JSON
/quit           end; so does Ctrl-D
Ctrl-C ends an answer. A message that begins with a slash is written with two.";

/// Bytes of a line from a pipe: far beyond any context.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Nothing,
    Message(&'a str),
    Help,
    Reset,
    System(&'a str),
    Save(&'a str),
    Quit,
    Unknown(&'a str),
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return if line.is_empty() { Self::Nothing } else { Self::Message(line) };
        };
        if command.starts_with('/') {
            return Self::Message(command);
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (name, rest.trim()) {
            ("help" | "?", "") => Self::Help,
            ("reset", "") => Self::Reset,
            ("system", text) => Self::System(text),
            ("save", file) if !file.is_empty() => Self::Save(file),
            ("quit" | "exit", "") => Self::Quit,
            _ => Self::Unknown(line),
        }
    }
}

/// Where lines come from.
enum Input {
    Terminal(Box<DefaultEditor>),
    Pipe(std::io::StdinLock<'static>),
}

impl Input {
    fn new() -> Result<Self, Failure> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self::Pipe(std::io::stdin().lock()));
        }
        let editor = DefaultEditor::new().map_err(|error| unreadable(&error))?;
        Ok(Self::Terminal(Box::new(editor)))
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line; `None` at the end.
    fn next(&mut self) -> Result<Option<String>, Failure> {
        match self {
            Self::Terminal(editor) => loop {
                match editor.readline("> ") {
                    Ok(line) => {
                        // A history that cannot take a line costs an arrow key, nothing more.
                        let _ = editor.add_history_entry(&line);
                        return Ok(Some(line));
                    }
                    Err(ReadlineError::Interrupted) => terminal::say(format_args!("(Ctrl-D ends)")),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(unreadable(&error)),
                }
            },
            Self::Pipe(stdin) => {
                let mut line = Vec::new();
                let n_bytes =
                    std::io::Read::take(&mut *stdin, LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
                if line.len() as u64 > LINE_BYTES_MAX {
                    return Err(Failure::usage(format!("a message has more than {LINE_BYTES_MAX} bytes")));
                }
                let line = String::from_utf8(line).map_err(|_| Failure::usage("a message is not UTF-8"))?;
                Ok((n_bytes > 0).then_some(line))
            }
        }
    }
}

fn unreadable(error: &ReadlineError) -> Failure {
    Failure::new(Code::Internal, format!("cannot read from the terminal: {error}"))
}

pub(crate) fn run(args: &ChatArgs) -> Result<(), Failure> {
    interrupt::install()?;
    check_date(args.now.as_deref())?;
    let mut sampling = args.sampling.to_wire();
    sampling.seed = Some(match args.sampling.seed {
        Some(seed) => seed,
        None => random_seed()?,
    });
    Talk::with(args, |talk| converse(args, sampling, talk))
}

fn converse(args: &ChatArgs, sampling: v1::Sampling, talk: &mut Talk<'_>) -> Result<(), Failure> {
    let mut input = Input::new()?;
    let mut chat = Chat {
        args,
        talk,
        conversation: Conversation::new(args.system.as_deref()),
        sampling,
        n_turns: 0,
        n_refused: 0,
        is_terminal: input.is_terminal(),
    };
    if chat.is_terminal && !args.output.quiet {
        terminal::say(format_args!("/help shows the commands; Ctrl-D ends"));
    }
    while let Some(line) = input.next()? {
        if !chat.take(&line)? {
            break;
        }
    }
    // At a terminal the user has seen and answered what was refused; a script looks at the exit status.
    match chat.n_refused {
        0 => Ok(()),
        _ if chat.is_terminal => Ok(()),
        n => Err(Failure::usage(format!("{n} lines were refused"))),
    }
}

/// The seed of a conversation for which none was given. JSON readers keep whole numbers up to 2^53.
fn random_seed() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Failure::new(Code::Internal, format!("the system gives no random seed: {error}"))
            .hint("give one with --seed")
    })?;
    Ok(u64::from_le_bytes(bytes) >> 11)
}

struct Chat<'a, 'b> {
    args: &'a ChatArgs,
    talk: &'a mut Talk<'b>,
    conversation: Conversation,
    sampling: v1::Sampling,
    n_turns: u64,
    n_refused: u64,
    is_terminal: bool,
}

impl Chat<'_, '_> {
    /// Does what a line asks for; `false` if it ends the chat. An error ends it too; what can be mended is reported and
    /// counted instead.
    fn take(&mut self, line: &str) -> Result<bool, Failure> {
        match Line::parse(line) {
            Line::Nothing => {}
            Line::Message(text) => self.answer(text)?,
            Line::Help => terminal::say(format_args!("{HELP}")),
            Line::Reset => {
                self.conversation.reset();
                self.note("the conversation is forgotten");
            }
            Line::System(text) => {
                self.conversation.set_system((!text.is_empty()).then(|| text.to_owned()));
                self.conversation.reset();
                self.note(if text.is_empty() { "no system message" } else { "the system message is set" });
            }
            Line::Save(file) => {
                if let Err(failure) = self.save(Path::new(file)) {
                    self.refuse(&failure);
                }
            }
            Line::Quit => return Ok(false),
            Line::Unknown(line) => {
                let command = line.split_whitespace().next().unwrap_or(line);
                let message = format!("{command} is not a command in this form");
                self.refuse(&Failure::usage(message).hint("see /help"));
            }
        }
        Ok(true)
    }

    fn note(&self, text: &str) {
        if self.is_terminal && !self.args.output.quiet {
            terminal::say(format_args!("({text})"));
        }
    }

    fn refuse(&mut self, failure: &Failure) {
        self.n_refused += 1;
        failure.report(self.args.output.json);
    }

    fn answer(&mut self, text: &str) -> Result<(), Failure> {
        self.conversation.push("user", text);
        match self.generate() {
            Ok(answer) => {
                self.conversation.push("assistant", answer);
                self.n_turns += 1;
            }
            // What the worker or the daemon says of the conversation can be mended; a lost connection cannot.
            Err(failure) if matches!(failure.code(), Code::ContextExceeded | Code::Usage) => {
                // A message that was not answered is not part of the conversation.
                self.conversation.pop();
                self.refuse(&failure);
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn request(&self) -> v1::GenerateRequest {
        // Each turn draws other numbers; the first one those that `run` draws with the same seed.
        let seed = self.sampling.seed.map(|seed| seed.wrapping_add(self.n_turns));
        let chat = v1::ChatPrompt { messages: self.conversation.to_wire(), ..v1::ChatPrompt::default() };
        v1::GenerateRequest {
            prompt: Some(Prompt::Chat(chat)),
            sampling: Some(v1::Sampling { seed, ..self.sampling.clone() }),
            n_choices: 1,
            stream: true,
            now: self.args.now.clone().unwrap_or_default(),
            ..v1::GenerateRequest::default()
        }
    }

    /// Streams the answer to stdout and returns it. An interrupt ends it early.
    fn generate(&mut self) -> Result<String, Failure> {
        let request = self.request();
        let shows = !self.args.output.json;
        let mut stdout = Screen::stdout(false);
        let finish = self.talk.generate(&request, &mut |part| {
            if shows && !part.text.is_empty() {
                stdout.write_all(part.text.as_bytes())?;
                stdout.flush()?;
            }
            Ok(())
        });
        let finish = finish.map_err(|failure| match failure.code() {
            Code::ContextExceeded => {
                failure.hint("/reset forgets the conversation; --ctx makes room where the model has it")
            }
            _ => failure,
        })?;
        let reason = finish.choices[0].finish_reason();
        let text = finish.choices[0].text.clone();
        if self.args.output.json {
            let line = report::line(&json!({"text": text, "finish_reason": answer::reason_name(reason)}));
            writeln!(stdout, "{line}")?;
        } else {
            writeln!(stdout)?;
        }
        stdout.flush()?;
        drop(stdout);
        let n_context = self.talk.n_context();
        if interrupt::requested() {
            if !self.is_terminal {
                return Err(Failure::interrupted());
            }
            interrupt::clear();
            self.note("interrupted");
        } else if reason == v1::FinishReason::Length && self.is_full(&finish, n_context) {
            self.note(&format!("the context of {n_context} tokens is full; /reset begins anew"));
        }
        Ok(text)
    }

    fn is_full(&self, finish: &v1::Finish, n_context: u64) -> bool {
        let usage = finish.usage.unwrap_or_default();
        usage.prompt_tokens + usage.completion_tokens >= n_context
    }

    /// Writes the messages to a file that does not exist yet, readable for its owner alone.
    fn save(&self, path: &Path) -> Result<(), Failure> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let cannot = |error: std::io::Error| {
            Failure::new(Code::Internal, format!("cannot write {}: {error}", path.display()))
        };
        let mut file = options.open(path).map_err(cannot)?;
        let line = report::line(&json!({"messages": self.conversation.messages()}));
        writeln!(file, "{line}").map_err(cannot)?;
        self.note(&format!("saved to {}", path.display()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_unless_a_single_slash_begins_them() {
        assert_eq!(Line::parse("  hello /help \n"), Line::Message("hello /help"));
        assert_eq!(Line::parse("//etc/hosts"), Line::Message("/etc/hosts"));
        assert_eq!(Line::parse(" \n"), Line::Nothing);
        assert_eq!(Line::parse("/system  be brief "), Line::System("be brief"));
        assert_eq!(Line::parse("/system"), Line::System(""));
        assert_eq!(Line::parse("/save a b.json"), Line::Save("a b.json"));
        assert_eq!(Line::parse("/save"), Line::Unknown("/save"));
        assert_eq!(Line::parse("/quit"), Line::Quit);
        assert_eq!(Line::parse("/nonsense x"), Line::Unknown("/nonsense x"));
    }
}
