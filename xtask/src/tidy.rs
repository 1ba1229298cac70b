//! Rules of the house that neither the compiler nor clippy knows: sizes, names, headers, the arrows between crates.
//!
//! Runs as `cargo xtask tidy` and as a test, so that nobody has to remember it. Each rule is a function of a path and
//! a text, tested in `tidy/tests.rs` on text that breaks it.

mod arrows;
mod names;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Longer files are split. Half of this is a good time to think about it.
const MOST_LINES: usize = 800;

/// What holds nothing written by hand: folders, but `.git` is a file in a linked work tree.
const NOT_OURS: &[&str] = &[".git", "target", "node_modules", "__pycache__", "corpus", "artifacts"];

/// Files that tools write.
const GENERATED: &[&str] = &["Cargo.lock", "package-lock.json"];

/// Endings of files that people read as source.
const SOURCE: &[&str] = &["rs", "js", "mjs", "ts", "py", "sh"];

/// Words that belong to somebody's workplace, not to the product. Split, so that this file is clean too.
const WORKPLACE: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!(".lib", "rary"), concat!("issue", " #")];

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Relative to the workspace.
    pub path: PathBuf,
    /// 1 for the first line; none when it is about the whole file.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Finding {
    fn file(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, message: message.into() }
    }

    fn line(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line: Some(line), message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Checks every file below `root`. An empty list is what is wanted.
pub fn check(root: &Path) -> io::Result<Vec<Finding>> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for file in files {
        let path = file.strip_prefix(root).expect("collected below the root");
        // Whatever is not text is not judged.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        findings.extend(names::of_path(path));
        findings.extend(workplace(path, &text));
        if is_source(path) {
            findings.extend(size(path, &text));
        }
        if path.extension().is_some_and(|ending| ending == "rs") {
            findings.extend(header(path, &text));
            findings.extend(names::of_items(path, &text));
        }
        if path.ends_with("Cargo.toml") && (path.starts_with("crates") || path.starts_with("xtask")) {
            findings.extend(arrows::check(path, &text));
        }
    }
    Ok(findings)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if NOT_OURS.iter().any(|not_ours| name == *not_ours) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() && !GENERATED.iter().any(|generated| name == *generated) {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|ending| SOURCE.iter().any(|source| ending == *source))
}

fn size(path: &Path, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    (lines > MOST_LINES).then(|| {
        Finding::file(
            path,
            format!("{lines} lines; a file has at most {MOST_LINES}, so find the second noun in it"),
        )
    })
}

/// Each source file of a crate says what it is before anything else.
fn header(path: &Path, text: &str) -> Option<Finding> {
    let in_source = path.components().any(|component| component.as_os_str() == "src");
    (in_source && !text.starts_with("//!")).then(|| {
        Finding::file(path, "a source file starts with `//!`: what it is, what it is not, how it is tested")
    })
}

fn workplace(path: &Path, text: &str) -> Vec<Finding> {
    let of_line = |(index, line): (usize, &str)| {
        let word = WORKPLACE.iter().find(|word| line.contains(**word))?;
        Some(Finding::line(path, index + 1, format!("`{word}` is of a workplace, not of the product")))
    };
    text.lines().enumerate().filter_map(of_line).collect()
}
