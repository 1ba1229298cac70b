//! [`Link`]: a connection that asks and is answered, and [`Script`]: what it has the server run. What is asked is the business
//! of the store and the registry. Tested by the store's suites, and with a server that forgets its scripts.

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::AsyncWriteExt;

use super::Trouble;
use super::connection::Dialler;
use super::resp::{self, Answer};
use crate::medium::quoted;
use crate::medium::stream::Stream;

/// Room for commands that is kept while there are none.
const KEPT: usize = 256 * 1024;

/// A program that the server runs as one command.
pub(super) struct Script {
    text: &'static str,
    /// By what the server knows it once it has seen it.
    hash: String,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Script { text, hash: hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect() }
    }
}

/// The words behind a script: keys, then arguments.
pub(super) struct Words {
    keys: usize,
    count: usize,
    bytes: Vec<u8>,
}

impl Words {
    pub(super) fn new(keys: &[&[u8]]) -> Self {
        let mut words = Words { keys: keys.len(), count: 0, bytes: Vec::new() };
        keys.iter().for_each(|key| words.push(key));
        words
    }

    pub(super) fn push(&mut self, word: &[u8]) {
        self.push_pieces(&[word]);
    }

    pub(super) fn push_number(&mut self, number: u64) {
        self.push(number.to_string().as_bytes());
    }

    /// One word that is made of pieces.
    pub(super) fn push_pieces(&mut self, pieces: &[&[u8]]) {
        resp::bulk(&mut self.bytes, pieces);
        self.count += 1;
    }
}

/// A connection of which every answer is waited for.
pub(super) struct Link {
    connection: Stream,
    dialler: Arc<Dialler>,
    /// Commands that were not sent yet.
    out: Vec<u8>,
    /// Whether scripts are sent whole, because the server has not seen one of them.
    whole_scripts: bool,
}

impl Link {
    /// Connects, and leaves the greeting to be sent with what comes next; says how many answers it will get.
    pub(super) async fn connect(dialler: &Arc<Dialler>) -> Result<(Link, usize), Trouble> {
        let connection = dialler.connect().await?;
        let mut link =
            Link { connection, dialler: Arc::clone(dialler), out: Vec::new(), whole_scripts: false };
        let answers = link.dialler.hello(&mut link.out);
        Ok((link, answers))
    }

    /// The connection, for somebody who does not wait for answers.
    pub(super) fn into_stream(self) -> Stream {
        self.connection
    }

    /// Adds a command.
    pub(super) fn say(&mut self, words: &[&[u8]]) {
        resp::command(&mut self.out, words);
    }

    /// Adds a script: by its hash, as long as the server knows it.
    pub(super) fn run(&mut self, script: &Script, words: &Words) {
        resp::begin(&mut self.out, 3 + words.count);
        let (command, name): (&[u8], &str) =
            if self.whole_scripts { (b"EVAL", script.text) } else { (b"EVALSHA", &script.hash) };
        resp::bulk(&mut self.out, &[command]);
        resp::bulk(&mut self.out, &[name.as_bytes()]);
        resp::bulk(&mut self.out, &[words.keys.to_string().as_bytes()]);
        self.out.extend_from_slice(&words.bytes);
    }

    /// Scripts are sent whole from now on, or by their hashes.
    pub(super) fn send_whole_scripts(&mut self, whole: bool) {
        self.whole_scripts = whole;
    }

    /// Sends what was added.
    pub(super) async fn send(&mut self) -> Result<(), Trouble> {
        let sent = async {
            self.connection.write.write_all(&self.out).await?;
            // With TLS written is not sent yet.
            self.connection.write.flush().await
        };
        let sent: io::Result<()> = sent.await;
        self.out.clear();
        self.out.shrink_to(KEPT);
        sent.map_err(Trouble::Io)
    }

    /// Hands the next answers to `hear`, when all of them are there.
    pub(super) async fn answers<T>(
        &mut self,
        count: usize,
        hear: impl FnOnce(&[Answer<'_>]) -> T,
    ) -> Result<T, Trouble> {
        loop {
            if let Some((answers, len)) = resp::answers(self.connection.inbox.bytes(), count)? {
                let heard = hear(&answers);
                self.connection.inbox.understood(len);
                return Ok(heard);
            }
            if self.connection.inbox.read().await.map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Left);
            }
        }
    }

    /// Hands the next answer to `hear`.
    pub(super) async fn answer<T>(&mut self, hear: impl FnOnce(&Answer<'_>) -> T) -> Result<T, Trouble> {
        self.answers(1, |answers| hear(&answers[0])).await
    }

    /// The next answer, where a refusal ends the connection.
    pub(super) async fn grant<T>(&mut self, hear: impl FnOnce(&Answer<'_>) -> T) -> Result<T, Trouble> {
        let dialler = Arc::clone(&self.dialler);
        self.answer(|answer| match answer {
            Answer::Refused(reason) => Err(dialler.refused(reason)),
            answer => Ok(hear(answer)),
        })
        .await?
    }
}

/// A text of the server, of a length and with characters fit for a log.
pub(super) fn shown(text: &[u8]) -> String {
    quoted(&String::from_utf8_lossy(text))
}
