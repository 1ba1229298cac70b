//! [`Parameters`]: what stands behind the question mark.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::Arc;

use tieline_proto::id::MAX_EXACT;
use tieline_proto::{ConnectionId, ErrorCode, Filter, Position};

use crate::http::{Refusal, decode_form};

/// How long a message may be worth delivering, in seconds. Live messages are delivered at once or not at all, so it is checked and
/// means nothing more.
const TTL_SECONDS: RangeInclusive<u64> = 0..=300;

/// The parameters of a request. Those that a call does not know, `api-version` among them, are left alone.
pub(super) struct Parameters<'a>(&'a str);

impl<'a> Parameters<'a> {
    pub(super) fn new(query: &'a str) -> Self {
        Parameters(query)
    }

    /// All values of a name.
    pub(super) fn all(&self, name: &'static str) -> Result<Vec<Cow<'a, str>>, Refusal> {
        let pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| {
            decode_form(value).ok_or_else(|| invalid(name, "is not percent-encoded UTF-8"))
        });
        values.collect()
    }

    /// The value of a name that may be there once. An empty one counts as none.
    pub(super) fn one(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let mut values = self.all(name)?;
        match values.len() {
            0 | 1 => Ok(values.pop().filter(|value| !value.is_empty())),
            _ => Err(invalid(name, "is given twice")),
        }
    }

    /// A whole number within a range.
    pub(super) fn number(
        &self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        let number = value.parse().ok().filter(|number| range.contains(number));
        let expected = || {
            let (least, most) = (range.start(), range.end());
            invalid(name, &format!("must be a whole number from {least} to {most}"))
        };
        number.map(Some).ok_or_else(expected)
    }

    /// Refuses a parameter that is none of these, nor `api-version`: in calls of our own a misspelt one is a mistake.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        let names = self.0.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
        let mut unknown =
            names.filter(|name| !name.is_empty() && *name != "api-version" && !known.contains(name));
        unknown.next().map_or(Ok(()), |name| {
            let name = &name[..name.floor_char_boundary(64)];
            let known = known.join("`, `");
            let message = format!("`{name}` is no parameter of this call, which knows `{known}`");
            Err(Refusal::new(ErrorCode::InvalidRequest, message))
        })
    }

    /// A place in a log, as `EPOCH:OFFSET`.
    pub(super) fn position(&self, name: &'static str) -> Result<Option<Position>, Refusal> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let number = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|number| is_number && *number <= MAX_EXACT)
        };
        let position = text
            .split_once(':')
            .and_then(|(epoch, offset)| Some(Position { epoch: number(epoch)?, offset: number(offset)? }));
        let wrong = || invalid(name, "must be EPOCH:OFFSET, two whole numbers below 2^53");
        position.map(Some).ok_or_else(wrong)
    }

    /// Connections that are left out. What is no id is nobody's.
    pub(super) fn excluded(&self) -> Result<Vec<ConnectionId>, Refusal> {
        Ok(self.all("excluded")?.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// The condition on connections.
    pub(super) fn filter(&self) -> Result<Option<Arc<Filter>>, Refusal> {
        let Some(text) = self.one("filter")?.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        let filter = Filter::parse(&text)
            .map_err(|error| Refusal::new(ErrorCode::InvalidFilter, format!("`filter`: {error}")))?;
        Ok(Some(Arc::new(filter)))
    }

    /// Checks how long a message may live.
    pub(super) fn check_ttl(&self) -> Result<(), Refusal> {
        self.number("messageTtlSeconds", TTL_SECONDS).map(drop)
    }
}

/// Says what is wrong with a parameter.
pub(super) fn invalid(name: &str, what: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, format!("`{name}` {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_counted() {
        let parameters =
            Parameters::new("role=a%2Fb&x=%FF&role=c+d&one=1&twice=1&twice=1&bad=%FF&none=&top=5");
        assert_eq!(parameters.all("role").unwrap(), ["a/b", "c d"]);
        assert_eq!(parameters.one("one").unwrap().as_deref(), Some("1"));
        assert_eq!(parameters.one("none").unwrap(), None);
        assert_eq!(parameters.one("absent").unwrap(), None);
        assert!(parameters.one("twice").unwrap_err().message.contains("`twice`"));
        assert!(parameters.one("bad").unwrap_err().message.contains("`bad`"));
        assert_eq!(parameters.number("top", 1..=5).unwrap(), Some(5));
        for range in [1..=4, 6..=9] {
            assert_eq!(parameters.number("top", range).unwrap_err().code, ErrorCode::InvalidRequest);
        }
        assert!(parameters.number("role", 0..=9).is_err());
    }

    #[test]
    fn positions_are_two_numbers_and_unknown_names_are_mistakes() {
        let at = |text: &str| Parameters::new(&format!("after={text}")).position("after");
        let most = MAX_EXACT;
        assert_eq!(at("7:42"), Ok(Some(Position { epoch: 7, offset: 42 })));
        assert_eq!(at("7%3A42"), at("7:42"));
        assert_eq!(at(&format!("{most}:0")), Ok(Some(Position { epoch: most, offset: 0 })));
        assert_eq!(at(""), Ok(None));
        for bad in
            ["7", "7:", ":7", "7:8:9", "-1:2", "%2B1:2", "1: 2", "1:9007199254740992", "a:b", "٣:1", "%FF"]
        {
            assert_eq!(at(bad).unwrap_err().code, ErrorCode::InvalidRequest, "{bad}");
        }
        let only = |query| Parameters::new(query).only(&["after", "limit"]);
        assert!(only("").is_ok() && only("after=1&&limit=2&api-version=3").is_ok());
        assert!(only("after=1&offset=2").unwrap_err().message.contains("`offset`"));
    }

    #[test]
    fn a_broken_filter_names_the_place() {
        let filter = |query| Parameters::new(query).filter();
        let error = filter("filter=userId%20eq").unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidFilter);
        assert!(error.message.contains("character 10"), "{}", error.message);
        assert!(filter("filter=userId+eq+%27it%27%27s%27").unwrap().is_some());
        assert!(filter("filter=+").unwrap().is_none());
    }
}
