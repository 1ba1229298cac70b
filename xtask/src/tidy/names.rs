//! Names that say nothing: a file or an item called so has no noun of its own yet.

use std::path::Path;

use super::Finding;

/// Words that may not be part of a name, singular and plural.
const EMPTY: &[&str] = &["manager", "helper", "util", "factory", "base", "common", "misc"];

/// What stands before the name of an item.
const KEYWORDS: &[&str] = &["struct", "enum", "trait", "union", "mod", "type", "fn", "macro_rules!"];

/// What may stand before such a keyword. Anything else is prose, or code that names nothing.
fn is_modifier(word: &str) -> bool {
    word.starts_with("pub") || ["async", "const", "unsafe", "extern", "\"C\""].contains(&word)
}

/// Judges each part of the path but the ending.
pub(super) fn of_path(path: &Path) -> Option<Finding> {
    let word = path.components().find_map(|component| {
        let name = component.as_os_str().to_string_lossy().into_owned();
        empty_word(name.split_once('.').map_or(&*name, |(stem, _)| stem))
    })?;
    Some(Finding::file(path, format!("`{word}` in a file's name says nothing; name the noun that is in it")))
}

/// Judges the names of a Rust file's items, public or not.
pub(super) fn of_items(path: &Path, text: &str) -> Vec<Finding> {
    let of_line = |(index, line): (usize, &str)| {
        let mut words = line.split_whitespace().skip_while(|word| is_modifier(word));
        words.next().filter(|word| KEYWORDS.contains(word))?;
        let name = words.next()?.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        let word = empty_word(name)?;
        Some(Finding::line(
            path,
            index + 1,
            format!("`{word}` in `{name}` says nothing; say what it does or holds"),
        ))
    };
    text.lines().enumerate().filter_map(of_line).collect()
}

/// The first empty word in a name written in snake_case, kebab-case or CamelCase.
fn empty_word(name: &str) -> Option<&'static str> {
    let mut words = vec![String::new()];
    let mut before = '_';
    for letter in name.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && !before.is_uppercase()) {
            words.push(String::new());
        }
        if letter.is_alphanumeric() {
            words.last_mut().expect("one word at least").extend(letter.to_lowercase());
        }
        before = letter;
    }
    let is = |word: &str, empty: &str| {
        let singular = word.strip_suffix("ies").map(|stem| format!("{stem}y"));
        word == empty || word.strip_suffix('s') == Some(empty) || singular.as_deref() == Some(empty)
    };
    EMPTY.iter().copied().find(|empty| words.iter().any(|word| is(word, empty)))
}
