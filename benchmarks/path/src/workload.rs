//! What is asked of both variants, and what is taken down of an answer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use veritas_base::TokenId;
use veritas_engine::sampler::SamplingParams;
use veritas_engine::{Client, Model, Priority, Request};
use veritas_proto::v1;
use veritas_proto::v1::generate_request::Prompt;
use veritas_tokenizer::{EncodeOptions, Tokenizer};

use crate::statistics::percentile;

/// Tokens that a prompt has at least; it has no word more than that takes.
const N_PROMPT_MIN: usize = 16;
/// Most clients at once.
pub(crate) const CLIENTS_MAX: usize = 64;
/// Nothing is drawn at temperature 0, but both variants get the same seed all the same.
const SEED: u64 = 7;

/// Words of which the prompts are made, each from another place on, so that no two clients ask for the same.
const WORDS: &str = "Once upon a time there was a small red boat that wanted to see the big blue sea and find a \
    friend who could sing with the birds in the green tree near the old house by the river where a happy dog and a \
    little cat liked to play in the warm sun all day long until the moon came up over the quiet hill";

/// One prompt for each client.
///
/// # Errors
/// If the tokenizer cannot express the words.
pub(crate) fn prompts(tokenizer: &Tokenizer) -> Result<Vec<String>> {
    (0..CLIENTS_MAX).map(|client| prompt(tokenizer, client)).collect()
}

fn prompt(tokenizer: &Tokenizer, client: usize) -> Result<String> {
    let mut text = String::new();
    for word in WORDS.split(' ').cycle().skip(client).take(N_PROMPT_MIN) {
        text.push_str(if text.is_empty() { "" } else { " " });
        text.push_str(word);
        if encode(tokenizer, &text)?.len() >= N_PROMPT_MIN {
            break;
        }
    }
    Ok(text)
}

/// The tokens of a raw prompt, as the daemon makes them.
///
/// # Errors
/// If the tokenizer cannot express it.
pub(crate) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<TokenId>> {
    Ok(tokenizer.encode(text, EncodeOptions { add_special: true, parse_special: false })?)
}

/// The request to the engine, for `n_tokens`.
///
/// # Errors
/// If the prompt cannot be encoded or the model's defaults make no sense.
pub(crate) fn engine_request(model: &Model, prompt: &str, n_tokens: u32) -> Result<Request> {
    let sampling = SamplingParams {
        seed: Some(SEED),
        temperature: 0.0,
        max_tokens: Some(n_tokens),
        ignore_eos: true,
        logprobs: None,
        ..model.sampling_defaults()?
    };
    let prompt = encode(model.tokenizer(), prompt)?;
    Ok(Request {
        prompt,
        sampling,
        n_choices: 1,
        prompt_logprobs: false,
        client: Client::default(),
        priority: Priority::default(),
        deadline: None,
    })
}

/// The same request to the daemon.
pub(crate) fn daemon_request(prompt: &str, n_tokens: u32) -> v1::GenerateRequest {
    v1::GenerateRequest {
        prompt: Some(Prompt::Text(v1::TextPrompt { text: prompt.to_owned(), parse_special: false })),
        sampling: Some(v1::Sampling {
            seed: Some(SEED),
            temperature: Some(0.0),
            max_tokens: Some(n_tokens),
            ignore_eos: true,
            ..v1::Sampling::default()
        }),
        stream: true,
        ..v1::GenerateRequest::default()
    }
}

/// An answer as its client saw it.
pub(crate) struct Answer {
    /// When it was asked for.
    pub(crate) asked: Instant,
    /// Its tokens.
    pub(crate) ids: Vec<TokenId>,
    /// When each of them came.
    pub(crate) arrivals: Vec<Instant>,
}

impl Answer {
    /// An answer of `n_tokens` that is asked for just now.
    pub(crate) fn new(n_tokens: u32) -> Self {
        let n_tokens = n_tokens as usize;
        let (ids, arrivals) = (Vec::with_capacity(n_tokens), Vec::with_capacity(n_tokens));
        Self { asked: Instant::now(), ids, arrivals }
    }

    /// Takes down tokens that came just now.
    pub(crate) fn push(&mut self, ids: &[TokenId]) {
        let now = Instant::now();
        self.ids.extend_from_slice(ids);
        self.arrivals.extend(ids.iter().map(|_| now));
    }
}

