//! [`Source`]: where the text of settings is, a file or a document of a Nacos server. Tested here, and by
//! `tests/cluster/configurations.rs` with a real server.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

#[cfg(feature = "nacos")]
use tieline_backends::{DocumentError, NacosDocument};

/// Where the text of settings is.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// On a server, by `nacos://user:password@host/namespace?group=&dataId=`.
    #[cfg(feature = "nacos")]
    Nacos(NacosDocument),
}

/// A text of settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it is from, as mistakes in it are told: the file, or the address without its password.
    pub name: PathBuf,
    /// The text, in TOML.
    pub text: String,
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// An address that is of nothing known. It is not repeated: there may be a password in it.
    #[error(
        "`--config` takes the name of a file, or `nacos://[USER:PASSWORD@]HOST[:PORT][/NAMESPACE]?[group=GROUP&]dataId=NAME`; there is no `{0}://`"
    )]
    Scheme(String),
    /// A server that is known, but not to this program.
    #[cfg(not(feature = "nacos"))]
    #[error(
        "Nacos is not built into this program: build it with `cargo build --release -p tieline --features nacos`"
    )]
    NotBuilt,
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server, or its address.
    #[cfg(feature = "nacos")]
    #[error(transparent)]
    Nacos(#[from] DocumentError),
}

impl SourceError {
    /// Whether a server was out of reach, and may come back.
    pub fn is_away(&self) -> bool {
        match self {
            #[cfg(feature = "nacos")]
            SourceError::Nacos(error) => error.is_away(),
            _ => false,
        }
    }
}

impl Source {
    /// Reads what `--config` takes.
    ///
    /// # Errors
    /// For an address that names no document, without repeating it.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        match text.split_once("://") {
            #[cfg(feature = "nacos")]
            Some(("nacos", _)) => Ok(Source::Nacos(NacosDocument::parse(text)?)),
            #[cfg(not(feature = "nacos"))]
            Some(("nacos", _)) => Err(SourceError::NotBuilt),
            Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Err(SourceError::Scheme(scheme.to_owned()))
            }
            _ => Ok(Source::File(PathBuf::from(text))),
        }
    }

    /// Whether it is on a server, which is asked again and again, and may be away.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Source::File(_))
    }

    /// Reads the text.
    ///
    /// # Errors
    /// When there is none, from a server after 4 s at the latest.
    pub async fn read(&self) -> Result<Document, SourceError> {
        match self {
            Source::File(path) => match fs::read_to_string(path) {
                Ok(text) => Ok(Document { name: path.clone(), text }),
                Err(source) => Err(SourceError::File { path: path.clone(), source }),
            },
            #[cfg(feature = "nacos")]
            Source::Nacos(document) => {
                Ok(Document { text: document.fetch().await?, name: PathBuf::from(document.to_string()) })
            }
        }
    }
}

impl fmt::Display for Source {
    /// The file, or the address without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            #[cfg(feature = "nacos")]
            Source::Nacos(document) => document.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_addresses_are_told_apart() {
        for path in ["tieline.toml", "/etc/tieline/node.toml", "./a://b"] {
            assert_eq!(Source::parse(path).unwrap(), Source::File(PathBuf::from(path)));
        }
        for (text, words) in [
            ("etcd://:hush@h/x", "there is no `etcd://`"),
            #[cfg(feature = "nacos")]
            ("nacos://u:hush@h/x", "dataId=NAME"),
            #[cfg(not(feature = "nacos"))]
            ("nacos://u:hush@h/x?dataId=y", "--features nacos"),
        ] {
            let error = Source::parse(text).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("hush"), "{error}");
        }
    }
}
