//! A model that is ready to run: its files, its plan, its tokenizer, its chat template.

use std::sync::Arc;

use veritas_base::TokenId;
use veritas_model::{Plan, build_plan};
use veritas_tokenizer::Tokenizer;

use crate::error::Error;
use crate::files::ModelFiles;
use crate::sampler::{SamplingParams, Vocabulary};

/// A model: verified structure, no state.
#[derive(Debug)]
pub struct Model {
    files: Arc<ModelFiles>,
    plan: Arc<Plan>,
    tokenizer: Arc<Tokenizer>,
}

impl Model {
    /// Builds the plan and the tokenizer of parsed files.
    ///
    /// # Errors
    /// If the files contradict themselves or need what is not supported.
    pub fn new(files: ModelFiles) -> Result<Self, Error> {
        let plan = build_plan(files.set())?;
        if let Some(need) = plan.needs().first() {
            return Err(Error::Unsupported { what: need.to_string() });
        }
        let tokenizer = Tokenizer::from_gguf(files.metadata())?;
        if tokenizer.n_vocab() > plan.n_vocab {
            return Err(Error::VocabularySize { tokenizer: tokenizer.n_vocab(), embedding: plan.n_vocab });
        }
        Ok(Self { files: Arc::new(files), plan: Arc::new(plan), tokenizer: Arc::new(tokenizer) })
    }

    /// The files.
    pub fn files(&self) -> &Arc<ModelFiles> {
        &self.files
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The source of the chat template, if the file has one.
    ///
    /// # Errors
    /// If the metadata hold something else under that key.
    pub fn chat_template(&self) -> Result<Option<&str>, Error> {
        Ok(self.files.metadata().opt_str("tokenizer.chat_template")?)
    }

    /// llama.cpp's default sampling parameters, changed by what the file says under `general.sampling.*`.
    ///
    /// # Errors
    /// If one of these keys has another type or makes no sense.
    pub fn sampling_defaults(&self) -> Result<SamplingParams, Error> {
        Ok(SamplingParams::from_metadata(self.files.metadata())?)
    }

    /// Bytes of weights that the computation of one token reads: every matrix but the embedding, of which it reads a
    /// row.
    pub fn bytes_per_token(&self) -> u64 {
        let embedding = &self.plan.embedding.tokens;
        let is_tied = self.plan.head.output.weight.name == embedding.name;
        let tensors = self.files.set().tensors().map(|(_, tensor)| tensor);
        let read = tensors.filter(|tensor| is_tied || tensor.name != embedding.name);
        read.map(|tensor| tensor.bytes).sum()
    }

    /// Parameters of the matrices that each token is multiplied with.
    pub fn multiplied_params(&self) -> u64 {
        let embedding = &self.plan.embedding.tokens;
        let is_tied = self.plan.head.output.weight.name == embedding.name;
        let tensors =
            self.files.set().tensors().map(|(_, tensor)| tensor).filter(|tensor| tensor.n_rows() > 1);
        tensors
            .filter(|t| is_tied || t.name != embedding.name)
            .map(veritas_gguf::TensorInfo::n_elements)
            .sum()
    }
}

/// The tokenizer as the sampler sees it, over the rows of the model's logits.
#[derive(Debug)]
pub(crate) struct EngineVocabulary {
    tokenizer: Arc<Tokenizer>,
    n_vocab: usize,
}

impl EngineVocabulary {
    pub(crate) fn new(model: &Model) -> Self {
        let (tokenizer, n_vocab) = (Arc::clone(model.tokenizer()), model.plan().n_vocab);
        Self { tokenizer, n_vocab }
    }
}

impl Vocabulary for EngineVocabulary {
    fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    fn is_end_of_generation(&self, id: TokenId) -> bool {
        self.tokenizer.is_end_of_generation(id)
    }

    fn token_bytes(&self, id: TokenId, out: &mut Vec<u8>) {
        // A row of the logits beyond the tokenizer's tokens has no text.
        if let Ok(bytes) = self.tokenizer.token_bytes(id) {
            out.extend_from_slice(&bytes);
        }
    }

    fn encode_text(&self, text: &str) -> Option<Vec<TokenId>> {
        let options = veritas_tokenizer::EncodeOptions { add_special: false, parse_special: false };
        self.tokenizer.encode(text, options).ok()
    }
}
