//! Texts to tokens and back: what a worker does for a request before and beside its computation.
//!
//! Roles cannot be forged: control tokens come from the template's own text alone, whatever the messages say. The guarded
//! rendering of `veritas_tokenizer::chat` sees to it.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use veritas_base::TokenId;
use veritas_engine::sampler::SamplingParams;
use veritas_engine::{Client, GroupId, Model, PrincipalId, Priority, Request};
use veritas_gguf::Metadata;
use veritas_proto::v1;
use veritas_tokenizer::chat::{ChatInput, ChatTemplate, Date};
use veritas_tokenizer::{EncodeOptions, Tokenizer};

use super::sampling;
use crate::failure::{Code, Failure};
use crate::link::Admission;

/// A request that is ready to be computed.
pub(super) struct Prepared {
    pub(super) request: Request,
    pub(super) stream: bool,
    pub(super) received: Instant,
}

impl Prepared {
    /// Takes in for whom the request is.
    pub(super) fn admit(&mut self, admission: &Admission, now_ms: u64) {
        let Admission { principal, group, weight, deadline_ms } = *admission;
        self.request.client = Client { principal: PrincipalId(principal), group: GroupId(group), weight };
        self.request.deadline = deadline_ms.map(|left_ms| now_ms.saturating_add(left_ms));
    }
}

/// What texts need of a model: its vocabulary, its template, its sampling defaults.
pub(super) struct Texts {
    tokenizer: Arc<Tokenizer>,
    architecture: String,
    template_source: Option<String>,
    /// Compiled when it is first needed: a template with an error does not keep a model from continuing texts.
    template: OnceLock<Result<Option<ChatTemplate>, Failure>>,
    defaults: SamplingParams,
}

impl Texts {
    pub(super) fn of_model(model: &Model) -> Result<Self, Failure> {
        Self::new(Arc::clone(model.tokenizer()), model.files().metadata())
    }

    pub(super) fn of_metadata(metadata: &Metadata) -> Result<Self, Failure> {
        Self::new(Arc::new(Tokenizer::from_gguf(metadata)?), metadata)
    }

    fn new(tokenizer: Arc<Tokenizer>, metadata: &Metadata) -> Result<Self, Failure> {
        Ok(Self {
            tokenizer,
            architecture: architecture(metadata).to_owned(),
            template_source: metadata.opt_str("tokenizer.chat_template")?.map(str::to_owned),
            template: OnceLock::new(),
            defaults: SamplingParams::from_metadata(metadata)?,
        })
    }

    pub(super) fn has_chat_template(&self) -> bool {
        self.template_source.is_some()
    }

    pub(super) fn n_vocab(&self) -> usize {
        self.tokenizer.n_vocab()
    }

    /// Makes of a request of the wire one of the engine.
    pub(super) fn generate(&self, wire: &v1::GenerateRequest) -> Result<Prepared, Failure> {
        let received = Instant::now();
        let nothing = v1::Sampling::default();
        let sampling = wire.sampling.as_ref().unwrap_or(&nothing);
        let sampling = sampling::apply(self.defaults.clone(), sampling)?;
        let prompt = match &wire.prompt {
            Some(v1::generate_request::Prompt::Ids(ids)) => ids.ids.clone(),
            Some(v1::generate_request::Prompt::Text(text)) => {
                self.encode_text(&text.text, text.parse_special)?
            }
            Some(v1::generate_request::Prompt::Chat(chat)) => self.encode_chat(chat, &wire.now)?,
            None => return Err(Failure::usage("the request has no prompt")),
        };
        let request = Request {
            prompt,
            sampling,
            n_choices: wire.n_choices.max(1),
            prompt_logprobs: wire.prompt_logprobs,
            client: Client::default(),
            priority: match wire.priority() {
                v1::Priority::Low => Priority::Low,
                v1::Priority::Normal => Priority::Normal,
                v1::Priority::High => Priority::High,
                v1::Priority::Critical => Priority::Critical,
            },
            deadline: None,
        };
        Ok(Prepared { request, stream: wire.stream, received })
    }

