//! [`Template`]: the address of an endpoint, with places for the hub and the event. Tested here.

use std::fmt;

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands in an address as it is. Everything else of a name is encoded, so that no name of an event, which clients
/// choose, can reach another path.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What stands for the event when the endpoint is asked whether it wants any.
const VALIDATE: &str = "validate";

/// An address with `{hub}` and `{event}` in it. It shows itself without its query, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// Reads an address of http or https.
    pub fn parse(text: &str) -> Option<Template> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let authority = rest.split(['/', '?']).next()?;
        if !crate::admission::is_authority(authority)
            || authority.contains(['{', '}', '@'])
            || text.contains('#')
        {
            return None;
        }
        if text.replace("{hub}", "").replace("{event}", "").contains(['{', '}']) {
            return None;
        }
        let template = Template(text.to_owned());
        template.fill("hub", "event").map(|_| template)
    }

    /// The address for an event. None for names that would stand for a folder of the path.
    pub fn fill(&self, hub: &str, event: &str) -> Option<Uri> {
        if [hub, event].iter().any(|name| matches!(*name, "." | "..")) {
            return None;
        }
        let encode = |name: &str| utf8_percent_encode(name, ENCODED).to_string();
        // Braces of a name are encoded, so what is filled in first is never filled in again.
        self.0.replace("{hub}", &encode(hub)).replace("{event}", &encode(event)).parse().ok()
    }

    /// The address at which the endpoint is asked whether it wants events of a hub.
    pub fn validation(&self, hub: &str) -> Option<Uri> {
        self.fill(hub, VALIDATE)
    }

    /// Whether each hub has an address of its own.
    pub fn names_hub(&self) -> bool {
        self.0.contains("{hub}")
    }

    /// Whether it is reached by TLS.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// The address without its query.
    pub fn masked(&self) -> String {
        match self.0.split_once('?') {
            Some((path, _)) => format!("{path}?***"),
            None => self.0.clone(),
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_in_and_stay_within_their_place() {
        let template = Template::parse("http://h:1/{hub}/{event}?code=S&e={event}").unwrap();
        let filled = |event: &str| template.fill("a,b", event).unwrap().to_string();
        assert_eq!(filled("click"), "http://h:1/a%2Cb/click?code=S&e=click");
        assert_eq!(filled("../x?y#{hub} ü"), {
            let encoded = "..%2Fx%3Fy%23%7Bhub%7D%20%C3%BC";
            format!("http://h:1/a%2Cb/{encoded}?code=S&e={encoded}")
        });
        assert_eq!(filled("..."), "http://h:1/a%2Cb/...?code=S&e=...");
        assert!(template.fill("h", "..").is_none() && template.fill("h", ".").is_none());
        assert_eq!(template.validation("h").unwrap().path(), "/h/validate");
        assert!(template.names_hub() && !template.is_https());
        assert_eq!(format!("{template:?}"), "\"http://h:1/{hub}/{event}?***\"");
    }

    #[test]
    fn only_addresses_of_http_with_known_places_behind_the_host_are_templates() {
        for good in [
            "https://h",
            "http://h/",
            "https://[::1]:8080/x",
            "https://h?code={event}",
            "https://h/{event}{hub}",
        ] {
            assert!(Template::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "h",
            "ftp://h",
            "https://",
            "https:///x",
            "https://{hub}.example.com/",
            "https://u:p@h/",
            "https://h/{user}",
            "https://h/{",
            "https://h/#f",
            "https://h/a b",
            "https://h:port/",
        ] {
            assert!(Template::parse(bad).is_none(), "{bad}");
        }
    }
}
