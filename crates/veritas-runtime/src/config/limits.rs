//! The bounds of the configuration, each with its reason. The bounds of single settings stand in their lines of
//! `keys.rs`.

/// Bytes of the file: some thousand models.
pub(super) const FILE_BYTES_MAX: usize = 1 << 20;

/// Models: each is a process.
pub(super) const MODELS_MAX: usize = 256;

/// Characters of a model's name: it stands in logs, metrics and names of folders.
pub(super) const MODEL_NAME_MAX: usize = 64;

/// Entries of a list.
pub(super) const LIST_MAX: usize = 1024;

/// Bytes of a path: what Linux takes (`PATH_MAX`, its final zero apart).
pub(super) const PATH_BYTES_MAX: usize = 4095;

/// Bytes of the path of a Unix socket: what `sockaddr_un` holds, its final zero apart.
pub(super) const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Bytes of one change of the metadata.
pub(super) const OVERRIDE_BYTES_MAX: usize = 4096;

/// Characters of a wrong value that an error repeats.
pub(super) const SHOWN_MAX: usize = 80;

/// Errors that are listed; the rest are counted.
pub(super) const ERRORS_MAX: usize = 100;

/// A minute in milliseconds.
pub(super) const MINUTE_MS: u64 = 60_000;

/// An hour in milliseconds: longer than anything that somebody waits for.
pub(super) const HOUR_MS: u64 = 60 * MINUTE_MS;

/// A week in milliseconds: the longest that one request may be allowed.
pub(super) const WEEK_MS: u64 = 7 * 24 * HOUR_MS;
