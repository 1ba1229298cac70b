//! [`Identity`]: whether a path still leads to the file that was opened. A file that was removed can be written to for ever,
//! and all of that is gone at the end, so it has to be looked for. Tested in `sqlite/tests/files.rs`.

use std::path::Path;

/// Which file a path led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(
    /// Device and number of the file; none when the path led nowhere, or where files have no numbers.
    Option<(u64, u64)>,
);

impl Identity {
    pub(super) fn of(path: &Path) -> Self {
        #[cfg(unix)]
        let numbers = {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
        };
        #[cfg(not(unix))]
        let numbers = None::<(u64, u64)>.filter(|_| path.exists());
        Identity(numbers)
    }

    pub(super) fn is_still(self, path: &Path) -> bool {
        self == Identity::of(path)
    }
}
