//! Requests to endpoints: over connections that are kept, with TLS where the address says so, never through a proxy or a
//! redirect, and never more of an answer than is wanted. Tested through `tests/program/upstream`, by endpoints of all kinds.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Request, Response};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long a connection is kept that carries nothing. Shorter than the five seconds of Node's server, which closes without a
/// word: a request that meets the close would be lost.
const KEEP_IDLE: Duration = Duration::from_secs(4);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The endpoint was not reached, or did not speak HTTP.
    #[error("{0}")]
    Exchange(String),
    /// The answer is larger than is read.
    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing can be verified.
    #[error("no certificates of authorities were found on this system, which https:// needs: {0}")]
    Roots(std::io::Error),
    /// The crypto provider refuses.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// The client that all endpoints share.
pub(crate) struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    /// A client; one for https looks for the system's certificates.
    pub(crate) fn new(https: bool, connect: Duration) -> Result<Self, ClientError> {
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Tls(error.to_string()))?;
        let tls = if https {
            tls.with_native_roots().map_err(ClientError::Roots)?
        } else {
            tls.with_root_certificates(RootCertStore::empty())
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_IDLE)
            .build(connector);
        Ok(Http(client))
    }

    /// Sends a request and reads its whole answer, up to `max` bytes.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        max: usize,
    ) -> Result<Response<Bytes>, HttpError> {
        let response = self.0.request(request).await.map_err(|error| HttpError::Exchange(told(&error)))?;
        let (parts, body) = response.into_parts();
        match Limited::new(body, max).collect().await {
            Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLarge(max)),
            Err(error) => Err(HttpError::Exchange(told(&*error))),
        }
    }
}

/// An error with its causes. None of them has the address.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
