//! [`LastGood`]: a copy of the last good text of settings that a server gave, so that a node starts while that server is away.
//!
//! The text may hold secrets, so nobody but the node's own user reads the copy. Whoever reads it has the whole of one text or of
//! the one before, whenever the writer is killed. Tested here, and with a real server in `tests/cluster/configurations.rs`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::given::Given;
use super::source::{Document, Source};

/// The variable that names the file of the copy.
pub const COPY_VARIABLE: &str = "TIELINE_CONFIG_COPY";

/// Where the copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastGood(PathBuf);

impl LastGood {
    /// The place for what a source gives: the file that `TIELINE_CONFIG_COPY` names, or one named after the source in the first
    /// of `$STATE_DIRECTORY`, `$XDG_STATE_HOME/tieline` and `$HOME/.local/state/tieline`. None for a file, which needs no copy, and where
    /// there is no such folder.
    pub fn of(given: &Given) -> Option<LastGood> {
        let source = given.source().filter(|source| source.is_remote())?;
        let named = |name| given.variable(name).filter(|text| !text.is_empty()).map(Path::new);
        if let Some(path) = named(COPY_VARIABLE) {
            return Some(LastGood(path.to_owned()));
        }
        // systemd separates several by colons.
        let states = given.variable("STATE_DIRECTORY").and_then(|folders| folders.split(':').next());
        let states = states.filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let below = |name, inner| named(name).map(|folder| folder.join(inner));
        let folder = states
            .or_else(|| below("XDG_STATE_HOME", "tieline"))
            .or_else(|| below("HOME", ".local/state/tieline"))?;
        Some(LastGood(folder.join(file_name(source))))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the copy.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn read(&self) -> io::Result<Document> {
        Ok(Document { name: self.0.clone(), text: fs::read_to_string(&self.0)? })
    }

    /// Writes the copy anew, if it is another one.
    ///
    /// # Errors
    /// When it cannot be written; the one before stays then.
    pub fn keep(&self, text: &str) -> io::Result<()> {
        if self.read().is_ok_and(|kept| kept.text == text) {
            return Ok(());
        }
        let folder =
            self.0.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut fresh = self.0.clone().into_os_string();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let written = self.write(&fresh, text).and_then(|()| File::open(folder)?.sync_all());
        if written.is_err() {
            // What is left of it would be read by nobody.
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    fn write(&self, fresh: &Path, text: &str) -> io::Result<()> {
        if let Err(error) = fs::remove_file(fresh)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(fresh, &self.0)
    }
}

/// A name that is the same at every start, and another one for another source.
fn file_name(source: &Source) -> String {
    // FNV-1a, which stays what it is, whatever this program is built with.
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let number = source.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    format!("config-{number:016x}.toml")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_copy_is_whole_private_and_replaced() {
        let folder = std::env::temp_dir().join(format!("tieline-last-good-{}", std::process::id()));
        let kept = LastGood(folder.join("inner/config.toml"));
        assert!(kept.read().is_err());
        for text in ["one", "a longer one", ""] {
            kept.keep(text).unwrap();
            assert_eq!(kept.read().unwrap().text, text);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(kept.path()), mode(&folder.join("inner"))), (0o600, 0o700));
        assert_eq!(fs::read_dir(folder.join("inner")).unwrap().count(), 1, "something was left behind");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[cfg(feature = "nacos")]
    #[test]
    fn the_place_follows_the_environment_and_the_source() {
        let place = |config: &str, variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            let given = Given::new(Some(config), variables.collect(), Vec::new()).unwrap();
            LastGood::of(&given).map(|kept| kept.0.display().to_string())
        };
        let (one, other) = ("nacos://u:p@a?dataId=x", "nacos://u:p@a?dataId=y");
        let all = [("HOME", "/h"), ("XDG_STATE_HOME", "/x"), ("STATE_DIRECTORY", "/s:/t")];
        let named = [("TIELINE_CONFIG_COPY", "/c"), all[0]];
        assert_eq!(place(one, &named).as_deref(), Some("/c"));
        assert!(place(one, &all).unwrap().starts_with("/s/config-"));
        assert!(place(one, &all[..2]).unwrap().starts_with("/x/tieline/config-"));
        assert!(place(one, &all[..1]).unwrap().starts_with("/h/.local/state/tieline/config-"));
        assert_eq!(place(one, &[]), None);
        assert_eq!(place("a.toml", &all), None);
        assert_ne!(place(one, &all), place(other, &all));
        assert_eq!(place(one, &all), place("nacos://u:q@a?dataId=x", &all), "the password is no part of it");
    }
}