    fn encode_text(&self, text: &str, parse_special: bool) -> Result<Vec<TokenId>, Failure> {
        Ok(self.tokenizer.encode(text, EncodeOptions { add_special: true, parse_special })?)
    }

    fn encode_chat(&self, chat: &v1::ChatPrompt, now: &str) -> Result<Vec<TokenId>, Failure> {
        let Some(template) = self.template()? else {
            return match &chat.messages[..] {
                [message] if chat.raw_without_template => self.encode_text(&message.content, false),
                _ => Err(Failure::from(veritas_engine::Error::NoChatTemplate)
                    .hint("continue the prompt as it is with --raw")),
            };
        };
        let messages =
            chat.messages.iter().map(|message| json!({"role": message.role, "content": message.content}));
        let input = ChatInput {
            messages: Value::Array(messages.collect()),
            tools: None,
            add_generation_prompt: true,
            enable_thinking: chat.enable_thinking,
            bos_token: token_text(&self.tokenizer, self.tokenizer.bos()),
            eos_token: token_text(&self.tokenizer, self.tokenizer.eos()),
            now: date(now)?,
            extra: Map::new(),
        };
        let controls = self.tokenizer.control_texts().collect::<Vec<_>>();
        let rendered = template.render_guarded(&input, &controls)?;
        Ok(self.tokenizer.encode_rendered(&rendered)?)
    }

    fn template(&self) -> Result<Option<&ChatTemplate>, Failure> {
        let compile = || self.template_source.as_deref().map(ChatTemplate::new).transpose();
        let template = self.template.get_or_init(|| compile().map_err(Failure::from));
        template.as_ref().map(Option::as_ref).map_err(Clone::clone)
    }

    pub(super) fn tokenize(&self, wire: &v1::TokenizeRequest) -> Result<v1::TokenizeReply, Failure> {
        let options = EncodeOptions { add_special: wire.add_special, parse_special: wire.parse_special };
        Ok(v1::TokenizeReply { ids: self.tokenizer.encode(&wire.text, options)? })
    }

    pub(super) fn detokenize(&self, wire: &v1::DetokenizeRequest) -> Result<v1::DetokenizeReply, Failure> {
        Ok(v1::DetokenizeReply { text: self.tokenizer.decode(&wire.ids, true)? })
    }

    /// Why this model gives no embeddings.
    pub(super) fn no_embeddings(&self) -> Failure {
        let message = format!("a model of the architecture `{}` gives no embeddings", self.architecture);
        Failure::new(Code::UnsupportedModel, message)
    }
}

/// `general.architecture`; empty where the file does not say.
pub(super) fn architecture(metadata: &Metadata) -> &str {
    metadata.get("general.architecture").and_then(|value| value.as_str()).unwrap_or_default()
}

/// The text of a token as templates write it; empty where there is no such token.
pub(crate) fn token_text(tokenizer: &Tokenizer, id: Option<TokenId>) -> String {
    id.and_then(|id| tokenizer.token_text(id).ok()).unwrap_or_default().to_owned()
}

/// Reads a date such as `2026-01-02`; an empty text is today, in UTC.
///
/// # Errors
/// If it is no date.
pub fn date(text: &str) -> Result<Date, Failure> {
    if text.is_empty() {
        // A clock before 1970 or after 9999 is wrong; the first day of its count is as good as any other.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        return Ok(Date::from_unix_seconds(seconds).or_else(|_| Date::from_unix_seconds(0))?);
    }
    date_of(text)
}

/// Reads a date such as `2026-01-02`.
///
/// # Errors
/// If it is no date.
pub fn date_of(text: &str) -> Result<Date, Failure> {
    text.parse().map_err(|error| Failure::from(error).hint("write it as 2026-01-02"))
}
