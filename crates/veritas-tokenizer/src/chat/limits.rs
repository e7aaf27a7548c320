//! Limits on templates and chats, each with its reason. Both may be hostile.

/// Bytes of a template's source. The longest published ones have 40 kB.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;

/// Bytes of all strings of a chat. More does not fit a context, and could not be rendered.
pub const MAX_CHAT_BYTES: usize = 4 << 20;

/// Values (strings, numbers, lists, objects) of a chat: each takes memory of its own.
pub const MAX_CHAT_VALUES: usize = 1 << 18;

/// Depth of lists and objects in a chat, as in serde_json's parser.
pub const MAX_CHAT_DEPTH: usize = 128;

/// Bytes of a rendered text.
pub const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// Work that a template may do on an empty chat, in minijinja's fuel: one per instruction and per 64 bytes that it
/// makes or reads. The published templates take at most some ten thousand. It bounds memory too, to 64 bytes each.
pub const FUEL_BASE: u64 = 1_000_000;

/// More work per byte of the chat: a template may look at each character a few times.
pub const FUEL_PER_BYTE: u64 = 1;

/// Depth of macro calls, blocks and recursive loops.
pub const MAX_RECURSION: usize = 100;

/// Depth of the lists and objects that `tojson` writes.
pub const MAX_JSON_DEPTH: usize = 128;

/// Characters of a role.
pub const MAX_ROLE_CHARS: usize = 64;

/// Bytes of a control token that are looked at where template text and message text could make one together. Published
/// ones have at most 40; the bound keeps that search cheap. Whole occurrences are found whatever their length.
pub const MAX_SPLIT_CONTROL_BYTES: usize = 128;