/// What the clients of one or more waves saw: in each wave all of them ask at once, and the next one begins when the
/// last of them has its answer.
#[derive(Default)]
pub(crate) struct Seen {
    /// Microseconds from the request to its first token.
    ttft_us: Vec<f64>,
    /// Microseconds from a token to the next of the same answer.
    gap_us: Vec<f64>,
    n_tokens: usize,
    /// From the first request of each wave to its last token, summed up.
    elapsed: Duration,
    /// The tokens of each client's answer in the last wave.
    ids: Vec<Vec<TokenId>>,
}

impl Seen {
    /// Takes in a wave of answers with `n_tokens` each.
    ///
    /// # Errors
    /// If there is no answer, or one has not the tokens that were asked for.
    pub(crate) fn add_wave(&mut self, answers: Vec<Answer>, n_tokens: u32) -> Result<()> {
        let began = answers.iter().map(|answer| answer.asked).min().context("a wave without clients")?;
        let mut last = began;
        self.ids.clear();
        for answer in answers {
            let found = answer.ids.len();
            ensure!(found == n_tokens as usize, "an answer has {found} tokens instead of {n_tokens}");
            self.ttft_us.push(micros(answer.arrivals[0] - answer.asked));
            self.gap_us.extend(answer.arrivals.windows(2).map(|pair| micros(pair[1] - pair[0])));
            self.n_tokens += found;
            last = last.max(answer.arrivals[found - 1]);
            self.ids.push(answer.ids);
        }
        self.elapsed += last - began;
        Ok(())
    }

    /// Tokens of each client's answer in the last wave.
    pub(crate) fn ids(&self) -> &[Vec<TokenId>] {
        &self.ids
    }

    /// Tokens in all.
    pub(crate) fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Time of all waves.
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The figures of a round.
    ///
    /// # Errors
    /// If there was no wave.
    pub(crate) fn figures(mut self) -> Result<Figures> {
        Ok(Figures {
            ttft_p50_us: percentile(&mut self.ttft_us, 0.5)?,
            ttft_p99_us: percentile(&mut self.ttft_us, 0.99)?,
            gap_p50_us: percentile(&mut self.gap_us, 0.5)?,
            gap_p99_us: percentile(&mut self.gap_us, 0.99)?,
            tokens_per_s: self.n_tokens as f64 / self.elapsed.as_secs_f64(),
        })
    }
}

/// The figures of one variant in one round.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Figures {
    pub(crate) ttft_p50_us: f64,
    pub(crate) ttft_p99_us: f64,
    pub(crate) gap_p50_us: f64,
    pub(crate) gap_p99_us: f64,
    pub(crate) tokens_per_s: f64,
}

/// Microseconds.
pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const N_NEW: u32 = 64;

    fn answer(began: Instant, first_us: u64, gap_us: u64) -> Answer {
        let arrivals = (0..u64::from(N_NEW)).map(|i| began + Duration::from_micros(first_us + i * gap_us));
        Answer { asked: began, ids: vec![1; N_NEW as usize], arrivals: arrivals.collect() }
    }

    #[test]
    fn a_wave_lasts_until_its_last_token() {
        let began = Instant::now();
        let mut seen = Seen::default();
        seen.add_wave(vec![answer(began, 100, 10), answer(began, 300, 20)], N_NEW).unwrap();
        assert_eq!(seen.n_tokens(), 128);
        assert_eq!(seen.elapsed(), Duration::from_micros(300 + 63 * 20));
        let figures = seen.figures().unwrap();
        assert!((figures.ttft_p50_us - 100.0).abs() < 1e-6 && (figures.ttft_p99_us - 300.0).abs() < 1e-6);
        assert!((figures.gap_p50_us - 10.0).abs() < 1e-6 && (figures.gap_p99_us - 20.0).abs() < 1e-6);
    }

    #[test]
    fn a_short_answer_is_an_error() {
        let began = Instant::now();
        let mut short = answer(began, 1, 1);
        short.ids.pop();
        short.arrivals.pop();
        assert!(Seen::default().add_wave(vec![short], N_NEW).is_err());
    }
}
