//! The beginning of a session: two connections to a server that is fit to keep a store, which says which store it keeps.
//! Tested in `store/tests/unfit.rs`.

use std::sync::Arc;

use tieline_core::store::StoreId;

use super::super::Trouble;
use super::super::connection::Dialler;
use super::super::link::{Link, shown};
use super::super::resp::Answer;
use super::settings::RedisStoreSettings;

/// How the keys of a store are laid out; raised with every change that older programs would not understand.
const LAYOUT: i64 = 1;

/// The oldest server that has the commands.
const OLDEST: (u32, u32) = (6, 2);

/// Why a server that answers does not keep a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It lacks commands.
    #[error("it is Redis {0}, and 6.2 is the oldest that will do")]
    Old(String),
    /// It is a part of a cluster, or a sentinel.
    #[error("it runs as a {0}; a store is kept by a single server, which may have replicas")]
    Mode(String),
    /// It copies another one.
    #[error("it is a replica; the store is opened at the server that it copies")]
    Replica,
    /// It forgets everything when it ends.
    #[error("it has no append-only file, so it would lose what it acknowledged: set `appendonly yes`{FORCE}")]
    NoFile,
    /// It acknowledges before the flush.
    #[error(
        "it has `appendfsync {0}`, so it may lose what it acknowledged when it dies: set `appendfsync always`{hint}",
        hint = if .0 == "everysec" { ", or accept up to two seconds of loss by `?fsync=everysec`" } else { FORCE }
    )]
    Fsync(String),
    /// It removes what it has no room for.
    #[error(
        "it has a `maxmemory` and `maxmemory-policy {0}`, so it removes messages: set `noeviction`{FORCE}"
    )]
    Evicts(String),
    /// Nobody knows whether it is fit.
    #[error(
        "its settings cannot be read by CONFIG GET ({0}); if they are known to be right, add `?force=true`"
    )]
    Unread(String),
    /// A later program has changed the store.
    #[error("a newer tieline made this store")]
    Newer,
    /// What is kept under the store's name is something else.
    #[error("what is kept as `{0}` is no store of tieline")]
    Foreign(String),
}

/// The way out that loses something.
const FORCE: &str = ", or accept that by `?force=true`";

/// Why there is no session.
#[derive(Debug)]
pub(super) enum Failure {
    Trouble(Trouble),
    Unfit(Unfit),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Failure::Trouble(trouble)
    }
}

impl From<Failure> for Trouble {
    /// For a server that was fit once.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Trouble(trouble) => trouble,
            Failure::Unfit(unfit) => Trouble::Refused(unfit.to_string()),
        }
    }
}

/// A session that can begin.
pub(super) struct Opened {
    pub(super) writes: Link,
    pub(super) reads: Link,
    /// Which store is kept there, made if there was none.
    pub(super) id: StoreId,
}

/// Connects twice, and looks whether the server is fit. `id` is what a store that is not there yet is called.
pub(super) async fn open(
    dialler: &Arc<Dialler>,
    settings: &RedisStoreSettings,
    id: StoreId,
) -> Result<Opened, Failure> {
    let (mut writes, greetings) = Link::connect(dialler).await?;
    let options: [&[u8]; 4] = [b"appendonly", b"appendfsync", b"maxmemory", b"maxmemory-policy"];
    for option in options {
        writes.say(&[b"CONFIG", b"GET", option]);
    }
    writes.send().await?;
    greeted(&mut writes, greetings).await?;
    let mut values = Vec::new();
    for _ in options {
        values.push(writes.answer(setting).await?);
    }
    if let Err(unfit) = judge(values, settings) {
        if !settings.force {
            return Err(Failure::Unfit(unfit));
        }
        tracing::warn!(store = %settings, "The store is forced on a server: {unfit}.");
    }
    let id = identify(&mut writes, settings, id).await?;
    let (mut reads, greetings) = Link::connect(dialler).await?;
    reads.send().await?;
    greeted(&mut reads, greetings).await?;
    Ok(Opened { writes, reads, id })
}

/// Takes in the answers to the greeting.
async fn greeted(link: &mut Link, greetings: usize) -> Result<(), Failure> {
    link.grant(fit).await?.map_err(Failure::Unfit)?;
    for _ in 1..greetings {
        link.grant(|_| ()).await?;
    }
    Ok(())
}

/// What the server says of itself in answer to `HELLO`.
fn fit(hello: &Answer<'_>) -> Result<(), Unfit> {
    let parts: &[Answer<'_>] = if let Answer::Many(parts) = hello { parts } else { &[] };
    let of = |name: &str| {
        let pair = parts.chunks(2).find(|pair| pair[0] == Answer::Text(name.as_bytes()));
        pair.and_then(|pair| text(pair.get(1)?)).unwrap_or_default()
    };
    let (version, mode, role) = (of("version"), of("mode"), of("role"));
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
        return Err(Unfit::Old(version));
    }
    if mode != "standalone" {
        return Err(Unfit::Mode(mode));
    }
    if role != "master" { Err(Unfit::Replica) } else { Ok(()) }
}

