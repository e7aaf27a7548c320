//! What the step loop asks of a device: run some layers over a batch.

use std::ops::Range;

use veritas_base::TokenId;

use crate::error::Error;
use crate::rope::RopeReach;

/// Which rows of a batch entry get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsWanted {
    /// None: the tokens are computed for their keys and values alone.
    None,
    /// The last token.
    Last,
    /// Every token.
    All,
    /// Every token from this row of the entry on; at least one.
    From(usize),
}

/// The tokens of one sequence in a step.
#[derive(Clone, Debug)]
pub struct BatchEntry {
    /// Token ids, each below the vocabulary's size.
    pub tokens: Vec<TokenId>,
    /// Position of the first token.
    pub start: usize,
    /// Pages of the KV cache for the positions from 0 to the last token.
    pub block_table: Vec<u32>,
    /// Which rotary factors the sequence uses.
    pub reach: RopeReach,
    /// Which tokens get logits.
    pub logits: LogitsWanted,
}

impl BatchEntry {
    /// The rows within the entry that get logits.
    pub fn logit_rows(&self) -> Range<usize> {
        let n = self.tokens.len();
        match self.logits {
            LogitsWanted::None => n..n,
            LogitsWanted::Last => n - 1..n,
            LogitsWanted::All => 0..n,
            LogitsWanted::From(first) => first.min(n)..n,
        }
    }
}

/// What one step computes. Rows are the tokens of all entries, in order. Before they are computed, pages of the KV cache
/// are overwritten with zeros, then copied.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Pages to overwrite with zeros.
    pub zeroise: Vec<u32>,
    /// Pages to copy: from, to.
    pub copies: Vec<(u32, u32)>,
    /// One entry per sequence.
    pub entries: Vec<BatchEntry>,
}

impl Batch {
    /// Tokens of all entries.
    pub fn n_rows(&self) -> usize {
        self.entries.iter().map(|entry| entry.tokens.len()).sum()
    }

    /// The rows of the batch that get logits, in order.
    pub fn logit_rows(&self) -> Vec<usize> {
        let mut first = 0;
        let mut rows = Vec::new();
        for entry in &self.entries {
            rows.extend(entry.logit_rows().map(|row| first + row));
            first += entry.tokens.len();
        }
        rows
    }
}

/// A part of a plan that one device holds: a stretch of layers, with the embedding before the first and the head after
/// the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The layers.
    pub layers: Range<usize>,
    /// All layers of the plan.
    pub n_layers: usize,
}

impl Stage {
    /// The whole plan.
    pub fn whole(n_layers: usize) -> Self {
        Self { layers: 0..n_layers, n_layers }
    }

    /// Whether the stage begins with token ids.
    pub fn has_embedding(&self) -> bool {
        self.layers.start == 0
    }

    /// Whether the stage ends with logits.
    pub fn has_head(&self) -> bool {
        self.layers.end == self.n_layers
    }
}

/// A device that holds a stage: its weights and its part of the KV cache.
pub trait Backend: Send {
    /// The stage that it holds.
    fn stage(&self) -> &Stage;

    /// Computes the stage over a batch. `values` is what the stage before gave, hidden states as `[rows, hidden]`, and
    /// anything for the first; it becomes what this one gives: hidden states, or, from a stage with the head, the logits
    /// of the rows that want them, `[logit rows, n_vocab]`.
    ///
    /// # Errors
    /// If a value of the model makes the step impossible.
    fn run(&mut self, batch: &Batch, values: &mut Vec<f32>) -> Result<(), Error>;

    /// From now on, keep the hidden states of each step for [`Backend::take_hidden`].
    fn capture_hidden(&mut self);

    /// The hidden states of the last step, if they are kept: the embedding's output, then what follows each layer, the
    /// last of them after the final norm; each `[rows, hidden]`.
    fn take_hidden(&mut self) -> Vec<Vec<f32>>;
}
