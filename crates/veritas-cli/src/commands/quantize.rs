//! `quantize`: a model file in another weight type.
//!
//! The tensors are converted one after the other, a batch of rows at a time, by several threads; what is in memory at once
//! is bounded whatever the size of the model. The output is written beside its place and moved there when it is whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use serde_json::{Map, Value as Json, json};
use veritas_engine::ModelFiles;
use veritas_gguf::split::PartName;
use veritas_gguf::{Metadata, TensorInfo, TensorWriter, Writer, imatrix, split};
use veritas_kernels::Team;
use veritas_mem::Mmap;
use veritas_quant::mix::{self, FileType, ModelFacts, Options, TensorFacts};
use veritas_quant::{GgmlType, Importance, dequantize_row, is_quantizable, quantize_row};

use crate::args::QuantizeArgs;
use crate::commands::inspect::short_bytes;
use crate::failure::{Code, Failure};
use crate::{interrupt, terminal};

/// Weights that are converted between two writes: enough for many threads, little in memory.
const BATCH_WEIGHTS: usize = 8 << 20;

/// Weights that one task converts: some milliseconds of work with the slow formats.
const TASK_WEIGHTS: usize = 16 << 10;

/// Bytes of a tensor that keeps its type that are written at once.
const COPY_BYTES: usize = 8 << 20;

/// A tensor and what becomes of it.
struct Job<'a> {
    part: usize,
    tensor: &'a TensorInfo,
    ty: GgmlType,
}

pub(crate) fn run(args: &QuantizeArgs) -> Result<(), Failure> {
    interrupt::install()?;
    let file_type = FileType::from_name(&args.kind).ok_or_else(|| {
        let names = FileType::all().map(FileType::name).collect::<Vec<_>>().join(", ");
        Failure::usage(format!("the type {:?} is not known", args.kind)).hint(format!("known are {names}"))
    })?;
    let files = ModelFiles::open(&args.input, &[])?;
    check_output(args)?;
    let importance = args.imatrix.as_deref().map(read_importance).transpose()?;
    let options = Options {
        pure: args.pure,
        output_tensor_type: tensor_type("--output-tensor-type", args.output_tensor_type.as_deref())?,
        token_embedding_type: tensor_type("--token-embedding-type", args.token_embedding_type.as_deref())?,
        has_importance: importance.is_some(),
    };
    let jobs = jobs(&files, file_type, &options);
    if !args.allow_requantize
        && let Some(job) = jobs.iter().find(|job| job.ty != job.tensor.ty && is_quantized(job.tensor.ty))
    {
        let message = format!("the tensor `{}` is quantised already, as {}", job.tensor.name, job.tensor.ty);
        return Err(Failure::usage(message)
            .hint("quantise the original; or accept the loss of converting twice with --allow-requantize"));
    }
    let metadata = metadata(&files, file_type, args, importance.as_ref())?;
    let n_threads =
        args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let bar = terminal::progress_bar(files.set().file_bytes(), "bytes", args.output.quiet);
    let converter = Converter { files: &files, importance, team: Team::new(n_threads), bar };
    let output = converter.write(&args.output_file, metadata, &jobs)?;
    converter.bar.finish_and_clear();
    summarise(args, file_type, &files, &jobs, output)
}

/// Refuses an output that is the input, or that a file cannot take the place of.
fn check_output(args: &QuantizeArgs) -> Result<(), Failure> {
    let path = &args.output_file;
    let Ok(found) = std::fs::metadata(path) else { return Ok(()) };
    if !found.is_file() {
        return Err(Failure::usage(format!("{} is no regular file", path.display())));
    }
    let place = path.canonicalize().ok();
    if place.is_some() && input_paths(&args.input).iter().any(|input| input.canonicalize().ok() == place) {
        return Err(Failure::usage(format!("{} is the input", path.display())).hint("name another output"));
    }
    Ok(())
}

/// The input, and if it is a part of a split model, all parts.
fn input_paths(input: &Path) -> Vec<PathBuf> {
    match input.file_name().and_then(|name| PartName::parse(name.to_str()?)) {
        Some(part) => part.names().map(|name| input.with_file_name(name)).collect(),
        None => vec![input.to_owned()],
    }
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
fn read_importance(path: &Path) -> Result<Importance, Failure> {
    let bytes = Mmap::open(path).map_err(veritas_engine::Error::from)?;
    let importance = if bytes.starts_with(b"GGUF") {
        imatrix::importance(&veritas_gguf::parse(&bytes)?, &bytes)
    } else {
        Importance::from_dat(&bytes)
    };
    importance.map_err(|error| Failure::from(error).within(path.display()))
}

fn jobs<'a>(files: &'a ModelFiles, file_type: FileType, options: &Options) -> Vec<Job<'a>> {
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
    tensors.into_iter().zip(types).map(|((part, tensor), ty)| Job { part, tensor, ty }).collect()
}

