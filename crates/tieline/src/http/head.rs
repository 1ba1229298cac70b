//! [`Head`]: the first line and the headers of a request for a WebSocket, whoever parsed them.

use hyper::Request;
use hyper::header::CONTENT_LENGTH;

/// Headers that one request may have.
pub(super) const MAX_HEADERS: usize = 100;

/// The head of a request. Its target is the path with its query.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method, as it was written.
    pub method: &'a str,
    /// Path and query.
    target: &'a str,
    /// The x of HTTP/1.x.
    pub minor: u8,
    /// Names and values in their order.
    headers: Vec<(&'a str, &'a [u8])>,
}

/// How often a header is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Not at all.
    Absent,
    /// Once, with this text; none when it is no ASCII text.
    Once(Option<&'a str>),
    /// More than once.
    Repeated,
}

impl<'a> Head<'a> {
    /// Parses a head that lies whole at the start of `bytes`, and says how long it is. `None` for everything else, whatever is
    /// the matter with it: incomplete, malformed, too many headers, or a target in a form that needs a closer look.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(length)) = request.parse(bytes) else { return None };
        let target = request.path.filter(|target| target.starts_with('/') && !target.contains('#'))?;
        let headers = request.headers.iter().map(|header| (header.name, header.value)).collect();
        Some((Head { method: request.method?, target, minor: request.version?, headers }, length))
    }

    /// The head of a request that hyper parsed.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Head {
            method: request.method().as_str(),
            target: request.uri().path_and_query().map_or("/", |target| target.as_str()),
            minor: u8::from(request.version() == hyper::Version::HTTP_11),
            headers: request
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes()))
                .collect(),
        }
    }

    /// Path and query, as they were sent.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The path, percent-encoded as it is.
    pub fn path(&self) -> &'a str {
        self.target.split('?').next().unwrap_or(self.target)
    }

    /// What stands behind the first question mark.
    pub fn query(&self) -> &'a str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// All headers.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter().copied()
    }

    /// The header of a name, given in lower case.
    pub fn header(&self, name: &str) -> Found<'a> {
        let mut values = self.headers().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (None, _) => Found::Absent,
            (Some((_, value)), None) => {
                let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii());
                Found::Once(text.map(str::trim))
            }
            (Some(_), Some(_)) => Found::Repeated,
        }
    }

    /// What proxies in front have taken off the path, as they say: who signed an address signed it with that. Anybody may say so,
    /// which is why it may have no segment `api`: otherwise a token for the group `metrics`, say, were one for `/metrics` too.
    pub fn stripped_prefix(&self) -> Option<&'a str> {
        let Found::Once(Some(prefix)) = self.header("x-forwarded-prefix") else { return None };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        let is_path = prefix.starts_with('/') && !prefix.ends_with('/') && prefix.bytes().all(allowed);
        (is_path && prefix.split('/').all(|segment| segment != "api")).then_some(prefix)
    }

    /// Whether bytes follow that belong to the request.
    pub(super) fn has_body(&self) -> bool {
        let length = self.header(CONTENT_LENGTH.as_str());
        !matches!(length, Found::Absent | Found::Once(Some("0")))
            || self.header("transfer-encoding") != Found::Absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] =
        b"GET /client/hubs/h?a=b?c HTTP/1.1\r\nHost: h\r\nX: 1\r\nx: 2\r\nY: \xff\r\n\r\nframes";

    #[test]
    fn a_head_is_parsed_and_what_follows_is_left() {
        let (head, length) = Head::parse(REQUEST).unwrap();
        assert_eq!(&REQUEST[length..], b"frames");
        assert_eq!(
            (head.method, head.path(), head.query(), head.minor),
            ("GET", "/client/hubs/h", "a=b?c", 1)
        );
        assert_eq!(head.header("host"), Found::Once(Some("h")));
        assert_eq!(head.header("x"), Found::Repeated);
        assert_eq!((head.header("y"), head.header("z")), (Found::Once(None), Found::Absent));
        assert!(!head.has_body());
    }

    #[test]
    fn whatever_is_not_whole_and_plain_is_left_to_hyper() {
        assert!((0..REQUEST.len() - 6).all(|length| Head::parse(&REQUEST[..length]).is_none()));
        for bad in [
            "GET http://h/x HTTP/1.1\r\n\r\n",
            "GET * HTTP/1.1\r\n\r\n",
            "GET /a#b HTTP/1.1\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(Head::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn prefixes_are_plain_paths() {
        for (header, expected) in [
            ("X-Forwarded-Prefix: /ws", Some("/ws")),
            ("x-forwarded-prefix:  /a/b-c.d_~ ", Some("/a/b-c.d_~")),
            ("X-Forwarded-Prefix: ws", None),
            ("X-Forwarded-Prefix: /", None),
            ("X-Forwarded-Prefix: /ws/", None),
            ("X-Forwarded-Prefix: /a, /b", None),
            ("X-Forwarded-Prefix: /%61pi", None),
            ("X-Forwarded-Prefix: /api/hubs/h/groups", None),
            ("X-Forwarded-Prefix: /x?y", None),
            ("X-Forwarded-Prefix: /a\r\nX-Forwarded-Prefix: /b", None),
            ("X: /ws", None),
        ] {
            let text = format!("GET / HTTP/1.1\r\n{header}\r\n\r\n");
            assert_eq!(Head::parse(text.as_bytes()).unwrap().0.stripped_prefix(), expected, "{header}");
        }
    }

    #[test]
    fn bodies_are_announced_by_their_headers() {
        for (header, expected) in [
            ("Content-Length: 0", false),
            ("Content-Length: 1", true),
            ("Content-Length: x", true),
            ("Content-Length: 0\r\nContent-Length: 0", true),
            ("Transfer-Encoding: chunked", true),
        ] {
            let text = format!("GET / HTTP/1.1\r\n{header}\r\n\r\n");
            assert_eq!(Head::parse(text.as_bytes()).unwrap().0.has_body(), expected, "{header}");
        }
    }
}
