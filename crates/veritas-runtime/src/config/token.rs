//! The token that clients must present: where it comes from, and how it is held.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use veritas_proto::limits::TOKEN_BYTES_MAX;
use zeroize::Zeroizing;

use super::{Environment, Error};

/// The variable that holds a token.
pub(super) const VARIABLE: &str = "VERITAS_TOKEN";

/// The variable that systemd sets to the folder of a unit's credentials.
pub(super) const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The name of the credential.
const CREDENTIAL: &str = "veritas-token";

/// Where a token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenSource {
    /// Nowhere: none is asked for.
    None,
    /// A file, which must be there.
    File(PathBuf),
    /// The variable `VERITAS_TOKEN`.
    Variable,
    /// A systemd credential. It need not be there, since a unit may have other credentials alone.
    Credential(PathBuf),
}

/// A token. It can be neither printed nor serialised, and its memory is overwritten when it is dropped.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The bytes, of which there is at least one; neither the end of a line nor spaces stand at their end.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl TokenSource {
    /// Where a client or a daemon finds its token: `flag` (`--token-file`), else `VERITAS_TOKEN_FILE` or
    /// `VERITAS_TOKEN`, else the file that `configured` names, else the systemd credential `veritas-token`.
    ///
    /// # Errors
    /// If both variables are set, since nothing says which one is meant.
    pub fn find(
        flag: Option<PathBuf>,
        environment: &Environment<'_>,
        configured: Option<PathBuf>,
    ) -> Result<Self, Error> {
        const FILE_VARIABLE: &str = "VERITAS_TOKEN_FILE";
        if let Some(path) = flag {
            return Ok(Self::File(path));
        }
        match ((environment.variable)(FILE_VARIABLE), (environment.variable)(VARIABLE).is_some()) {
            (Some(_), true) => {
                let message = format!("{VARIABLE} and {FILE_VARIABLE} are both set; unset one of them");
                return Err(Error::Contradiction { origin: super::Origin::variable(VARIABLE), message });
            }
            (Some(path), false) => return Ok(Self::File(path.into())),
            (None, true) => return Ok(Self::Variable),
            (None, false) => {}
        }
        let folder = (environment.variable)(CREDENTIALS_VARIABLE).filter(|folder| !folder.is_empty());
        let credential = folder.map(|folder| Self::Credential(PathBuf::from(folder).join(CREDENTIAL)));
        Ok(configured.map(Self::File).or(credential).unwrap_or(Self::None))
    }

    /// Reads the token; `None` where the source is [`TokenSource::None`] or a credential that is not there.
    /// Whitespace at its end is no part of it.
    ///
    /// # Errors
    /// If the file cannot be read, or the token is empty, longer than [`TOKEN_BYTES_MAX`], or more than one line.
    pub fn read(&self, environment: &Environment<'_>) -> Result<Option<Secret>, Error> {
        let bytes = match self {
            Self::None => return Ok(None),
            Self::Variable => {
                let value = (environment.variable)(VARIABLE).unwrap_or_default();
                Zeroizing::new(OsString::into_encoded_bytes(value))
            }
            Self::File(path) | Self::Credential(path) => match read_file(path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.may_be_absent() => {
                    return Ok(None);
                }
                Err(error) => return Err(self.refuse(format!("cannot be read: {error}"))),
            },
        };
        self.check(bytes).map(Some)
    }

    fn may_be_absent(&self) -> bool {
        matches!(self, Self::Credential(_))
    }

    fn check(&self, mut bytes: Zeroizing<Vec<u8>>) -> Result<Secret, Error> {
        if bytes.len() > TOKEN_BYTES_MAX {
            return Err(
                self.refuse(format!("has more than the {TOKEN_BYTES_MAX} bytes that a token may have"))
            );
        }
        let end = bytes.trim_ascii_end().len();
        bytes.truncate(end);
        if bytes.is_empty() {
            return Err(self.refuse("is empty".to_owned()));
        }
        if bytes.iter().any(|byte| [b'\n', b'\r', 0].contains(byte)) {
            return Err(self.refuse("is more than one line".to_owned()));
        }
        Ok(Secret(bytes))
    }

    fn refuse(&self, reason: String) -> Error {
        let origin = match self {
            Self::None => String::new(),
            Self::File(path) => format!("token file {}", path.display()),
            Self::Variable => format!("environment {VARIABLE}"),
            Self::Credential(path) => format!("credential {}", path.display()),
        };
        Error::Token { origin, reason }
    }
}

/// The file, or as much of it as shows that it is too long. The buffer never moves, so that no copy is left behind.
fn read_file(path: &std::path::Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // `read_to_end` grows a full buffer even at the end of the file, hence the room.
    let mut bytes = Zeroizing::new(Vec::with_capacity(TOKEN_BYTES_MAX + 64));
    File::open(path)?.take(TOKEN_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