/// Whether weights of this type have lost something already.
fn is_quantized(ty: GgmlType) -> bool {
    ty.block_len() > 1
}

fn metadata(
    files: &ModelFiles,
    file_type: FileType,
    args: &QuantizeArgs,
    importance: Option<&Importance>,
) -> Result<Metadata, Failure> {
    let mut metadata = files.metadata().clone();
    // The output is one file, whatever the input was.
    for key in [split::NO_KEY, split::COUNT_KEY, split::TENSORS_KEY] {
        metadata.remove(key);
    }
    metadata.insert("general.file_type", file_type.id())?;
    metadata.insert("general.quantization_version", mix::QUANTIZATION_VERSION)?;
    if let (Some(path), Some(importance)) = (&args.imatrix, importance) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        metadata.insert("quantize.imatrix.file", name)?;
        metadata.insert("quantize.imatrix.entries_count", importance.len() as u32)?;
    }
    Ok(metadata)
}

struct Converter<'a> {
    files: &'a ModelFiles,
    importance: Option<Importance>,
    team: Team,
    bar: ProgressBar,
}

impl Converter<'_> {
    /// Writes the file and returns its length.
    fn write(&self, path: &Path, metadata: Metadata, jobs: &[Job<'_>]) -> Result<u64, Failure> {
        let mut writer = Writer::new(metadata)?;
        for job in jobs {
            writer.tensor(&job.tensor.name, job.ty, &job.tensor.dims)?;
        }
        let unfinished = Unfinished::create(path)?;
        let mut out = writer.start(BufWriter::new(unfinished.file()?)).map_err(not_written)?;
        for job in jobs {
            self.bar.set_message(job.tensor.name.clone());
            self.convert(job, &mut out).map_err(|failure| failure.in_tensor(&job.tensor.name))?;
        }
        let file =
            out.finish().map_err(not_written)?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let bytes = file.metadata()?.len();
        file.sync_all()?;
        unfinished.finish(path)?;
        Ok(bytes)
    }

    fn convert<W: Write>(&self, job: &Job<'_>, out: &mut TensorWriter<W>) -> Result<(), Stop> {
        let tensor = job.tensor;
        let outside = || veritas_engine::Error::TensorOutsideFile { name: tensor.name.clone() };
        let data = tensor.data(self.files.part(job.part)).ok_or_else(outside)?;
        if job.ty == tensor.ty {
            for piece in data.chunks(COPY_BYTES) {
                self.advance(piece.len())?;
                out.write(piece)?;
            }
            return Ok(());
        }
        // The reader has checked that rows are whole blocks and that all of them lie within the file.
        let row_len = usize::try_from(tensor.row_len()).map_err(|_| outside())?;
        let row_in = tensor.ty.row_bytes(row_len).ok_or_else(outside)?;
        let row_out = job.ty.row_bytes(row_len).ok_or_else(outside)?;
        let rows_of_batch = (BATCH_WEIGHTS / row_len).max(1);
        let rows_of_task = (TASK_WEIGHTS / row_len).max(1);
        let mut converted = vec![0; rows_of_batch.min(data.len() / row_in) * row_out];
        let mut first_row = 0;
        for batch in data.chunks(rows_of_batch * row_in) {
            self.advance(batch.len())?;
            let converted = &mut converted[..batch.len() / row_in * row_out];
            let failed = Mutex::new(None);
            self.team.chunks_mut(converted, rows_of_task * row_out, |task, out| {
                let first = task * rows_of_task;
                let rows = batch[first * row_in..].chunks_exact(row_in).zip(out.chunks_exact_mut(row_out));
                if let Err(error) = self.convert_rows(job, row_len, first_row + first, rows) {
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
        job: &Job<'_>,
        row_len: usize,
        first_row: usize,
        rows: impl Iterator<Item = (&'r [u8], &'r mut [u8])>,
    ) -> Result<(), veritas_quant::Error> {
        let extent = |index| job.tensor.dims.get(index).map_or(1, |&n| n as usize);
        let (rows_of_matrix, n_matrices) = (extent(1), extent(2) * extent(3));
        let mut weights = vec![0.0; row_len];
        for (place, (bytes, out)) in rows.enumerate() {
            dequantize_row(job.tensor.ty, bytes, &mut weights)?;
            let matrix = (first_row + place) / rows_of_matrix;
            let importance = match &self.importance {
                Some(all) => all.for_matrix(&job.tensor.name, row_len, n_matrices, matrix)?,
                None => None,
            };
            quantize_row(job.ty, &weights, importance, out)?;
        }
        Ok(())
    }

    fn advance(&self, bytes: usize) -> Result<(), Stop> {
        if interrupt::requested() {
            return Err(Stop::Interrupted);
        }
        self.bar.inc(bytes as u64);
        Ok(())
    }
}

/// Why the conversion of a tensor ended early.
enum Stop {
    Interrupted,
    Quant(veritas_quant::Error),
    Other(Failure),
}

impl Stop {
    fn in_tensor(self, name: &str) -> Failure {
        match self {
            Self::Interrupted => Failure::new(Code::Cancelled, "interrupted; no file was written"),
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
        veritas_gguf::Error::Write(_) => Failure::new(Code::Internal, error.to_string()),
        other => other.into(),
    }
}

/// A file beside its place, which is deleted unless it is finished.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    fn create(place: &Path) -> Result<Self, Failure> {
        let name = place
            .file_name()
            .ok_or_else(|| Failure::usage(format!("{} names no file to write", place.display())))?;
        let mut unfinished = name.to_os_string();
        unfinished.push(format!(".{}.unfinished", std::process::id()));
        Ok(Self { path: place.with_file_name(unfinished) })
    }

    fn file(&self) -> Result<File, Failure> {
        File::create_new(&self.path).map_err(|error| self.failure(&error))
    }

    fn finish(self, place: &Path) -> Result<(), Failure> {
        std::fs::rename(&self.path, place).map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        Failure::new(Code::Internal, format!("cannot write {}: {error}", self.path.display()))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the renaming there is nothing left to delete.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Says how many tensors went from which type to which, and what became of the size.
fn summarise(
    args: &QuantizeArgs,
    file_type: FileType,
    files: &ModelFiles,
    jobs: &[Job<'_>],
    bytes_out: u64,
) -> Result<(), Failure> {
    let mut kinds: BTreeMap<(GgmlType, GgmlType), (u64, u64, u64)> = BTreeMap::new();
    for job in jobs {
        let (n_tensors, from, to) = kinds.entry((job.tensor.ty, job.ty)).or_default();
        *n_tensors += 1;
        *from += job.tensor.bytes;
        *to += bytes_as(job.tensor, job.ty);
    }
    let bytes_in = files.set().file_bytes();
    let bits_per_weight = bytes_out as f64 * 8.0 / files.set().n_params().max(1) as f64;
    let mut stdout = std::io::stdout().lock();
    if args.output.json {
        let mut types: BTreeMap<GgmlType, u64> = BTreeMap::new();
        jobs.iter().for_each(|job| *types.entry(job.ty).or_default() += 1);
        let types = types.iter().map(|(ty, n)| (ty.name().to_owned(), json!(n))).collect::<Map<_, _>>();
        let report: Json = json!({
            "file_type": file_type.name(),
            "tensors": jobs.len(),
            "types": types,
            "input_bytes": bytes_in,
            "output_bytes": bytes_out,
            "bits_per_weight": bits_per_weight,
        });
        writeln!(stdout, "{report}")?;
    } else if !args.output.quiet {
        for ((from, to), (n_tensors, bytes_from, bytes_to)) in kinds {
            let (sizes, to) = ((short_bytes(bytes_from), short_bytes(bytes_to)), to.name());
            writeln!(
                stdout,
                "{:8} → {to:8} {n_tensors:>6} tensors {:>12} → {:>12}",
                from.name(),
                sizes.0,
                sizes.1
            )?;
        }
        let (size_in, size_out) = (short_bytes(bytes_in), short_bytes(bytes_out));
        writeln!(stdout, "{file_type}: {size_in} → {size_out}, {bits_per_weight:.2} bits per weight")?;
    }
    Ok(())
}

fn bytes_as(tensor: &TensorInfo, ty: GgmlType) -> u64 {
    tensor.n_elements() / ty.block_len() as u64 * ty.block_bytes() as u64
}
