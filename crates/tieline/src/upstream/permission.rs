//! [`Permissions`]: whether an endpoint takes events at all. It is asked before the first one, by `OPTIONS` with
//! `WebHook-Request-Origin` (CloudEvents, HTTP 1.1 web hooks, 4), so that nobody can have a server flooded who does not run it.
//!
//! A yes is kept as long as the node runs. A no, or no answer, counts for a second; then the next event asks again. Tested by
//! `tests/program/upstream`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Request, Uri};
use tokio::sync::OnceCell;

use super::cloud_event::{ALLOWED_ORIGIN, stamp};
use super::http::Http;

/// How long nobody asks again after a no.
const NO_LASTS: Duration = Duration::from_secs(1);

/// Hubs whose permissions are remembered, where each has an address of its own; when there are more, all are asked again.
const MOST_HUBS: usize = 10_000;

/// The most that is read of an answer, in bytes: what it says is in its headers.
const MAX_BODY: usize = 64 << 10;

/// The permissions of one endpoint: one for all hubs, or one for each where hubs have addresses of their own.
#[derive(Default)]
pub(super) struct Permissions(Mutex<HashMap<String, Arc<Permission>>>);

#[derive(Default)]
struct Permission {
    given: OnceCell<()>,
    /// When it was last refused, and why.
    refused: Mutex<Option<(Instant, String)>>,
}

impl Permissions {
    /// Asks for permission, unless it was given before; those who ask at the same time ask once.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn ask(
        &self,
        key: &str,
        http: &Http,
        uri: Option<Uri>,
        origin: &HeaderValue,
    ) -> Result<(), String> {
        let permission = self.of(key);
        let asking = || async {
            if let Some((when, why)) = &*permission.lock()
                && when.elapsed() < NO_LASTS
            {
                return Err(why.clone());
            }
            let result = ask(http, uri, origin).await;
            *permission.lock() = result.as_ref().err().map(|why| (Instant::now(), why.clone()));
            result
        };
        permission.given.get_or_try_init(asking).await.copied()
    }

    fn of(&self, key: &str) -> Arc<Permission> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permission) = known.get(key) {
            return Arc::clone(permission);
        }
        if known.len() >= MOST_HUBS {
            known.clear();
        }
        Arc::clone(known.entry(key.to_owned()).or_default())
    }
}

impl Permission {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, String)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(http: &Http, uri: Option<Uri>, origin: &HeaderValue) -> Result<(), String> {
    let mut request = Request::default();
    *request.method_mut() = Method::OPTIONS;
    *request.uri_mut() = uri.ok_or("the address cannot be made")?;
    stamp(&mut request, origin);
    let response = http.send(request, MAX_BODY).await.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("asked whether it takes events, it answered {}", response.status()));
    }
    if allows(response.headers(), origin) {
        Ok(())
    } else {
        Err(format!("it does not take events of {}", String::from_utf8_lossy(origin.as_bytes())))
    }
}

/// Whether the origin is among those that are allowed, in one header or several.
fn allows(headers: &HeaderMap, origin: &HeaderValue) -> bool {
    let values = headers.get_all(ALLOWED_ORIGIN).iter().filter_map(|value| value.to_str().ok());
    let mut names = values.flat_map(|value| value.split(',')).map(str::trim);
    names.any(|name| name == "*" || name.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_allowed_by_name_or_by_a_star() {
        let origin = HeaderValue::from_static("a.example.com:80");
        for (values, expected) in [
            (&["*"][..], true),
            (&["b", "A.example.com:80"], true),
            (&["b, a.example.com:80"], true),
            (&["a.example.com"], false),
            (&["", "b"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ALLOWED_ORIGIN, HeaderValue::from_static(value));
            }
            assert_eq!(allows(&headers, &origin), expected, "{values:?}");
        }
    }
}
