//! [`SqlAddress`]: which server, as whom, and which database on it. It is never shown with its password. Tested here.

use std::fmt;
use std::str::FromStr;

use super::link::Options;

/// The bounds of what else may stand behind `?` in an address.
const PARAMETERS: &[&str] = &["sslmode", "sslrootcert", "sslca", "sslcert", "sslkey"];

/// The address of a store on an SQL server.
#[derive(Clone)]
pub struct SqlAddress {
    pub(super) options: Box<Options>,
    /// Whether a server is taken that may lose what it has acknowledged.
    pub(super) is_forced: bool,
}

/// Text that is no address of a store on a server. It is not repeated: there may be a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlAddressError {
    /// Not one at all.
    #[error(
        "it is `postgres://USER:PASSWORD@HOST:PORT/DATABASE` or `mysql://…`, with `%` codes for what is not a letter"
    )]
    Form,
    /// Without a database, servers take one that nobody named.
    #[error("there is no database in it: `…/DATABASE`")]
    Database,
    /// One that is not known, which drivers would pass over in silence.
    #[error("behind `?` may be `sslmode`, `sslrootcert` or `sslca`, `sslcert`, `sslkey` and `force=true`")]
    Parameter,
    /// The engine is known, but not in this program.
    #[error(
        "{0} is not built into this program: build it with `cargo build --release -p tieline --features full`"
    )]
    NotBuilt(&'static str),
}

/// The engine that an address names, and whether it is built in; none for other addresses.
fn engine(scheme: &str) -> Option<(&'static str, bool)> {
    match scheme {
        "postgres" | "postgresql" => Some(("PostgreSQL", cfg!(feature = "postgres"))),
        "mysql" | "mariadb" => Some(("MySQL", cfg!(feature = "mysql"))),
        _ => None,
    }
}

impl FromStr for SqlAddress {
    type Err = SqlAddressError;

    fn from_str(text: &str) -> Result<Self, SqlAddressError> {
        let (scheme, _) = text.split_once("://").ok_or(SqlAddressError::Form)?;
        let (name, is_built) = engine(scheme).ok_or(SqlAddressError::Form)?;
        if !is_built {
            return Err(SqlAddressError::NotBuilt(name));
        }
        if text.contains('#') {
            return Err(SqlAddressError::Form);
        }
        let (plain, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut kept, mut is_forced) = (String::from(plain), false);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("force", "true")) => is_forced = true,
                Some((key, _)) if PARAMETERS.contains(&key) => {
                    kept.push(if kept.contains('?') { '&' } else { '?' });
                    kept.push_str(parameter);
                }
                _ => return Err(SqlAddressError::Parameter),
            }
        }
        // A driver's own words may repeat what is in the address.
        let options = Box::new(Options::parse(&kept).map_err(|_| SqlAddressError::Form)?);
        if options.database().is_none() {
            return Err(SqlAddressError::Database);
        }
        Ok(SqlAddress { options, is_forced })
    }
}

impl fmt::Display for SqlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, user, host, port) = self.options.server();
        write!(f, "{scheme}://{user}@{host}:{port}/{}", self.options.database().unwrap_or_default())
    }
}

impl fmt::Debug for SqlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for SqlAddress {
    /// Whether they name the same store; passwords do not count.
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for SqlAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_passwords() {
        for (text, shown) in [
            #[cfg(feature = "postgres")]
            ("postgres://me:hush@h:5433/d", "postgres://me@h:5433/d"),
            #[cfg(feature = "postgres")]
            ("postgresql://me:h%23ush@h/d?sslmode=require&force=true", "postgres://me@h:5432/d"),
            #[cfg(feature = "mysql")]
            ("mysql://me:hush@h/d", "mysql://me@h:3306/d"),
            #[cfg(feature = "mysql")]
            ("mariadb://me:hush@h:1/d?sslca=/x", "mysql://me@h:1/d"),
        ] {
            let address: SqlAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.is_forced, text.contains("force"));
            assert!(!format!("{address:?}").contains("hush"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        let error = |text: &str| text.parse::<SqlAddress>().unwrap_err();
        #[cfg(feature = "postgres")]
        for (text, wanted) in [
            ("postgres://me:hush@h", SqlAddressError::Database),
            ("postgres://me:hush@h/", SqlAddressError::Database),
            ("postgres://me:hush@h/d?password=hush", SqlAddressError::Parameter),
            ("postgres://me:hush@h/d?force=no", SqlAddressError::Parameter),
            ("postgres://me:hush@h/d?sslmode=hush", SqlAddressError::Form),
            ("postgres://me:hu#sh@h/d", SqlAddressError::Form),
            ("postgres://me:hush@h:x/d", SqlAddressError::Form),
        ] {
            assert_eq!(error(text), wanted, "{text}");
        }
        for text in ["", "redis://h", "postgres:h"] {
            assert_eq!(error(text), SqlAddressError::Form, "{text}");
        }
        assert!(!error("x://me:hush@h").to_string().contains("hush"));
    }
}
