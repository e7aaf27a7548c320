//! `quantize`: a model file in another weight type.
//!
//! The tensors are converted one after the other, a batch of rows at a time, by several threads; what is in memory at once
//! is bounded whatever the size of the model. The output goes to a file that was handed over, open for writing and empty.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use veritas_engine::ModelFiles;
use veritas_gguf::{Metadata, TensorInfo, TensorWriter, Writer, imatrix, split};
use veritas_kernels::Team;
use veritas_mem::Mmap;
use veritas_quant::mix::{self, FileType, ModelFacts, Options, TensorFacts};
use veritas_quant::{GgmlType, Importance, dequantize_row, is_quantizable, quantize_row};

use super::{Context, Reporter, team_of};
use crate::failure::Failure;

/// Weights that are converted between two writes: enough for many threads, little in memory.
const BATCH_WEIGHTS: usize = 8 << 20;

/// Weights that one task converts: some milliseconds of work with the slow formats.
const TASK_WEIGHTS: usize = 16 << 10;

/// Bytes of a tensor that keeps its type that are written at once.
const COPY_BYTES: usize = 8 << 20;

/// Bytes of output that a byte of input can give: the 32 bits of F32 for a weight, of which no type has less than one bit.
const OUTPUT_BYTES_PER_INPUT_BYTE: u64 = 32;

/// Bytes of output besides: keys that are added, and the padding between tensors.
const OUTPUT_BYTES_BESIDES: u64 = 16 << 20;

/// Convert the model. The files besides the model's are the importance matrix, if there is one, and then the output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizeJob {
    /// The type, by llama.cpp's names.
    pub kind: String,
    /// Convert also tensors that are quantised already.
    pub allow_requantize: bool,
    /// Give every matrix the same type.
    pub pure: bool,
    /// The importance matrix that was handed over.
    pub importance: Option<ImportanceFile>,
    /// The type of the token embedding.
    pub token_embedding_type: Option<String>,
    /// The type of the output matrix.
    pub output_tensor_type: Option<String>,
    /// Threads that convert.
    pub threads: usize,
}

/// What an importance matrix is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportanceFile {
    /// In messages: its path.
    pub path: String,
    /// In the output's metadata: its name without the folder.
    pub name: String,
}

/// What became of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizeResult {
    /// The type, as llama.cpp names it.
    pub file_type: String,
    /// Tensors by the type that they had and the type that they got.
    pub kinds: Vec<QuantizedKind>,
    /// Tensors by the type that they got.
    pub types: Vec<(String, u64)>,
    /// Bytes of the input's files.
    pub input_bytes: u64,
    /// Bytes of the output.
    pub output_bytes: u64,
    /// Bits of the output for each parameter.
    pub bits_per_weight: f64,
}

/// Tensors that went from one type to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizedKind {
    /// The type that they had.
    pub from: String,
    /// The type that they got.
    pub to: String,
    /// How many they are.
    pub n_tensors: u64,
    /// Their bytes in the input.
    pub bytes_from: u64,
    /// Their bytes in the output.
    pub bytes_to: u64,
}

impl QuantizeJob {
    /// Checks the names of types.
    ///
    /// # Errors
    /// A usage error that lists the names that are known.
    pub fn check(&self) -> Result<(), Failure> {
        self.file_type()?;
        self.options().map(drop)
    }

    fn file_type(&self) -> Result<FileType, Failure> {
        FileType::from_name(&self.kind).ok_or_else(|| {
            let names = FileType::all().map(FileType::name).collect::<Vec<_>>().join(", ");
            Failure::usage(format!("the type {:?} is not known", self.kind))
                .hint(format!("known are {names}"))
        })
    }

    fn options(&self) -> Result<Options, Failure> {
        Ok(Options {
            pure: self.pure,
            output_tensor_type: tensor_type("--output-tensor-type", self.output_tensor_type.as_deref())?,
            token_embedding_type: tensor_type(
                "--token-embedding-type",
                self.token_embedding_type.as_deref(),
            )?,
            has_importance: self.importance.is_some(),
        })
    }

