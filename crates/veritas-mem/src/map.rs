//! A file mapped read-only.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::Error;

/// The bytes of a regular file, mapped read-only and privately: pages are read when they are touched, and the memory
/// is the page cache's, not ours.
///
/// A file that another process shortens while it is mapped kills this process (SIGBUS) when a missing page is
/// touched, and one that is rewritten changes under us. Nothing in user space can prevent either; models are
/// replaced by renaming a new file over the old one, which is safe.
#[derive(Debug)]
pub struct Mmap {
    map: Option<memmap2::Mmap>,
}

impl Mmap {
    /// Maps the file at `path`. An empty file is an empty slice.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::NotAFile`], [`Error::TooLong`], [`Error::Map`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let open_error = |source| Error::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(open_error)?;
        Self::of_file(&file, path)
    }

    /// Maps a file that is open already; `path` is for messages alone.
    ///
    /// # Errors
    /// As [`Mmap::open`].
    pub fn of_file(file: &File, path: &Path) -> Result<Self, Error> {
        let metadata = file.metadata().map_err(|source| Error::Open { path: path.to_owned(), source })?;
        if !metadata.is_file() {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let bytes = metadata.len();
        if bytes == 0 {
            return Ok(Self { map: None });
        }
        if usize::try_from(bytes).is_err() || bytes > isize::MAX as u64 {
            return Err(Error::TooLong { path: path.to_owned(), bytes });
        }
        // SAFETY: the map is read-only and private. That no one shortens or rewrites the file meanwhile is the
        // condition that the type's documentation states; every program that maps files rests on it.
        let map = unsafe { memmap2::Mmap::map(file) };
        let map = map.map_err(|source| Error::Map { path: path.to_owned(), bytes, source })?;
        Ok(Self { map: Some(map) })
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_has_the_bytes_of_the_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert_eq!(&Mmap::open(&path).unwrap()[..], std::fs::read(&path).unwrap());
    }

    #[test]
    fn a_missing_file_and_a_folder_are_different_errors() {
        assert!(matches!(Mmap::open(Path::new("/no/such/file")), Err(Error::Open { .. })));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(matches!(Mmap::open(folder), Err(Error::NotAFile { .. })));
    }
}
