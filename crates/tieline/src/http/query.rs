//! [`Query`]: the parameters of a request for a WebSocket.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The parameters that are known, decoded. Others are left alone: proxies and tools add their own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// The hub, where the path names none.
    pub hub: Option<Cow<'a, str>>,
    /// The user that a client without a token wants to be.
    pub user: Option<Cow<'a, str>>,
    /// Which of the user's devices it wants to be then.
    pub device: Option<Cow<'a, str>>,
    /// The token.
    pub access_token: Option<Cow<'a, str>>,
    /// The connection that the client has and that the new one replaces.
    pub replaces: Option<Cow<'a, str>>,
    /// The connection that is to be recovered.
    pub connection_id: Option<Cow<'a, str>>,
    /// What proves that it is the client's.
    pub reconnection_token: Option<Cow<'a, str>>,
}

/// A parameter that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It is there twice, and which one is meant is not for the server to guess.
    #[error("the parameter `{0}` is given twice")]
    Twice(&'static str),
    /// Its percent-encoding is not that of UTF-8.
    #[error("the parameter `{0}` is not UTF-8")]
    Encoding(&'static str),
}

impl<'a> Query<'a> {
    /// Reads what stands behind the question mark.
    ///
    /// # Errors
    /// For a known parameter that is given twice, or cannot be decoded.
    pub fn parse(text: &'a str) -> Result<Self, QueryError> {
        let mut query = Query::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (place, name) = match name {
                "hub" => (&mut query.hub, "hub"),
                "user" => (&mut query.user, "user"),
                "device" => (&mut query.device, "device"),
                "access_token" => (&mut query.access_token, "access_token"),
                "replaces" => (&mut query.replaces, "replaces"),
                "awps_connection_id" => (&mut query.connection_id, "awps_connection_id"),
                "awps_reconnection_token" => (&mut query.reconnection_token, "awps_reconnection_token"),
                _ => continue,
            };
            if place.replace(decode_form(value).ok_or(QueryError::Encoding(name))?).is_some() {
                return Err(QueryError::Twice(name));
            }
        }
        Ok(query)
    }
}

/// Undoes the encoding of a form's value: percent signs, and a plus sign for a blank.
pub(crate) fn decode_form(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('+') {
        return percent_decode_str(value).decode_utf8().ok();
    }
    let value = value.replace('+', " ");
    percent_decode_str(&value).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_parameters_are_decoded_and_others_left_alone() {
        let query =
            Query::parse("x=%FF&hub=a%2Cb&user=a%2Fb+%3F%23%25%C3%BC&access_token=h.p.s&x=1&&=").unwrap();
        assert_eq!(query.hub.as_deref(), Some("a,b"));
        assert_eq!(query.user.as_deref(), Some("a/b ?#%ü"));
        assert_eq!(query.access_token.as_deref(), Some("h.p.s"));
        assert!(matches!(query.access_token, Some(Cow::Borrowed(_))), "a token is not copied");
        assert_eq!(Query::parse("").unwrap(), Query::default());
        let query = Query::parse("awps_connection_id=i&awps_reconnection_token=t").unwrap();
        assert_eq!(
            (query.connection_id.as_deref(), query.reconnection_token.as_deref()),
            (Some("i"), Some("t"))
        );
    }

    #[test]
    fn doubles_and_bad_encodings_are_errors() {
        assert_eq!(Query::parse("user=a&user=b"), Err(QueryError::Twice("user")));
        assert_eq!(Query::parse("hub=%FF"), Err(QueryError::Encoding("hub")));
        assert_eq!(Query::parse("user=%C3+"), Err(QueryError::Encoding("user")));
    }
}