    /// Bytes that the output of an input of `input_bytes` can never exceed, whatever the files say: the limit that the
    /// worker's kernel holds it to.
    pub fn output_bytes_max(input_bytes: u64) -> u64 {
        input_bytes.saturating_mul(OUTPUT_BYTES_PER_INPUT_BYTE).saturating_add(OUTPUT_BYTES_BESIDES)
    }
}

/// A tensor and what becomes of it.
struct Conversion<'a> {
    part: usize,
    tensor: &'a TensorInfo,
    ty: GgmlType,
}

pub(super) fn run(job: &QuantizeJob, context: &mut Context<'_>) -> Result<QuantizeResult, Failure> {
    let (file_type, options) = (job.file_type()?, job.options()?);
    let files = context.open()?;
    let output = context.others.pop().ok_or_else(|| Failure::internal("no output was handed over"))?;
    let importance = match &job.importance {
        Some(names) => Some(read_importance(context.others.pop(), names)?),
        None => None,
    };
    let conversions = conversions(&files, file_type, &options);
    let loses_twice = |conversion: &&Conversion<'_>| {
        conversion.ty != conversion.tensor.ty && is_quantized(conversion.tensor.ty)
    };
    if !job.allow_requantize
        && let Some(Conversion { tensor, .. }) = conversions.iter().find(loses_twice)
    {
        let message = format!("the tensor `{}` is quantised already, as {}", tensor.name, tensor.ty);
        return Err(Failure::usage(message)
            .hint("quantise the original; or accept the loss of converting twice with --allow-requantize"));
    }
    let metadata = metadata(&files, file_type, job, importance.as_ref())?;
    let team = team_of(context.teams, job.threads)?;
    let progress = Progress { reporter: context.progress(), done: 0, total: files.set().file_bytes() };
    let mut converter = Converter { files: &files, importance, team, progress };
    let output_bytes = converter.write(output, metadata, &conversions)?;
    Ok(result(file_type, &files, &conversions, output_bytes))
}

fn tensor_type(flag: &str, name: Option<&str>) -> Result<Option<GgmlType>, Failure> {
    let Some(name) = name else { return Ok(None) };
    match GgmlType::from_name(name).filter(|&ty| is_quantizable(ty)) {
        Some(ty) => Ok(Some(ty)),
        None => {
            let names = GgmlType::all().filter(|&ty| is_quantizable(ty)).map(GgmlType::name);
            let names = names.collect::<Vec<_>>().join(", ");
            Err(Failure::usage(format!("{flag} {name}: this type cannot be written"))
                .hint(format!("those that can are {names}")))
        }
    }
}

/// Reads an importance matrix in either of its forms.
fn read_importance(file: Option<File>, names: &ImportanceFile) -> Result<Importance, Failure> {
    let file = file.ok_or_else(|| Failure::internal("no importance matrix was handed over"))?;
    let bytes = Mmap::of_file(&file, names.path.as_ref()).map_err(veritas_engine::Error::from)?;
    let importance = if bytes.starts_with(b"GGUF") {
        imatrix::importance(&veritas_gguf::parse(&bytes)?, &bytes)
    } else {
        Importance::from_dat(&bytes)
    };
    importance.map_err(|error| Failure::from(error).within(&names.path))
}

fn conversions<'a>(files: &'a ModelFiles, file_type: FileType, options: &Options) -> Vec<Conversion<'a>> {
    let metadata = files.metadata();
    let architecture = metadata.get("general.architecture").and_then(|value| value.as_str());
    let architecture = architecture.unwrap_or_default();
    let number = |key: &str| {
        let numbers = metadata.u32s_or_scalar(&format!("{architecture}.{key}")).ok()?;
        numbers.first().map(|&number| number as usize)
    };
    let n_heads = number("attention.head_count").unwrap_or(0);
    let model = ModelFacts {
        architecture,
        n_layers: number("block_count").unwrap_or(0),
        n_heads,
        n_kv_heads: number("attention.head_count_kv").unwrap_or(n_heads),
        n_experts: number("expert_count").unwrap_or(0),
    };
    let tensors = files.set().tensors().collect::<Vec<_>>();
    let facts = tensors.iter().map(|(_, tensor)| TensorFacts {
        name: &tensor.name,
        ty: tensor.ty,
        dims: &tensor.dims,
    });
    let types = mix::tensor_types(file_type, &model, &facts.collect::<Vec<_>>(), options);
    tensors.into_iter().zip(types).map(|((part, tensor), ty)| Conversion { part, tensor, ty }).collect()
}

