//! [`RedisDirectory`]: the engine of a directory whose users are on a Redis server: it asks there what [`Asked`] wants to know.
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tieline_core::directory::Asked;
use tieline_core::directory::asked::{Answer, Request};
use tieline_proto::Incarnation;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connection::Dialler;
use super::link::{Link, Script, Words};
use super::settings::RedisAddress;
use super::{MAX_CLUSTER, RedisError, Trouble, resp};
use crate::life::Life;
use crate::pause::pause;

#[cfg(test)]
mod tests;

/// How long connecting may take, and each answer.
const ANSWER: Duration = Duration::from_secs(2);

/// The bounds of the pauses between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What is asked before its answers are read.
const AT_ONCE: usize = 512;

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
}

/// A node's directory on a Redis server. Dropped, it says nothing more, and the node's lease ends it.
pub struct RedisDirectory {
    asked: Arc<Asked>,
    life: Arc<Life>,
    /// Whether the server is told that the node ends.
    says_goodbye: Arc<AtomicBool>,
}

impl RedisDirectory {
    /// Connects, and asks from then on in a task of the runtime that this is called in.
    ///
    /// # Errors
    /// [`RedisError`], when the settings are wrong or the server is not there or refuses, at the latest after some seconds.
    pub async fn open(settings: RedisDirectorySettings, me: Incarnation) -> Result<Self, RedisError> {
        if settings.cluster.is_empty() || settings.cluster.len() > MAX_CLUSTER {
            return Err(RedisError::Cluster);
        }
        let name = format!("tieline-directory-{:016x}", me.0);
        let dialler = Arc::new(Dialler::new(settings.address.clone(), name)?);
        let server = settings.address.server();
        let (asked, life) = (Arc::new(Asked::new(me, "redis")), Arc::new(Life::new()));
        let says_goodbye = Arc::new(AtomicBool::new(false));
        let mut task = Task {
            asked: Arc::clone(&asked),
            life: Arc::clone(&life),
            says_goodbye: Arc::clone(&says_goodbye),
            script: Script::new(include_str!("directory/users.lua")),
            keys: Keys::new(&settings.cluster, me),
            run: String::new(),
            dialler,
            settings,
        };
        let first = async {
            let mut link = task.connect().await?;
            task.enter(&mut link).await?;
            Ok(link)
        };
        let link = first.await.map_err(|trouble| RedisError::Server { server, trouble })?;
        tokio::spawn(task.run(link));
        Ok(RedisDirectory { asked, life, says_goodbye })
    }

    /// The directory.
    pub fn asked(&self) -> &Arc<Asked> {
        &self.asked
    }

    /// Takes the node's users out of the server, as far as that is there, and ends.
    pub async fn close(&self) {
        self.says_goodbye.store(true, Ordering::Release);
        self.life.stop();
        // The task gives up by itself, so this only guards against a runtime that has stopped.
        drop(timeout(2 * ANSWER, self.life.stopped()).await);
    }
}

/// The names of a node's keys.
struct Keys {
    prefix: String,
    me: String,
    nodes: String,
    users: String,
    remembered: String,
}

impl Keys {
    fn new(cluster: &str, me: Incarnation) -> Self {
        let (prefix, me) = (format!("tieline:{cluster}:directory"), format!("{:016x}", me.0));
        Keys {
            nodes: format!("{prefix}/nodes"),
            users: format!("{prefix}/users/{me}"),
            remembered: format!("{prefix}/remembered/{me}"),
            prefix,
            me,
        }
    }
}

/// How a session ended.
enum End {
    /// The node leaves.
    Left,
    /// The server has lost what it knew of this node.
    Forgotten,
}

/// The one task behind a directory.
struct Task {
    asked: Arc<Asked>,
    life: Arc<Life>,
    says_goodbye: Arc<AtomicBool>,
    settings: RedisDirectorySettings,
    dialler: Arc<Dialler>,
    script: Script,
    keys: Keys,
    /// The server's name for its present run.
    run: String,
}

impl Task {
    async fn run(mut self, mut link: Link) {
        let life = Arc::clone(&self.life);
        let stopping = life.stopping();
        tokio::pin!(stopping);
        let server = self.settings.address.server();
        loop {
            let trouble = match self.session(&mut link).await {
                Ok(End::Left) => break,
                Ok(End::Forgotten) => {
                    tracing::warn!(
                        server,
                        "The directory's server has lost this node's users, which are put there again."
                    );
                    self.asked.away();
                    match self.enter(&mut link).await {
                        Ok(()) => continue,
                        Err(trouble) => trouble,
                    }
                }
                Err(trouble) => trouble,
            };
            tracing::warn!(server, %trouble, "The directory's server is away; messages to users go to all nodes.");
            self.asked.away();
            tokio::select! {
                again = self.connect_again(trouble) => link = again,
                () = &mut stopping => break,
            }
            tracing::info!(server, "The directory's server is back.");
        }
        self.asked.away();
        life.end();
    }

