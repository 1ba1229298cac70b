//! A directory on a Redis server, as [`RedisDirectorySettings`] say: keys of it, by one script.
//!
//! A node has two keys there, and both live as long as its lease: its users with the numbers of its claims, and whom it remembers. So
//! a dead node's users are gone at once, with its lease, and leave nothing behind. A third key lists the nodes that have put all
//! their users there. One script does everything (`users.lua`), a call of it for each claim, release and look, pipelined on one
//! connection.
//!
//! Nodes are listed with the server's own name for its present run. A node whose connection fails, whose lease has run out, or that
//! finds itself not listed, puts all its users there anew; so what a server has lost, or brought back from an older copy, is relied
//! on by nobody who knows better.
//!
//! Tested by the conformance suite on real servers, killed and standing ones among them, in `directory/tests.rs`.

use std::sync::Arc;
use std::time::Duration;

use tieline_core::directory::Asked;
use tieline_core::directory::asked::{Answer, Request};
use tieline_proto::Incarnation;
use tokio::time::timeout;

use super::connection::Dialler;
use super::link::{Link, Script, Words};
use super::settings::RedisAddress;
use super::{RedisError, Trouble, check_cluster, resp};
use crate::directory::{ANSWER, AT_ONCE, Table, TableDirectory};

#[cfg(test)]
mod tests;

/// How a node uses a Redis server as its directory.
#[derive(Clone, Debug)]
pub struct RedisDirectorySettings {
    /// Where the server is.
    pub address: RedisAddress,
    /// The cluster's name, which is in the names of the keys.
    pub cluster: String,
    /// How long the server believes in a node that says nothing.
    pub lease: Duration,
    /// How often a node says that it lives.
    pub refresh: Duration,
}

impl RedisDirectorySettings {
    /// The defaults.
    pub fn new(address: RedisAddress, cluster: &str) -> Self {
        RedisDirectorySettings {
            address,
            cluster: cluster.to_owned(),
            lease: Duration::from_secs(15),
            refresh: Duration::from_secs(5),
        }
    }

    /// Opens a node's directory, whose task is one of the runtime that this is called in.
    ///
    /// # Errors
    /// [`RedisError`], when the settings are wrong or the server is not there or refuses, at the latest after 5 s.
    pub async fn open(self, me: Incarnation) -> Result<TableDirectory, RedisError> {
        check_cluster(&self.cluster)?;
        let name = format!("tieline-directory-{:016x}", me.0);
        let dialler = Arc::new(Dialler::new(self.address.clone(), name)?);
        let server = self.address.server();
        let asked = Arc::new(Asked::new(me, "redis"));
        let keys = Keys::new(Arc::clone(&asked), self, me, dialler);
        TableDirectory::open(asked, keys).await.map_err(|trouble| RedisError::Server { server, trouble })
    }
}

/// A node's keys on a Redis server.
struct Keys {
    asked: Arc<Asked>,
    settings: RedisDirectorySettings,
    dialler: Arc<Dialler>,
    script: Script,
    prefix: String,
    /// This node, as the server has it.
    me: String,
    /// The names of the keys.
    nodes: String,
    users: String,
    remembered: String,
    /// The server's name for its present run.
    run: String,
}

impl Keys {
    fn new(
        asked: Arc<Asked>,
        settings: RedisDirectorySettings,
        me: Incarnation,
        dialler: Arc<Dialler>,
    ) -> Self {
        let (prefix, me) = (format!("tieline:{}:directory", settings.cluster), format!("{:016x}", me.0));
        Keys {
            nodes: format!("{prefix}/nodes"),
            users: format!("{prefix}/users/{me}"),
            remembered: format!("{prefix}/remembered/{me}"),
            script: Script::new(include_str!("directory/users.lua")),
            run: String::new(),
            asked,
            settings,
            dialler,
            prefix,
            me,
        }
    }

    /// The name that the server gives to its present run.
    async fn server_run(&self, link: &mut Link) -> Result<String, Trouble> {
        link.say(&[b"INFO", b"server"]);
        let asking = async {
            link.send().await?;
            link.grant(|answer| match answer {
                resp::Answer::Text(text) => {
                    let text = String::from_utf8_lossy(text);
                    let run = text.lines().find_map(|line| line.strip_prefix("run_id:"));
                    run.map(|run| run.trim().to_owned())
                }
                _ => None,
            })
            .await
        };
        timeout(ANSWER, asking).await.unwrap_or(Err(Trouble::Silent))?.ok_or(Trouble::Garbage)
    }

    /// Has the script do something about this node. Returns whether the server knew the node.
    async fn act(&self, link: &mut Link, act: &str) -> Result<bool, Trouble> {
        link.run(&self.script, &self.words(act, b"", 0));
        Ok(self.answers(link, 1).await?.is_some())
    }

