//! JSON as text: writing strings and numbers, reading a string back, and measuring depth, without a tree.
//!
//! It does not validate JSON: what it reads has passed `serde_json` before, or was written here.

use std::borrow::Cow;

/// The hexadecimal digits of `\u00XX`.
const HEX: &[u8; 16] = b"0123456789abcdef";

/// How deep arrays and objects may nest inside a payload. Receivers read payloads with recursive parsers
/// (Python gives up near 1,000 levels, .NET at 64 unless told otherwise): nobody may break his readers
/// through us.
pub(crate) const MAX_DEPTH: usize = 128;

/// Whether a byte must be escaped inside a JSON string.
pub(crate) fn special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Appends `text` as a JSON string with its quotes. Text with nothing to escape is copied in one piece.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    // A fold instead of `any`: without an early exit the compiler makes vectors of it.
    if bytes.iter().fold(false, |found, &byte| found | special(byte)) {
        push_escaped(out, bytes);
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'"');
}

/// Appends the bytes of a string's inside, clean runs in one piece each.
fn push_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| special(byte)) {
        out.extend_from_slice(&rest[..at]);
        let byte = rest[at];
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends a whole number.
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends `true` or `false`.
pub(crate) fn push_bool(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// What [`read_string`] found.
pub(crate) enum StringText<'a> {
    /// The text, borrowed where nothing was escaped.
    Whole(Cow<'a, str>),
    /// The string held half of a surrogate pair, which no UTF-8 text can; U+FFFD stands in its place.
    Repaired(String),
    /// The JSON is no string.
    NotString,
}

/// Reads a valid JSON value that should be a string.
pub(crate) fn read_string(json: &str) -> StringText<'_> {
    let Some(inside) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return StringText::NotString;
    };
    if inside.as_bytes().contains(&b'\\') {
        unescape(inside)
    } else {
        StringText::Whole(Cow::Borrowed(inside))
    }
}

/// Undoes the escapes of a string's inside.
fn unescape(inside: &str) -> StringText<'static> {
    let mut text = String::with_capacity(inside.len());
    let mut repaired = false;
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut chars = rest.chars();
        let Some(kind) = chars.next() else { break };
        rest = chars.as_str();
        text.push(match kind {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (letter, used) = unicode_escape(rest);
                rest = rest.get(used..).unwrap_or("");
                letter.unwrap_or_else(|| {
                    repaired = true;
                    char::REPLACEMENT_CHARACTER
                })
            }
            // `"`, `\` and `/` stand for themselves; nothing else can follow in valid JSON.
            other => other,
        });
    }
    text.push_str(rest);
    if repaired { StringText::Repaired(text) } else { StringText::Whole(Cow::Owned(text)) }
}

/// Reads the four digits behind `\u`, and the second half of a pair where they begin one. Gives the letter
/// (none for half a pair) and how many bytes it took.
fn unicode_escape(rest: &str) -> (Option<char>, usize) {
    let unit = |digits: Option<&str>| digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(first) = unit(rest.get(..4)) else { return (None, 4) };
    if let Some(letter) = char::from_u32(first) {
        return (Some(letter), 4);
    }
    let second = rest.get(4..).and_then(|more| more.strip_prefix("\\u")).and_then(|more| unit(more.get(..4)));
    match second {
        Some(low) if first < 0xDC00 && (0xDC00..0xE000).contains(&low) => {
            (char::from_u32(0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00)), 10)
        }
        _ => (None, 4),
    }
}

/// Whether a valid JSON value nests deeper than [`MAX_DEPTH`].
pub(crate) fn too_deep(json: &str) -> bool {
    let bytes = json.as_bytes();
    // Each level takes two bytes and one opening bracket: almost every payload is settled by its length or by
    // a count that vectors do.
    if bytes.len() <= 2 * MAX_DEPTH {
        return false;
    }
    let opening = |byte: &u8| u8::from((*byte == b'[') | (*byte == b'{'));
    // Counted in bytes first, which fill vectors sixteen times as densely as words; a chunk of 128 cannot
    // overflow one.
    if bytes.chunks(128).map(|chunk| usize::from(chunk.iter().map(opening).sum::<u8>())).sum::<usize>()
        <= MAX_DEPTH
    {
        return false;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = bytes.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    fn read(json: &str) -> String {
        match read_string(json) {
            StringText::Whole(text) => text.into_owned(),
            StringText::Repaired(text) => format!("repaired {text}"),
            StringText::NotString => "no string".into(),
        }
    }

    #[test]
    fn escapes_only_what_json_demands() {
        assert_eq!(written("plain ü 😀 /"), "\"plain ü 😀 /\"");
        assert_eq!(
            written("a\"b\\c\nd\re\tf\u{0}g\u{1f}h\u{7f}"),
            r#""a\"b\\c\nd\re\tf\u0000g\u001fh"#.to_owned() + "\u{7f}\""
        );
        assert_eq!(written(""), "\"\"");
    }

    #[test]
    fn reads_every_escape() {
        assert_eq!(read(r#""\"\\\/\b\f\n\r\t\u00fc\ud83d\ude00""#), "\"\\/\u{8}\u{c}\n\r\tü😀");
        assert_eq!(read("\"ü\""), "ü");
        assert_eq!(read("17"), "no string");
    }

    #[test]
    fn half_a_pair_is_replaced_and_said() {
        assert_eq!(read(r#""a\ud83db""#), "repaired a\u{fffd}b");
        assert_eq!(read(r#""\ude00\ud83d\u0041""#), "repaired \u{fffd}\u{fffd}A");
        assert_eq!(read(r#""\ud83d\ud83d\ude00""#), "repaired \u{fffd}😀");
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(!too_deep(&nested(MAX_DEPTH)));
        assert!(too_deep(&nested(MAX_DEPTH + 1)));
        assert!(too_deep(&nested(100_000)));
        assert!(!too_deep(&format!("\"{}\\\"{}\"", "[".repeat(500), "{".repeat(500))));
        assert!(!too_deep(&format!("[{}1]", "[],".repeat(500))));
    }

    #[test]
    fn numbers_as_rust_prints_them() {
        for number in [0, 1, 9, 10, 99, 100, 1234567890, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            let json = written(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text.clone());
            prop_assert_eq!(read(&json), text.clone());
            // serde_json escapes other letters than we do; both must read the same.
            prop_assert_eq!(read(&serde_json::to_string(&text).unwrap()), text);
        }
    }
}
