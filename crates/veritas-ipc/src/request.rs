//! Requests that have one answer: which kind they are, and which kind answers them.

use veritas_proto::{Kind, Message, Name, v1};

/// A request with one answer.
pub trait Unary: Message {
    /// The answer.
    type Reply: Message + Name + Default;
    /// The kind of the request's frame.
    const KIND: Kind;
    /// The kind of the answer's frame.
    const REPLY_KIND: Kind;
    /// What is waited for, in words.
    const WHAT: &'static str;
    /// Whether it may be sent again when it is not known whether it has been carried out.
    const IS_IDEMPOTENT: bool;
}

macro_rules! unary {
    ($($request:ident $kind:ident => $reply:ident $reply_kind:ident, $idempotent:literal, $what:literal;)*) => {
        $(impl Unary for v1::$request {
            type Reply = v1::$reply;
            const KIND: Kind = Kind::$kind;
            const REPLY_KIND: Kind = Kind::$reply_kind;
            const WHAT: &'static str = $what;
            const IS_IDEMPOTENT: bool = $idempotent;
        })*
    };
}

unary! {
    TokenizeRequest TOKENIZE => TokenizeReply TOKENIZE_REPLY, true, "the answer to tokenize";
    DetokenizeRequest DETOKENIZE => DetokenizeReply DETOKENIZE_REPLY, true, "the answer to detokenize";
    EmbedRequest EMBED => EmbedReply EMBED_REPLY, true, "the answer to embed";
    ModelLoadRequest MODEL_LOAD => ModelList MODEL_REPLY, false, "loading the model";
    ModelUnloadRequest MODEL_UNLOAD => ModelList MODEL_REPLY, false, "unloading the model";
    ModelListRequest MODEL_LIST => ModelList MODEL_REPLY, true, "the list of models";
    ModelInfoRequest MODEL_INFO => ModelList MODEL_REPLY, true, "the answer about the model";
    LiveRequest LIVE => LiveReply LIVE_REPLY, true, "the answer to live";
    ReadyRequest READY => ReadyReply READY_REPLY, true, "the answer to ready";
    HealthRequest HEALTH => HealthReply HEALTH_REPLY, true, "the answer to health";
    StatusRequest STATUS => StatusReply STATUS_REPLY, true, "the answer to status";
    MetricsRequest METRICS => MetricsReply METRICS_REPLY, true, "the metrics";
    DrainRequest DRAIN => DrainReply DRAIN_REPLY, false, "the answer to drain";
    ReloadRequest RELOAD => ReloadReply RELOAD_REPLY, false, "the answer to reload";
}
