//! [`Prefix`]: what the gateway takes off the front of a path and puts there.
//!
//! Paths are compared as they were sent; nothing is decoded. Tested below.

/// What is taken off the front of a path and put there instead. Either may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefix {
    strip: String,
    add: String,
}

/// A text that is no prefix of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a prefix is a path such as /websocket, without a slash at its end, of letters, digits and - . _ ~ /"
)]
pub struct NoPrefix;

/// Checks what a prefix is written as. `/` alone is none.
///
/// # Errors
/// When it is no path.
pub(super) fn parse(text: &str) -> Result<String, NoPrefix> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let is_path = text.starts_with('/') && !text.ends_with('/') && !text.contains("//");
    let is_plain =
        text.bytes().all(allowed) && !text.split('/').any(|segment| segment == "." || segment == "..");
    match text {
        "" | "/" => Ok(String::new()),
        text if is_path && is_plain && text.len() <= 256 => Ok(text.to_owned()),
        _ => Err(NoPrefix),
    }
}

impl Prefix {
    /// Of texts that [`parse`] accepted.
    pub(super) fn new(strip: String, add: String) -> Self {
        Prefix { strip, add }
    }

    /// What is taken off.
    pub(super) fn stripped(&self) -> &str {
        &self.strip
    }

    /// Path and query as the node gets them; none for a path that does not begin so, or is no path.
    pub(super) fn apply(&self, target: &str) -> Option<String> {
        if !target.starts_with('/') {
            return None;
        }
        let rest = target.strip_prefix(&*self.strip)?;
        match rest.as_bytes().first() {
            Some(b'/') => Some(format!("{}{rest}", self.add)),
            None | Some(b'?') => Some(format!("{}/{rest}", self.add)),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_off_between_segments_alone() {
        let prefix = |strip: &str, add: &str| Prefix::new(parse(strip).unwrap(), parse(add).unwrap());
        let websocket = prefix("/websocket", "");
        for (target, expected) in [
            ("/websocket/client/alice?x=/y", Some("/client/alice?x=/y")),
            ("/websocket", Some("/")),
            ("/websocket?x", Some("/?x")),
            ("/websocket/", Some("/")),
            ("/websocket//x", Some("//x")),
            ("/websockets/x", None),
            ("/Websocket/x", None),
            ("/%77ebsocket/x", None),
            ("/x", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(websocket.apply(target).as_deref(), expected, "{target}");
        }
        assert_eq!(prefix("/a/b", "/c").apply("/a/b/d").as_deref(), Some("/c/d"));
        assert_eq!(prefix("/", "/c").apply("/d?e").as_deref(), Some("/c/d?e"));
        assert_eq!(Prefix::default().apply("/d?e").as_deref(), Some("/d?e"));
        assert_eq!(Prefix::default().apply("*"), None);
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in ["x", "/x/", "//", "/x//y", "/x y", "/x?y", "/%41", "/../x", "/x/.", &"/x".repeat(200)] {
            assert_eq!(parse(text), Err(NoPrefix), "{text}");
        }
    }
}
