//! Limits on what a file may ask for, each far above any model that exists.

/// Layers of a model; the deepest published ones have about 130.
pub const LAYERS_MAX: usize = 1024;

/// Width of the hidden state, of a feed-forward layer or of all heads together.
pub const WIDTH_MAX: usize = 1 << 20;

/// Heads of an attention layer.
pub const HEADS_MAX: usize = 4096;

/// Values of one head; the attention kernels keep a tile of that width on the stack of a thread.
pub const HEAD_DIM_MAX: usize = 1024;

/// Positions that a model may say that it was trained for. It bounds what a user may ask for with `--ctx`.
pub const CONTEXT_MAX: usize = 1 << 28;
