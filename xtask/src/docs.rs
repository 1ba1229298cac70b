//! Documents that are printed from code, so that they cannot say anything else than the code does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A document's place in the workspace, and where its text comes from.
type Document = (&'static str, fn() -> String);

const DOCUMENTS: &[Document] = &[("docs/errors.md", tieline_proto::error::markdown)];

/// Why the documents are not as the code says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file differs from what would be written.
    #[error("{} is not what the code says; run `cargo xtask docs`", .0.display())]
    Stale(PathBuf),
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}

/// Writes all documents below `root`.
pub fn write(root: &Path) -> Result<(), Error> {
    for (path, text) in DOCUMENTS {
        let path = root.join(path);
        fs::write(&path, text()).map_err(|source| Error::Io { path, source })?;
    }
    Ok(())
}

/// Compares all documents below `root` with what [`write()`] would put there.
pub fn check(root: &Path) -> Result<(), Error> {
    for (path, text) in DOCUMENTS {
        let path = root.join(path);
        match fs::read_to_string(&path) {
            Ok(present) if present == text() => {}
            Ok(_) => return Err(Error::Stale(path)),
            Err(source) => return Err(Error::Io { path, source }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{DOCUMENTS, check, write};
    use std::fs;

    #[test]
    fn the_documents_are_what_the_code_says() {
        check(&crate::root()).unwrap();
    }

    #[test]
    fn a_document_somebody_changed_is_found_and_written_anew() {
        let root = crate::workspace::target().join(format!("docs-test-{}", std::process::id()));
        fs::create_dir_all(root.join("docs")).unwrap();
        assert!(check(&root).is_err(), "nothing is there yet");
        write(&root).unwrap();
        check(&root).unwrap();
        fs::write(root.join(DOCUMENTS[0].0), "something else").unwrap();
        assert!(check(&root).unwrap_err().to_string().contains("cargo xtask docs"));
        fs::remove_dir_all(&root).unwrap();
    }
}