fn text(answer: &Answer<'_>) -> Option<String> {
    match answer {
        Answer::Text(text) => Some(shown(text)),
        _ => None,
    }
}

/// The value of one setting; an error where it cannot be read.
fn setting(answer: &Answer<'_>) -> Result<String, String> {
    match answer {
        Answer::Many(pair) => pair.get(1).and_then(text).ok_or_else(|| "there is no such setting".to_owned()),
        Answer::Refused(reason) => Err(shown(reason)),
        _ => Err("the answer is something else".to_owned()),
    }
}

fn judge(values: Vec<Result<String, String>>, settings: &RedisStoreSettings) -> Result<(), Unfit> {
    let values: Vec<String> = values.into_iter().collect::<Result<_, _>>().map_err(Unfit::Unread)?;
    let [file, fsync, maximum, policy] = &values[..] else {
        return Err(Unfit::Unread("the answer is something else".to_owned()));
    };
    if file != "yes" {
        return Err(Unfit::NoFile);
    }
    if fsync != "always" && !(settings.is_every_second_enough && fsync == "everysec") {
        return Err(Unfit::Fsync(fsync.clone()));
    }
    if maximum != "0" && policy != "noeviction" {
        return Err(Unfit::Evicts(policy.clone()));
    }
    Ok(())
}

/// Which store is kept there. Of several that make it at the same moment one does.
async fn identify(
    link: &mut Link,
    settings: &RedisStoreSettings,
    fresh: StoreId,
) -> Result<StoreId, Failure> {
    let name = format!("{}:store", settings.prefix);
    let key = name.as_bytes();
    link.say(&[b"HSETNX", key, b"id", fresh.to_string().as_bytes()]);
    link.say(&[b"HSETNX", key, b"layout", LAYOUT.to_string().as_bytes()]);
    link.say(&[b"HSETNX", key, b"slot", b"1"]);
    link.say(&[b"HMGET", key, b"id", b"layout"]);
    link.send().await?;
    let mut is_foreign = false;
    for _ in 0..3 {
        let refused = link.answer(|answer| match answer {
            Answer::Refused(reason) => Some(shown(reason)),
            _ => None,
        });
        match refused.await? {
            None => {}
            Some(text) if text.starts_with("WRONGTYPE") => is_foreign = true,
            Some(text) => return Err(Trouble::Refused(text).into()),
        }
    }
    if is_foreign {
        return Err(Failure::Unfit(Unfit::Foreign(name)));
    }
    let found = link.grant(|answer| match answer {
        Answer::Many(pair) => pair.iter().map(text).collect(),
        _ => Vec::new(),
    });
    let found: Vec<Option<String>> = found.await?;
    let [Some(id), Some(layout)] = &found[..] else { return Err(Failure::Unfit(Unfit::Foreign(name))) };
    match (u128::from_str_radix(id, 16), layout.parse::<i64>()) {
        (Ok(_), Ok(layout)) if layout > LAYOUT => Err(Failure::Unfit(Unfit::Newer)),
        (Ok(id), Ok(_)) => Ok(StoreId(id)),
        _ => Err(Failure::Unfit(Unfit::Foreign(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: &'static str, mode: &'static str, role: &'static str) -> Result<(), Unfit> {
        let words =
            ["server", "redis", "version", version, "proto", "3", "mode", mode, "role", role, "modules"];
        let mut parts: Vec<Answer<'_>> = words.iter().map(|word| Answer::Text(word.as_bytes())).collect();
        parts.push(Answer::Many(Vec::new()));
        fit(&Answer::Many(parts))
    }

    #[test]
    fn only_a_single_master_that_is_new_enough_is_fit() {
        assert_eq!(hello("6.2.0", "standalone", "master"), Ok(()));
        assert_eq!(hello("10.0.1", "standalone", "master"), Ok(()));
        assert_eq!(hello("6.0.16", "standalone", "master"), Err(Unfit::Old("6.0.16".to_owned())));
        assert_eq!(hello("7.0.15", "cluster", "master"), Err(Unfit::Mode("cluster".to_owned())));
        assert_eq!(hello("7.0.15", "sentinel", "master"), Err(Unfit::Mode("sentinel".to_owned())));
        assert_eq!(hello("7.0.15", "standalone", "replica"), Err(Unfit::Replica));
        assert_eq!(fit(&Answer::Nothing), Err(Unfit::Old(String::new())));
    }
}
