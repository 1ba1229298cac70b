//! By what a send is known that is said again: the header `Idempotency-Key`, or the `messageId` of a body. Tested here, and in
//! `tests/program/rest/histories.rs`.

use tieline_core::store::AppendKey;
use tieline_proto::{ErrorCode, HubName};

use crate::http::{Found, Head, Refusal};

/// The header.
const HEADER: &str = "idempotency-key";

/// The longest key, in characters.
const LONGEST: usize = 256;

/// The key of a send; none where it may be stored as often as it is said. `message_id` is what its body names.
pub(super) fn key(
    head: &Head<'_>,
    hub: &HubName,
    message_id: Option<&str>,
) -> Result<Option<AppendKey>, Refusal> {
    let header = match head.header(HEADER) {
        Found::Absent => None,
        Found::Once(Some(text)) if is_key(text) => Some(text),
        Found::Once(_) | Found::Repeated => {
            let message = "`Idempotency-Key` must be there once, with 1 to 256 visible ASCII characters";
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    };
    if let (Some(header), Some(id)) = (header, message_id)
        && header != id
    {
        let message = "`Idempotency-Key` and `messageId` are both given and differ";
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    Ok(header.or(message_id).map(|key| AppendKey::of(&["rest", hub, key])))
}

fn is_key(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn key_of(headers: &[&str], id: Option<&str>) -> Result<Option<AppendKey>, ErrorCode> {
        let mut request = Request::builder().uri("/");
        for value in headers {
            request = request.header("Idempotency-Key", *value);
        }
        let request = request.body(()).unwrap();
        key(&Head::of(&request), &HubName::new("h").unwrap(), id).map_err(|refusal| refusal.code)
    }

    #[test]
    fn header_and_message_id_are_one_key_of_the_hub() {
        let expected = Ok(Some(AppendKey::of(&["rest", "h", "\"k1\""])));
        assert_eq!(key_of(&["\"k1\""], None), expected);
        assert_eq!(key_of(&[], Some("\"k1\"")), expected);
        assert_eq!(key_of(&["\"k1\""], Some("\"k1\"")), expected);
        assert_eq!(key_of(&[], None), Ok(None));
        assert!(key_of(&["x".repeat(256).as_str()], None).is_ok());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "x".repeat(257);
        for headers in [&[""][..], &["a b"], &["ü"], &[&long], &["a", "a"], &["a\tb"]] {
            assert_eq!(key_of(headers, None), Err(ErrorCode::InvalidRequest), "{headers:?}");
        }
        assert_eq!(key_of(&["a"], Some("b")), Err(ErrorCode::InvalidRequest));
    }
}