/// Whether weights of this type have lost something already.
fn is_quantized(ty: GgmlType) -> bool {
    ty.block_len() > 1
}

fn metadata(
    files: &ModelFiles,
    file_type: FileType,
    job: &QuantizeJob,
    importance: Option<&Importance>,
) -> Result<Metadata, Failure> {
    let mut metadata = files.metadata().clone();
    // The output is one file, whatever the input was.
    for key in [split::NO_KEY, split::COUNT_KEY, split::TENSORS_KEY] {
        metadata.remove(key);
    }
    metadata.insert("general.file_type", file_type.id())?;
    metadata.insert("general.quantization_version", mix::QUANTIZATION_VERSION)?;
    if let (Some(names), Some(importance)) = (&job.importance, importance) {
        metadata.insert("quantize.imatrix.file", names.name.clone())?;
        metadata.insert("quantize.imatrix.entries_count", importance.len() as u32)?;
    }
    Ok(metadata)
}

/// How much of the input is done.
struct Progress<'a> {
    reporter: Reporter<'a>,
    done: u64,
    total: u64,
}

impl Progress<'_> {
    fn advance(&mut self, bytes: usize, tensor: &TensorInfo) {
        self.done += bytes as u64;
        self.reporter.report(self.done, self.total, || tensor.name.clone());
    }
}

struct Converter<'a> {
    files: &'a ModelFiles,
    importance: Option<Importance>,
    team: Arc<Team>,
    progress: Progress<'a>,
}

impl Converter<'_> {
    /// Writes the file and returns its length.
    fn write(&mut self, file: File, metadata: Metadata, all: &[Conversion<'_>]) -> Result<u64, Failure> {
        let mut writer = Writer::new(metadata)?;
        for conversion in all {
            writer.tensor(&conversion.tensor.name, conversion.ty, &conversion.tensor.dims)?;
        }
        let mut out = writer.start(BufWriter::new(file)).map_err(not_written)?;
        for conversion in all {
            self.convert(conversion, &mut out).map_err(|stop| stop.in_tensor(&conversion.tensor.name))?;
        }
        let file =
            out.finish().map_err(not_written)?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let bytes = file.metadata()?.len();
        file.sync_all()?;
        Ok(bytes)
    }

    fn convert<W: Write>(
        &mut self,
        conversion: &Conversion<'_>,
        out: &mut TensorWriter<W>,
    ) -> Result<(), Stop> {
        let tensor = conversion.tensor;
        let outside = || veritas_engine::Error::TensorOutsideFile { name: tensor.name.clone() };
        let data = tensor.data(self.files.part(conversion.part)).ok_or_else(outside)?;
        if conversion.ty == tensor.ty {
            for piece in data.chunks(COPY_BYTES) {
                self.progress.advance(piece.len(), tensor);
                out.write(piece)?;
            }
            return Ok(());
        }
        // The reader has checked that rows are whole blocks and that all of them lie within the file.
        let row_len = usize::try_from(tensor.row_len()).map_err(|_| outside())?;
        let row_in = tensor.ty.row_bytes(row_len).ok_or_else(outside)?;
        let row_out = conversion.ty.row_bytes(row_len).ok_or_else(outside)?;
        let rows_of_batch = (BATCH_WEIGHTS / row_len).max(1);
        let rows_of_task = (TASK_WEIGHTS / row_len).max(1);
        let mut converted = vec![0; rows_of_batch.min(data.len() / row_in) * row_out];
        let mut first_row = 0;
        for batch in data.chunks(rows_of_batch * row_in) {
            self.progress.advance(batch.len(), tensor);
            let converted = &mut converted[..batch.len() / row_in * row_out];
            let failed = Mutex::new(None);
            let this = &*self;
            this.team.chunks_mut(converted, rows_of_task * row_out, |task, out| {
                let first = task * rows_of_task;
                let rows = batch[first * row_in..].chunks_exact(row_in).zip(out.chunks_exact_mut(row_out));
                if let Err(error) = this.convert_rows(conversion, row_len, first_row + first, rows) {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            });
            if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
                return Err(error.into());
            }
            out.write(converted)?;
            first_row += batch.len() / row_in;
        }
        Ok(())
    }

    fn convert_rows<'r>(
        &self,
        conversion: &Conversion<'_>,
        row_len: usize,
        first_row: usize,
        rows: impl Iterator<Item = (&'r [u8], &'r mut [u8])>,
    ) -> Result<(), veritas_quant::Error> {
        let extent = |index| conversion.tensor.dims.get(index).map_or(1, |&n| n as usize);
        let (rows_of_matrix, n_matrices) = (extent(1), extent(2) * extent(3));
        let mut weights = vec![0.0; row_len];
        for (place, (bytes, out)) in rows.enumerate() {
            dequantize_row(conversion.tensor.ty, bytes, &mut weights)?;
            let matrix = (first_row + place) / rows_of_matrix;
            let importance = match &self.importance {
                Some(all) => all.for_matrix(&conversion.tensor.name, row_len, n_matrices, matrix)?,
                None => None,
            };
            quantize_row(conversion.ty, &weights, importance, out)?;
        }
        Ok(())
    }
}

