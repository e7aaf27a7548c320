use super::limits::{MAX_CHAT_BYTES, MAX_CHAT_DEPTH, MAX_CHAT_VALUES, MAX_OUTPUT_BYTES, MAX_TEMPLATE_BYTES};

/// Why a template was refused, or a chat could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The template is no valid Jinja, or uses something that is not there.
    #[error("the chat template is not valid at line {line}: {message}")]
    Syntax {
        /// Line of the template, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The template refused the chat by its own `raise_exception`.
    #[error("the chat template refuses this chat: {message}")]
    Raised {
        /// The template's own words.
        message: String,
    },
    /// The template failed on this chat.
    #[error("the chat template failed at line {line}: {message}")]
    Render {
        /// Line of the template, from 1; 0 if not known.
        line: usize,
        /// What happened.
        message: String,
    },
    /// The template does more work than a template may.
    #[error("the chat template does too much work: more than {fuel} steps")]
    TooMuchWork {
        /// The limit.
        fuel: u64,
    },
    /// The system gave no thread with a stack of this size.
    #[error("a thread with a stack of {bytes} bytes for the chat template could not be started: {message}")]
    NoThread {
        /// Bytes of the stack.
        bytes: usize,
        /// What the system says.
        message: String,
    },
    /// The rendered text is too long.
    #[error("the rendered chat has more than {MAX_OUTPUT_BYTES} bytes")]
    OutputTooLong,
    /// The template is too long.
    #[error("the chat template has {found} bytes; at most {MAX_TEMPLATE_BYTES} are read")]
    TemplateTooLong {
        /// Its length.
        found: usize,
    },
    /// The chat is too large.
    #[error(
        "the chat is too large: at most {MAX_CHAT_BYTES} bytes in {MAX_CHAT_VALUES} values, {MAX_CHAT_DEPTH} levels deep"
    )]
    ChatTooLarge,
    /// `messages` is not a list of objects.
    #[error("messages must be a list of objects")]
    MessagesNotAList,
    /// A role could be anything but the name of a role.
    #[error("the role {found:?} of message {index} is not allowed: expected 1 to 64 of A-Z a-z 0-9 _ . -")]
    InvalidRole {
        /// Number of the message, from 0.
        index: usize,
        /// The role found, cut to a line.
        found: String,
    },
    /// Too many roles or keys of the chat lie inside control tokens and are names that the template knows.
    #[error("the chat has too many names that could be a part of a control token: use fewer roles and keys")]
    TooManyNames,
    /// A date that does not exist, or in another form.
    #[error("{found:?} is not a date: expected YYYY-MM-DD")]
    InvalidDate {
        /// What was given.
        found: String,
    },
    /// Every character that could break up control tokens occurs in the chat or in the template.
    #[error("the chat contains every Unicode noncharacter, so none is left to mark control tokens with")]
    NoFreeGuard,
}
