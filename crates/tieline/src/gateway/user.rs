//! [`Finder`]: of which user a request is.
//!
//! The gateway has no keys: it reads what a token says and believes it for nothing but placement. A forged token is refused by
//! whichever node gets it. Tested below.

use std::borrow::Cow;

use tieline_core::token;
use tieline_proto::claims::decode_segment;
use tieline_proto::{ConnectionId, Incarnation};

use crate::client::bearer;
use crate::http::{Head, decode_form};

/// Where a request names its user.
#[derive(Clone, Debug)]
pub(super) struct Finder {
    /// What stands behind one of these in a path is the user, if it is a single segment.
    pub(super) paths: Vec<String>,
    /// Parameters that name the user.
    pub(super) parameters: Vec<String>,
}

impl Finder {
    /// The user of a request whose path, as the node will see it, is `path`: by what the REST API names, by the token, by
    /// the path, by a parameter.
    pub(super) fn user(&self, path: &str, head: &Head<'_>) -> Option<String> {
        let of_token = || token(head).and_then(|token| subject(&token));
        let of_path = || {
            let rest = self.paths.iter().find_map(|before| path.strip_prefix(&**before))?;
            decode_segment(rest).map(Cow::into_owned)
        };
        let of_parameter = || {
            let named = |name: &String| parameter(head, name);
            self.parameters.iter().find_map(named)
        };
        let user = of_rest(path).or_else(of_token).or_else(of_path).or_else(of_parameter);
        user.filter(|user| !user.is_empty())
    }
}

/// The start of the node that held the connection which a request wants back.
pub(super) fn holder(head: &Head<'_>) -> Option<Incarnation> {
    parameter(head, "awps_connection_id")?.parse().ok().map(ConnectionId::incarnation)
}

/// The user that a call of the REST API is about.
fn of_rest(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/api/")?;
    let rest = rest.strip_prefix("v1/").unwrap_or(rest);
    let mut segments = rest.strip_prefix("hubs/")?.split('/').skip(1);
    if segments.next()? != "users" {
        return None;
    }
    decode_segment(segments.next()?).map(Cow::into_owned)
}

fn token<'a>(head: &Head<'a>) -> Option<Cow<'a, str>> {
    let parameter = parameter(head, "access_token").map(Cow::Owned);
    parameter.or_else(|| bearer(head.header("authorization")).ok().flatten().map(Cow::Borrowed))
}

fn subject(token: &str) -> Option<String> {
    match token::payload(token)?.get("sub")? {
        serde_json::Value::String(subject) => Some(subject.clone()),
        _ => None,
    }
}

fn parameter(head: &Head<'_>, name: &str) -> Option<String> {
    let pairs = head.query().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    values.next().and_then(decode_form).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    /// What `{"sub":"alice"}` and `{"sub":7}` are as a token's claims.
    const ALICE: &str = "h.eyJzdWIiOiJhbGljZSJ9.s";
    const SEVEN: &str = "h.eyJzdWIiOjd9.s";

    fn finder() -> Finder {
        Finder { paths: vec!["/client/".to_owned()], parameters: vec!["user".to_owned()] }
    }

    fn found(finder: &Finder, target: &str, authorization: Option<&str>) -> Option<String> {
        let mut request = Request::get(target);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(()).unwrap();
        let head = Head::of(&request);
        finder.user(head.path(), &head)
    }

    #[test]
    fn users_are_found_where_they_are_named() {
        let bearer = format!("Bearer {ALICE}");
        for (target, authorization, expected) in [
            (format!("/client/hubs/h?access_token={ALICE}"), None, Some("alice")),
            ("/client/hubs/h".to_owned(), Some(&*bearer), Some("alice")),
            ("/client/bob".to_owned(), Some(&*bearer), Some("alice")),
            ("/client/b%C3%BCb%2F".to_owned(), None, Some("büb/")),
            ("/client/hubs/h?user=carol+x".to_owned(), None, Some("carol x")),
            ("/client/hubs/h?user=".to_owned(), None, None),
            ("/client/hubs/h".to_owned(), None, None),
            ("/client/".to_owned(), None, None),
            (format!("/client/hubs/h?access_token={SEVEN}&user=x"), None, Some("x")),
            ("/client/hubs/h?access_token=nonsense&user=x".to_owned(), None, Some("x")),
            ("/client/hubs/h".to_owned(), Some("Basic eHg="), None),
            ("/api/hubs/h/users/dave/:send".to_owned(), Some(&*bearer), Some("dave")),
            ("/api/hubs/h/users/d%2Fve".to_owned(), None, Some("d/ve")),
            ("/api/v1/hubs/h/users/dave/inbox".to_owned(), None, Some("dave")),
            ("/api/hubs/users/groups/g/:send".to_owned(), None, None),
            ("/api/hubs/h/groups/users/:send".to_owned(), None, None),
        ] {
            assert_eq!(found(&finder(), &target, authorization).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn other_paths_and_parameters_can_be_named() {
        let finder = Finder { paths: vec!["/connect/".to_owned()], parameters: vec!["userId".to_owned()] };
        for (target, expected) in
            [("/connect/7", Some("7")), ("/send?userId=8&message=x", Some("8")), ("/client/alice", None)]
        {
            assert_eq!(found(&finder, target, None).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn who_comes_back_names_its_holder() {
        let id = ConnectionId::new(Incarnation(77), 1, 2, 3, 4);
        let request = Request::get(format!("/client/hubs/h?awps_connection_id={id}")).body(()).unwrap();
        assert_eq!(holder(&Head::of(&request)), Some(Incarnation(77)));
        let request = Request::get("/client/hubs/h?awps_connection_id=x").body(()).unwrap();
        assert_eq!(holder(&Head::of(&request)), None);
    }
}
