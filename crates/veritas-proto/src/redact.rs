//! `Debug` of the messages that hold a secret, or what a client or a model wrote.
//!
//! A derived one would show it, and the path from there into a log is short: `{:?}` of a request that failed. These say
//! how long the message is, and nothing else. Which messages have no derived `Debug` is listed in the generator.

use std::fmt;

use prost::{Message, Name};

use crate::v1;

macro_rules! redacted {
    ($($name:ident)*) => {$(
        impl fmt::Debug for v1::$name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({} bytes)", Self::NAME, self.encoded_len())
            }
        }
    )*};
}

redacted! {
    Hello Message TextPrompt TokenIds Sampling ChoiceDelta TopLogprobs Finish Choice TokenizeRequest TokenizeReply
    DetokenizeRequest DetokenizeReply EmbedRequest Embedding
}
