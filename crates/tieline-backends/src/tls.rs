//! TLS towards a server, with the certificates that the system trusts. Tested by the brokers that speak it, against real servers.

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::inbox::{Reader, Writer};

/// Why TLS cannot even be begun.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Nobody could be trusted.
    #[error("TLS needs certificates that this system trusts, and there are none (Debian: `ca-certificates`)")]
    Roots,
    /// TLS cannot be spoken with such a host.
    #[error("cannot speak TLS: {0}")]
    Unfit(String),
}

/// Whom TLS is spoken with: anybody whose certificate the system trusts.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl Tls {
    /// Reads the system's certificates.
    pub(crate) fn new() -> Result<Tls, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err(TlsError::Roots);
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Unfit(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Tls(TlsConnector::from(Arc::new(config))))
    }

    /// The name by which a host's certificate is checked.
    pub(crate) fn name(host: &str) -> Result<ServerName<'static>, TlsError> {
        ServerName::try_from(host.to_owned()).map_err(|error| TlsError::Unfit(error.to_string()))
    }

    /// Shakes hands over a connection.
    pub(crate) async fn over(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
    ) -> io::Result<(Reader, Writer)> {
        let (read, write) = tokio::io::split(self.0.connect(name, stream).await?);
        Ok((Box::new(read), Box::new(write)))
    }
}

/// A connection as it is.
pub(crate) fn plain(stream: TcpStream) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    (Box::new(read), Box::new(write))
}
