//! `tieline token`: makes a client's token by hand, for trying things out and for scripts.

use tieline_core::token::{Grant, Keys, TokenError};
use tieline_core::unix_ms;

use crate::cli::TokenArgs;

/// The endpoint of a token for no particular server: its host is not compared.
const ANY_ENDPOINT: &str = "http://localhost";

/// The text to print: the token, or with `--url` the whole address to connect to.
///
/// # Errors
/// When the access key is empty, or what others are to see is too large.
pub fn mint(args: &TokenArgs) -> Result<String, TokenError> {
    let endpoint = args.url.as_ref().map_or(ANY_ENDPOINT, |url| url.0.as_str());
    let grant = Grant {
        endpoint: endpoint.to_owned(),
        hub: args.hub.clone(),
        user: args.user.clone(),
        roles: args.role.clone(),
        groups: args.group.clone(),
        presence: args.presence.clone(),
        lifetime: args.expires.as_secs(),
    };
    let token = Keys::new([&args.access_key]).sign_client(&grant, unix_ms() / 1000)?;
    Ok(match args.url {
        // Of a hub's characters, a URL takes these only encoded.
        Some(_) => {
            let hub = args.hub.as_str().replace('`', "%60").replace('[', "%5B").replace(']', "%5D");
            // http becomes ws, https becomes wss.
            format!("ws{}/client/hubs/{hub}?access_token={token}", &endpoint["http".len()..])
        }
        None => token,
    })
}