/// Why the conversion of a tensor ended early.
enum Stop {
    Quant(veritas_quant::Error),
    Other(Failure),
}

impl Stop {
    fn in_tensor(self, name: &str) -> Failure {
        match self {
            Self::Quant(error @ veritas_quant::Error::ImportanceShape { .. }) => Failure::from(error),
            Self::Quant(error) => Failure::from(error).within(format_args!("the tensor `{name}`")),
            Self::Other(failure) => failure,
        }
    }
}

impl From<veritas_quant::Error> for Stop {
    fn from(error: veritas_quant::Error) -> Self {
        Self::Quant(error)
    }
}

impl From<veritas_gguf::Error> for Stop {
    fn from(error: veritas_gguf::Error) -> Self {
        Self::Other(not_written(error))
    }
}

impl From<veritas_engine::Error> for Stop {
    fn from(error: veritas_engine::Error) -> Self {
        Self::Other(error.into())
    }
}

/// A disk that is full is no fault of the model.
fn not_written(error: veritas_gguf::Error) -> Failure {
    match error {
        veritas_gguf::Error::Write(_) => Failure::internal(error.to_string()),
        other => other.into(),
    }
}

/// Counts how many tensors went from which type to which, and what became of the size.
fn result(
    file_type: FileType,
    files: &ModelFiles,
    conversions: &[Conversion<'_>],
    output_bytes: u64,
) -> QuantizeResult {
    let mut kinds: BTreeMap<(GgmlType, GgmlType), (u64, u64, u64)> = BTreeMap::new();
    let mut types: BTreeMap<GgmlType, u64> = BTreeMap::new();
    for conversion in conversions {
        *types.entry(conversion.ty).or_default() += 1;
        let (n_tensors, from, to) = kinds.entry((conversion.tensor.ty, conversion.ty)).or_default();
        *n_tensors += 1;
        *from += conversion.tensor.bytes;
        *to += bytes_as(conversion.tensor, conversion.ty);
    }
    let kinds = kinds.into_iter().map(|((from, to), (n_tensors, bytes_from, bytes_to))| QuantizedKind {
        from: from.name().to_owned(),
        to: to.name().to_owned(),
        n_tensors,
        bytes_from,
        bytes_to,
    });
    let set = files.set();
    QuantizeResult {
        file_type: file_type.name().to_owned(),
        kinds: kinds.collect(),
        types: types.into_iter().map(|(ty, n)| (ty.name().to_owned(), n)).collect(),
        input_bytes: set.file_bytes(),
        output_bytes,
        bits_per_weight: output_bytes as f64 * 8.0 / set.n_params().max(1) as f64,
    }
}

fn bytes_as(tensor: &TensorInfo, ty: GgmlType) -> u64 {
    tensor.n_elements() / ty.block_len() as u64 * ty.block_bytes() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_the_output_has_room_for_the_smallest_type_as_f32() {
        for ty in GgmlType::all() {
            let (weights, bytes) = (1 << 20, (1 << 20) / ty.block_len() as u64 * ty.block_bytes() as u64);
            assert!(weights * 4 <= QuantizeJob::output_bytes_max(bytes) - OUTPUT_BYTES_BESIDES, "{ty}");
        }
    }
}
