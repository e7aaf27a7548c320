//! The secret that a client shows and a daemon knows only the digest of.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use subtle::ConstantTimeEq;
use veritas_base::Sha256Digest;
use veritas_proto::limits::TOKEN_BYTES_MAX;
use zeroize::Zeroizing;

use crate::Error;

/// A token: any bytes, at least one. Overwritten when it is dropped, and not shown by `Debug`.
#[derive(Clone)]
pub struct Token(Zeroizing<Vec<u8>>);

impl Token {
    /// A token of these bytes.
    ///
    /// # Errors
    /// If there is no byte, or more than [`TOKEN_BYTES_MAX`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let bytes = Zeroizing::new(bytes.into());
        match bytes.len() {
            0 => Err(Error::EmptyToken),
            1..=TOKEN_BYTES_MAX => Ok(Self(bytes)),
            _ => Err(Error::TokenTooLong { limit: TOKEN_BYTES_MAX }),
        }
    }

    /// Reads a token from a file. Line ends after it do not belong to it.
    ///
    /// # Errors
    /// If the file cannot be read, or holds no token or too long a one.
    pub fn read(path: &Path) -> Result<TokenFile, Error> {
        /// Line ends that editors leave behind, and one byte more than is accepted, so that excess is seen.
        const READ_BYTES_MAX: usize = TOKEN_BYTES_MAX + 16;
        let file = File::open(path).map_err(|source| Error::file("open the token file", path, source))?;
        let warning = warning_of(&file, path)?;
        // All of it is reserved at once: a buffer that grew would leave copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(READ_BYTES_MAX));
        file.take(READ_BYTES_MAX as u64)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::file("read the token file", path, source))?;
        let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
        let token = Self::new(&bytes[..end])?;
        Ok(TokenFile { token, warning })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What a daemon keeps of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256Digest::of(&self.0))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A token and what was seen of its file.
#[derive(Clone, Debug)]
pub struct TokenFile {
    /// The token.
    pub token: Token,
    /// What the operator should be told.
    pub warning: Option<TokenWarning>,
}

/// Why a token's file does not keep it a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenWarning {
    /// Every user of the machine can read or write it.
    #[error(
        "everybody on this machine can read or write the token file {path} (mode {mode:04o}); `chmod 600` it"
    )]
    OpenToAll {
        /// The file.
        path: String,
        /// Its permissions.
        mode: u32,
    },
}

#[cfg(unix)]
fn warning_of(file: &File, path: &Path) -> Result<Option<TokenWarning>, Error> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().map_err(|source| Error::file("look at the token file", path, source))?;
    let mode = metadata.mode() & 0o7777;
    let is_open = metadata.is_file() && mode & 0o007 != 0;
    Ok(is_open.then(|| TokenWarning::OpenToAll { path: path.display().to_string(), mode }))
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "the signature is that of the Unix twin")]
fn warning_of(_file: &File, _path: &Path) -> Result<Option<TokenWarning>, Error> {
    Ok(None)
}

/// The SHA-256 of a token: what a daemon keeps instead of it.
#[derive(Clone)]
pub struct TokenHash(Sha256Digest);

impl TokenHash {
    /// Whether `candidate` is the token. The time taken depends on the candidate's length alone.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let digest = Sha256Digest::of(candidate);
        bool::from(self.0.0.ct_eq(&digest.0)) && !candidate.is_empty()
    }
}

impl std::fmt::Debug for TokenHash {
    /// The digest of a weak token is as good as the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, bytes).unwrap();
        Token::read(&path).map(|file| file.token.bytes().to_vec())
    }

    #[test]
    fn line_ends_after_a_token_do_not_belong_to_it() {
        for text in ["secret", "secret\n", "secret\r\n", "secret\n\n"] {
            assert_eq!(read(text.as_bytes()).unwrap(), b"secret");
        }
        assert_eq!(read(b" se\ncret \n").unwrap(), b" se\ncret ", "what stands before them does");
        assert_eq!(read(&[0xff, 0x00, b'\n']).unwrap(), [0xff, 0x00], "a token need not be text");
    }

    #[test]
    fn a_file_without_a_token_is_an_error_and_so_is_one_with_too_much() {
        for text in ["", "\n", "\r\n\n"] {
            assert!(matches!(read(text.as_bytes()), Err(Error::EmptyToken)), "{text:?}");
        }
        let longest = vec![b'a'; TOKEN_BYTES_MAX];
        assert_eq!(read(&longest).unwrap(), longest);
        assert_eq!(read(&[&longest[..], b"\r\n"].concat()).unwrap(), longest);
        for excess in [1, 20, 1 << 20] {
            let text = vec![b'a'; TOKEN_BYTES_MAX + excess];
            assert!(matches!(read(&text), Err(Error::TokenTooLong { limit: TOKEN_BYTES_MAX })), "{excess}");
        }
        assert!(matches!(Token::read(Path::new("/nonexistent/token")), Err(Error::File { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_everybody_can_read_is_reported() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "secret").unwrap();
        for (mode, is_reported) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let warning = Token::read(&path).unwrap().warning;
            assert_eq!(warning.is_some(), is_reported, "{mode:o}: {warning:?}");
        }
    }

    #[test]
    fn nothing_shows_a_token_or_its_digest() {
        let token = Token::new("hunter2").unwrap();
        let shown = format!("{token:?} {:?}", token.hash());
        assert_eq!(shown, "Token(…) TokenHash(…)");
    }

    #[test]
    fn a_hash_matches_its_own_token_alone() {
        let hash = Token::new("secret").unwrap().hash();
        assert!(hash.matches(b"secret"));
        for other in [&b""[..], b"secre", b"secret\n", b"Secret", &[b's'; 100_000]] {
            assert!(!hash.matches(other));
        }
    }
}
