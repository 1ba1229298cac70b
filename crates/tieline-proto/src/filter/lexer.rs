//! The words of a filter.

use super::{FilterError, FilterProblem};

/// One word and where it begins, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// Where it begins.
    pub(super) at: usize,
    /// What it is.
    pub(super) kind: TokenKind<'a>,
}

/// What a word is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenKind<'a> {
    /// An identifier, function, operator or constant, as written.
    Word(&'a str),
    /// A string, its doubled quotes made single.
    Text(String),
    /// An integer.
    Integer(i64),
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// The end of the filter.
    End,
}

/// Makes an error at a byte, told in characters.
pub(super) fn error_at(text: &str, at: usize, problem: FilterProblem) -> FilterError {
    FilterError { at: text[..at].chars().count() + 1, problem }
}

/// Cuts a filter into words. The last one is [`TokenKind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, FilterError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(letter) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, kind) = match letter {
            ' ' | '\t' | '\r' | '\n' => {
                at += 1;
                continue;
            }
            '(' => (1, TokenKind::Open),
            ')' => (1, TokenKind::Close),
            ',' => (1, TokenKind::Comma),
            '\'' => string(rest).ok_or_else(|| error_at(text, at, FilterProblem::OpenString))?,
            '0'..='9' | '+' | '-' => {
                let length = 1 + rest[1..].bytes().take_while(u8::is_ascii_digit).count();
                if !rest.as_bytes()[length - 1].is_ascii_digit() {
                    return Err(error_at(text, at, FilterProblem::Letter(letter)));
                }
                let number = rest[..length].parse();
                let number = number.map_err(|_| error_at(text, at, FilterProblem::BigInteger))?;
                (length, TokenKind::Integer(number))
            }
            letter if letter.is_ascii_alphabetic() => {
                let length =
                    rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                (length, TokenKind::Word(&rest[..length]))
            }
            letter => return Err(error_at(text, at, FilterProblem::Letter(letter))),
        };
        found.push(Token { at, kind });
        at += length;
    }
    found.push(Token { at, kind: TokenKind::End });
    Ok(found)
}

/// Reads a string from its opening quote on. Gives its length with both quotes, or none where it does not
/// end.
fn string(rest: &str) -> Option<(usize, TokenKind<'_>)> {
    let mut value = String::new();
    let mut at = 1;
    loop {
        let quote = at + rest[at..].find('\'')?;
        value.push_str(&rest[at..quote]);
        at = quote + 1;
        if !rest[at..].starts_with('\'') {
            return Some((at, TokenKind::Text(value)));
        }
        value.push('\'');
        at += 1;
    }
}
