//! Limits on templates and chats, each with its reason. Both may be hostile.

/// Bytes of a template's source. The longest published ones have 40 kB. An expression may nest once per byte or so,
/// and the compiler recurses over it; see [`COMPILE_STACK_BYTES`].
pub const MAX_TEMPLATE_BYTES: usize = 128 << 10;

/// Bytes of all strings of a chat. More does not fit a context, and could not be rendered.
pub const MAX_CHAT_BYTES: usize = 4 << 20;

/// Values (strings, numbers, lists, objects) of a chat: each takes memory of its own.
pub const MAX_CHAT_VALUES: usize = 1 << 18;

/// Depth of lists and objects in a chat, as in serde_json's parser.
pub const MAX_CHAT_DEPTH: usize = 128;

/// Bytes of a rendered text.
pub const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// Work that a template may do on an empty chat, in minijinja's fuel: one per instruction and per 64 bytes that it
/// makes or reads. It bounds memory too, to 64 bytes each, and the depth of the values that a template can build.
pub const FUEL_BASE: u64 = 250_000;

/// More work per value of the chat: a message is three or more, and a template takes some hundred steps for each.
pub const FUEL_PER_VALUE: u64 = 1_000;

/// More work per this many bytes of the chat: a template may read each character some twenty times.
pub const BYTES_PER_FUEL: u64 = 4;

/// Most work, whatever the chat: enough to read each character of the largest one twenty times and to take a hundred steps
/// for each of 7,000 messages. More would need a stack beyond 1 GiB.
pub const MAX_FUEL: u64 = 2_000_000;

/// Stack of the thread that compiles a template. minijinja recurses over long chains such as `--------1`, which its
/// own limit on nesting does not count: 330 to 650 bytes per level were measured, and a level takes a byte.
pub const COMPILE_STACK_BYTES: usize = 128 << 20;

/// Stack of the thread that renders, apart from what the depth of values needs.
pub const RENDER_STACK_BYTES: usize = 16 << 20;

/// Stack per unit of fuel. `{% set ns.x = [ns.x] %}` in a loop nests values without end, and to compare, print or drop
/// one recurses: up to 450 bytes per level were measured, up to 585 in a debug build, and a level takes at least one and a
/// half units. The memory is reserved, and becomes real only as far as the stack grows.
pub const RENDER_STACK_BYTES_PER_FUEL: usize = 512;

/// The largest stack that a template needs, 1,040,777,216 bytes. Processes that limit their address space or their data
/// have to leave room for it.
pub const MAX_STACK_BYTES: usize = RENDER_STACK_BYTES + MAX_FUEL as usize * RENDER_STACK_BYTES_PER_FUEL;

/// Calls that wait for the thread of [`start_render_thread`](super::start_render_thread) beside the one that it works
/// for. Further callers wait before they hand over their chat.
pub const RENDER_THREAD_QUEUE: usize = 16;

const _: () = assert!(MAX_STACK_BYTES <= 1 << 30 && COMPILE_STACK_BYTES <= MAX_STACK_BYTES);

/// Depth of macro calls, blocks and recursive loops.
pub const MAX_RECURSION: usize = 100;

/// Depth of the lists and objects that `tojson` writes.
pub const MAX_JSON_DEPTH: usize = 128;

/// Characters of a role.
pub const MAX_ROLE_CHARS: usize = 64;

/// Renderings that may be spent on finding out which names a template knows. All published ones need a handful: about two
/// for each known name, and they know at most ten that are not standard roles.
pub const MAX_NAME_RENDERS: usize = 64;

/// Bytes of a control token that are looked at where template text and message text could make one together. Published
/// ones have at most 40; the bound keeps that search cheap. Whole occurrences are found whatever their length.
pub const MAX_SPLIT_CONTROL_BYTES: usize = 128;
