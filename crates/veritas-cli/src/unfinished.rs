//! Files that are whole or absent: written beside their place, and moved there when they are done.

use std::fs::File;
use std::path::{Path, PathBuf};

use veritas_runtime::Code;

use crate::failure::Failure;

/// A file beside its place, which is deleted unless it is finished.
pub(crate) struct Unfinished {
    path: PathBuf,
    place: PathBuf,
}

impl Unfinished {
    /// Creates an empty file beside `place`, which is where a link leads if it is one.
    pub(crate) fn create(place: &Path) -> Result<(Self, File), Failure> {
        let place = place.canonicalize().unwrap_or_else(|_| place.to_owned());
        let name = place
            .file_name()
            .ok_or_else(|| Failure::usage(format!("{} names no file to write", place.display())))?;
        let mut unfinished = name.to_os_string();
        unfinished.push(format!(".{}.unfinished", std::process::id()));
        let unfinished = Self { path: place.with_file_name(unfinished), place };
        let file = File::create_new(&unfinished.path).map_err(|error| unfinished.failure(&error));
        match file {
            Ok(file) => Ok((unfinished, file)),
            Err(failure) => {
                // What is there is not ours to delete.
                std::mem::forget(unfinished);
                Err(failure)
            }
        }
    }

    /// Moves the file to its place.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        std::fs::rename(&self.path, &self.place).map_err(|error| self.failure(&error))
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