    /// Has the script do something about each of these. Nothing is answered by a server that does not know this node.
    async fn run_all(
        &self,
        link: &mut Link,
        asking: impl Iterator<Item = (&'static str, &Request)>,
    ) -> Result<Option<Vec<Answer>>, Trouble> {
        let mut count = 0;
        for (act, request) in asking {
            let (hub, user) = request.key();
            // No name has such a character.
            let what = [hub.as_str().as_bytes(), b"\0", user.as_str().as_bytes()].concat();
            let number = if let Request::Claim { number, .. } = request { *number } else { 0 };
            link.run(&self.script, &self.words(act, &what, number));
            count += 1;
        }
        self.answers(link, count).await
    }

    fn words(&self, act: &str, what: &[u8], number: u64) -> Words {
        let Keys { prefix, me, nodes, users, remembered, .. } = self;
        let mut words = Words::new(&[nodes.as_bytes(), users.as_bytes(), remembered.as_bytes()]);
        for word in [prefix, me, &self.run] {
            words.push(word.as_bytes());
        }
        words.push_number(self.settings.lease.as_millis() as u64);
        words.push(act.as_bytes());
        words.push(what);
        words.push_number(number);
        words
    }

    async fn answers(&self, link: &mut Link, count: usize) -> Result<Option<Vec<Answer>>, Trouble> {
        let asking = async {
            link.send().await?;
            let mut answers = Vec::with_capacity(count);
            for _ in 0..count {
                answers.push(link.grant(read).await?.ok_or(Trouble::Garbage)?);
            }
            Ok(answers.into_iter().collect())
        };
        timeout(ANSWER, asking).await.unwrap_or(Err(Trouble::Silent))
    }
}

impl Table for Keys {
    type Link = Link;
    type Trouble = Trouble;

    const SILENT: Trouble = Trouble::Silent;

    fn server(&self) -> String {
        self.settings.address.server()
    }

    async fn connect(&mut self) -> Result<Link, Trouble> {
        let connecting = async {
            let (mut link, greetings) = Link::connect(&self.dialler).await?;
            link.send().await?;
            for _ in 0..greetings {
                link.grant(|_| ()).await?;
            }
            Ok(link)
        };
        timeout(ANSWER, connecting).await.unwrap_or(Err(Trouble::Silent))
    }

    async fn enter(&mut self, link: &mut Link) -> Result<(), Trouble> {
        self.run = self.server_run(link).await?;
        // The server keeps what it was sent whole once.
        link.send_whole_scripts(true);
        self.act(link, "enter").await?;
        link.send_whole_scripts(false);
        for part in self.asked.own_claims().chunks(AT_ONCE) {
            let asking = part.iter().map(|request| ("put", request));
            self.run_all(link, asking).await?.ok_or(Trouble::Garbage)?;
        }
        if self.act(link, "ready").await? { Ok(()) } else { Err(Trouble::Garbage) }
    }

    fn pause(&self) -> Duration {
        self.settings.refresh
    }

    async fn stay(&mut self, link: &mut Link) -> Result<bool, Trouble> {
        self.act(link, "stay").await
    }

    async fn ask(&mut self, link: &mut Link, requests: &[Request]) -> Result<Option<Vec<Answer>>, Trouble> {
        let act = |request: &Request| match request {
            Request::Claim { is_exact: true, .. } => "keep",
            Request::Claim { .. } => "claim",
            Request::Release { .. } => "release",
            Request::Look { .. } => "look",
            Request::Forget { .. } => "forget",
        };
        let asking = requests.iter().map(|request| (act(request), request));
        self.run_all(link, asking).await
    }

    async fn leave(&mut self, link: &mut Link) -> Result<(), Trouble> {
        self.act(link, "leave").await.map(drop)
    }
}

/// What the script answers: nothing inside where it does not know the node, nothing at all where it is no such answer.
fn read(answer: &resp::Answer<'_>) -> Option<Option<Answer>> {
    let resp::Answer::Many(parts) = answer else { return None };
    let text = |part: &resp::Answer<'_>| match part {
        resp::Answer::Text(text) => std::str::from_utf8(text).ok().map(str::to_owned),
        _ => None,
    };
    let (number, nodes) = parts.split_first()?;
    let number = text(number)?;
    if number == "unknown" {
        return Some(None);
    }
    let node = |pair: &[resp::Answer<'_>]| match pair {
        [node, what] => {
            let node = u64::from_str_radix(&text(node)?, 16).ok()?;
            Some((Incarnation(node), text(what)?.parse().ok()?))
        }
        _ => None,
    };
    let nodes: Option<Vec<(Incarnation, u64)>> = nodes.chunks(2).map(node).collect();
    Some(Some(Answer { number: number.parse().ok()?, nodes: nodes? }))
}
