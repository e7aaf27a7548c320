//! What is asked of the scheduler, and a sequence while it has it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use veritas_base::TokenId;

use crate::block_pool::{BlockId, GroupId, Parent, Scope};

/// Names a sequence; never used twice. Sequences that came later have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// Names a principal: the user whom the kernel vouches for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrincipalId(pub u32);

/// Which sequences of a principal go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// As it comes.
    #[default]
    Normal,
    /// Before those that are normal.
    High,
    /// Before all others.
    Critical,
}

impl Priority {
    pub(crate) const COUNT: usize = 4;
}

/// For whom a sequence is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Who asks.
    pub principal: PrincipalId,
    /// With whom the principal shares cached prefixes.
    pub group: GroupId,
    /// The principal's share of the computation, beside the others' weights; at least 1.
    pub weight: u32,
}

impl Default for Client {
    fn default() -> Self {
        Self { principal: PrincipalId::default(), group: GroupId::default(), weight: 1 }
    }
}

/// A sequence to compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceSpec {
    /// The prompt; not empty.
    pub prompt: Vec<TokenId>,
    /// Tokens to generate at most; 0 to compute the prompt alone.
    pub n_new_max: usize,
    /// A sequence of the same client with the same prompt. This one waits until that one's prompt is computed, and
    /// computes nothing of it again but its last token.
    pub same_prompt_as: Option<SequenceId>,
    /// For whom.
    pub client: Client,
    /// How urgently.
    pub priority: Priority,
    /// When it ends unanswered, in the unit of [`Scheduler::expire`](crate::Scheduler::expire).
    pub deadline: Option<u64>,
    /// What the computation depends on besides tokens; only sequences with the same share pages.
    pub variant: u64,
    /// Whether pages that are computed already are used. Without, every token of the prompt is computed.
    pub takes_hits: bool,
}

impl SequenceSpec {
    /// A sequence of the default client, with normal priority and without a deadline.
    pub fn new(prompt: Vec<TokenId>, n_new_max: usize) -> Self {
        Self {
            prompt,
            n_new_max,
            same_prompt_as: None,
            client: Client::default(),
            priority: Priority::Normal,
            deadline: None,
            variant: 0,
            takes_hits: true,
        }
    }
}

/// Where a sequence is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Until the prompt of another sequence is computed.
    Parked,
    /// For a place among those that run.
    Waiting,
    /// It has pages, or gets some in the next step.
    Running,
}

#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    pub(crate) client: Client,
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<u64>,
    pub(crate) scope: Scope,
    pub(crate) takes_hits: bool,
    pub(crate) state: State,
    /// Nothing of it is computed until it is resumed.
    pub(crate) is_paused: bool,
    /// Cancelled within a step, at whose end it goes.
    pub(crate) is_cancelled: bool,
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) n_prompt: usize,
    pub(crate) n_tokens_max: usize,
    pub(crate) n_computed: usize,
    pub(crate) blocks: Vec<BlockId>,
    /// Whole pages whose content was made known, or was found, and what a page after them follows.
    pub(crate) n_registered: usize,
    pub(crate) parent: Parent,
    pub(crate) same_prompt_as: Option<SequenceId>,
    pub(crate) followers: Vec<SequenceId>,
    /// Tokens of the prompt that were not computed for it; from when it first runs.
    pub(crate) n_cached: Option<usize>,
    pub(crate) n_preempted: u32,
    /// The last step that computed something of it; at first the one before it came.
    pub(crate) last_step: u64,
}

impl Sequence {
    pub(crate) fn n_open(&self) -> usize {
        self.tokens.len() - self.n_computed
    }

    /// Whether all that is left to compute is the token that was drawn last.
    pub(crate) fn decodes(&self) -> bool {
        self.tokens.len() > self.n_prompt && self.n_open() == 1
    }

    /// Which goes first, the greatest: by priority, raised by one for each `aging_steps` steps without progress, so that
    /// nothing waits for ever; among equals the oldest.
    pub(crate) fn urgency(&self, step: u64, aging_steps: u64) -> (u64, Reverse<SequenceId>) {
        (self.priority as u64 + (step - self.last_step) / aging_steps, Reverse(self.id))
    }
}

/// All sequences of a scheduler.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequences {
    slots: Vec<Option<Box<Sequence>>>,
    free: Vec<Slot>,
    by_id: BTreeMap<SequenceId, Slot>,
}

impl Sequences {
    pub(crate) fn insert(&mut self, sequence: Sequence) -> Slot {
        let id = sequence.id;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot(self.slots.len() as u32 - 1)
        });
        self.slots[slot.0 as usize] = Some(Box::new(sequence));
        self.by_id.insert(id, slot);
        slot
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Box<Sequence> {
        let sequence = self.slots[slot.0 as usize].take().expect("a slot that is in use");
        self.by_id.remove(&sequence.id);
        self.free.push(slot);
        sequence
    }

    pub(crate) fn slot(&self, id: SequenceId) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn by_id(&self, id: SequenceId) -> Option<&Sequence> {
        self.slot(id).map(|slot| &self[slot])
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// In the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &Sequence)> {
        self.by_id.values().map(|&slot| (slot, &self[slot]))
    }
}

impl Index<Slot> for Sequences {
    type Output = Sequence;

    fn index(&self, slot: Slot) -> &Sequence {
        self.slots[slot.0 as usize].as_deref().expect("a slot that is in use")
    }
}

impl IndexMut<Slot> for Sequences {
    fn index_mut(&mut self, slot: Slot) -> &mut Sequence {
        self.slots[slot.0 as usize].as_deref_mut().expect("a slot that is in use")
    }
}
