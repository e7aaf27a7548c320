//! What can go wrong.

use std::path::PathBuf;

/// An allocation or a mapping that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused the memory.
    #[error("cannot allocate {bytes} bytes")]
    OutOfMemory {
        /// The size that was asked for; `usize::MAX` where it does not fit.
        bytes: usize,
    },
    /// The file cannot be opened or its size cannot be read.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What the path names is a folder, a pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is longer than the address space.
    #[error("{}: {bytes} bytes do not fit in the address space", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file cannot be mapped.
    #[error("cannot map {} ({bytes} bytes): {source}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The system's reason.
        source: std::io::Error,
    },
}