    /// Asks what is wanted until the node leaves or the connection fails.
    async fn session(&mut self, link: &mut Link) -> Result<End, Trouble> {
        let asked = Arc::clone(&self.asked);
        let life = Arc::clone(&self.life);
        let mut stays_until = Instant::now() + self.settings.refresh;
        loop {
            tokio::select! {
                () = asked.wanted() => {}
                () = sleep_until(stays_until) => {}
                () = life.stopping() => {
                    if self.says_goodbye.load(Ordering::Acquire) {
                        self.act(link, "leave").await?;
                    }
                    return Ok(End::Left);
                }
            }
            loop {
                // Also while there is always more to ask.
                if Instant::now() >= stays_until {
                    if !self.act(link, "stay").await? {
                        return Ok(End::Forgotten);
                    }
                    stays_until = Instant::now() + self.settings.refresh;
                }
                let requests = asked.take(AT_ONCE);
                if requests.is_empty() {
                    break;
                }
                let answers = self.ask(link, &requests).await?;
                for (request, answer) in requests.iter().zip(answers) {
                    let Some(answer) = answer else { return Ok(End::Forgotten) };
                    asked.answered(request, &answer);
                }
            }
        }
    }

    /// Puts all of this node's users there, and is listed from then on.
    async fn enter(&mut self, link: &mut Link) -> Result<(), Trouble> {
        self.run = self.server_run(link).await?;
        // The server keeps what it was sent whole once.
        link.send_whole_scripts(true);
        self.act(link, "enter").await?;
        link.send_whole_scripts(false);
        for part in self.asked.own_claims().chunks(AT_ONCE) {
            let asking = part.iter().map(|request| ("put", request));
            let answers = self.run_all(link, asking).await?;
            if answers.iter().any(Option::is_none) {
                return Err(Trouble::Garbage);
            }
        }
        if !self.act(link, "ready").await? {
            return Err(Trouble::Garbage);
        }
        self.asked.entered();
        Ok(())
    }

    /// The name that the server gives to its present run.
    async fn server_run(&self, link: &mut Link) -> Result<String, Trouble> {
        link.say(&[b"INFO", b"server"]);
        let asked = async {
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
        timeout(ANSWER, asked).await.unwrap_or(Err(Trouble::Silent))?.ok_or(Trouble::Garbage)
    }

    /// Has the script do something about this node. Returns whether the server knew the node.
    async fn act(&self, link: &mut Link, act: &str) -> Result<bool, Trouble> {
        link.run(&self.script, &self.words(act, b"", 0));
        Ok(self.answers(link, 1).await?.iter().all(Option::is_some))
    }

    /// Asks all of this. Nothing is answered by a server that does not know this node.
    async fn ask(&self, link: &mut Link, requests: &[Request]) -> Result<Vec<Option<Answer>>, Trouble> {
        let act = |request: &Request| match request {
            Request::Claim { is_exact: true, .. } => "keep",
            Request::Claim { .. } => "claim",
            Request::Release { .. } => "release",
            Request::Look { .. } => "look",
            Request::Forget { .. } => "forget",
        };
        self.run_all(link, requests.iter().map(|request| (act(request), request))).await
    }

    async fn run_all(
        &self,
        link: &mut Link,
        asking: impl Iterator<Item = (&'static str, &Request)>,
    ) -> Result<Vec<Option<Answer>>, Trouble> {
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
        let Keys { prefix, me, nodes, users, remembered } = &self.keys;
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

    async fn answers(&self, link: &mut Link, count: usize) -> Result<Vec<Option<Answer>>, Trouble> {
        let asked = async {
            link.send().await?;
            let mut answers = Vec::with_capacity(count);
            for _ in 0..count {
                answers.push(link.grant(read).await?.ok_or(Trouble::Garbage)?);
            }
            Ok(answers)
        };
        timeout(ANSWER, asked).await.unwrap_or(Err(Trouble::Silent))
    }

    /// One attempt: connects and greets.
    async fn connect(&self) -> Result<Link, Trouble> {
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

    /// Tries until this node's users are there.
    async fn connect_again(&mut self, mut trouble: Trouble) -> Link {
        let mut failures = 0;
        loop {
            sleep(pause(RETRY.0, RETRY.1, failures)).await;
            let attempt = async {
                let mut link = self.connect().await?;
                self.enter(&mut link).await?;
                Ok(link)
            };
            let error = match attempt.await {
                Ok(link) => return link,
                Err(error) => error,
            };
            let error: Trouble = error;
            // Once for each reason: attempts go on every second.
            if error.to_string() != trouble.to_string() {
                let server = self.settings.address.server();
                tracing::warn!(server, %error, "The directory's server is still away.");
            }
            trouble = error;
            failures += 1;
        }
    }
}

impl Drop for RedisDirectory {
    fn drop(&mut self) {
        self.life.stop();
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
