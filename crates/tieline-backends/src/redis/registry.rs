//! [`RedisRegistry`]: which nodes live, by one key of a Redis server.
//!
//! One script does everything, so that nobody sees half of it: it takes out whose lease is over by the server's own clock, writes
//! what this node says, and shows the others if anything has changed. A node says every 5 s that it lives, and looks once a
//! second; a look that finds nothing new costs the server one read of the key, and the network some bytes. There is a single
//! connection, made anew with every trouble, and nobody waits for it.
//!
//! A node that finds its own entry gone knows that the server has forgotten everybody, or that its clock was set; then nobody is
//! dropped until all had the time to register again ([`Keeping`]). `docs/registries.md` says what that promises.
//!
//! Tested by the conformance suite on a real server, killed and standing ones among it, and in `tests.rs` with strangers' entries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_core::registry::{self, Done, HOLD, Keeping, Registration, Registry, SharedView, words};
use tieline_proto::NodeId;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::connection::Dialler;
use super::link::{Link, Script, Words};
use super::resp::Answer;
use super::settings::RedisAddress;
use super::{RedisError, Trouble, check_cluster};
use crate::life::Life;
use crate::pause::pause;

#[cfg(test)]
mod tests;

/// How long connecting may take, and each answer.
const ANSWER: Duration = Duration::from_secs(2);

/// The bounds of the pauses between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How a node uses a Redis server as its registry.
#[derive(Clone, Debug)]
pub struct RedisRegistrySettings {
    /// Where the server is.
    pub address: RedisAddress,
    /// The cluster's name, which is in the name of the key.
    pub cluster: String,
    /// The node; none for whoever only looks.
    pub me: Option<NodeId>,
    /// How long a node is believed to live that says nothing.
    pub lease: Duration,
    /// How often it says that it lives.
    pub refresh: Duration,
    /// How often it looks at the others.
    pub look: Duration,
    /// How long nobody is dropped after the server came back.
    pub hold: Duration,
}

impl RedisRegistrySettings {
    /// The defaults.
    pub fn new(address: RedisAddress, cluster: &str, me: Option<NodeId>) -> Self {
        RedisRegistrySettings {
            address,
            cluster: cluster.to_owned(),
            me,
            lease: Duration::from_secs(15),
            refresh: Duration::from_secs(5),
            look: Duration::from_secs(1),
            hold: HOLD,
        }
    }
}

/// What this node wants to be known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    /// Nothing: it only looks.
    Look,
    /// That it lives, and this.
    Stay(Registration),
    /// That it is gone.
    Leave,
}

/// What the registry and its task share.
struct Shared {
    settings: RedisRegistrySettings,
    wish: watch::Sender<Wish>,
    view: watch::Sender<SharedView>,
    life: Life,
}

/// A registry on a Redis server. Dropped, it says nothing more, and its node's lease ends it.
pub struct RedisRegistry(Arc<Shared>);

impl RedisRegistry {
    /// Connects, and looks who is there, in a task of the runtime that this is called in.
    ///
    /// # Errors
    /// [`RedisError`], when the settings are wrong or the server is not there or refuses, at the latest after some seconds.
    pub async fn open(settings: RedisRegistrySettings) -> Result<Self, RedisError> {
        check_cluster(&settings.cluster)?;
        let name =
            settings.me.as_ref().map_or("tieline-registry".to_owned(), |me| format!("tieline-{}", me.name));
        let dialler = Arc::new(Dialler::new(settings.address.clone(), name)?);
        let server = settings.address.server();
        let shared = Arc::new(Shared {
            wish: watch::Sender::new(Wish::Look),
            view: watch::Sender::default(),
            life: Life::new(),
            settings,
        });
        let mut task = Task {
            keeping: Keeping::new(shared.settings.me.clone(), shared.settings.hold),
            key: format!("tieline:{}:nodes", shared.settings.cluster),
            script: Script::new(include_str!("registry/nodes.lua")),
            known: String::new(),
            was_there: false,
            said: None,
            dialler,
            shared: Arc::clone(&shared),
        };
        let first = async {
            let mut link = task.connect().await?;
            task.turn(&mut link, &Wish::Look).await?;
            Ok(link)
        };
        let link = first.await.map_err(|trouble| RedisError::Server { server, trouble })?;
        tokio::spawn(task.run(link));
        Ok(RedisRegistry(shared))
    }
}

impl Registry for RedisRegistry {
    fn register(&self, registration: Registration) {
        self.0.wish.send_if_modified(|wish| {
            let is_news = match wish {
                Wish::Leave => return false,
                Wish::Look => true,
                Wish::Stay(said) => {
                    *said != Registration { connections: said.connections, ..registration.clone() }
                }
            };
            *wish = Wish::Stay(registration);
            is_news
        });
    }

    fn deregister(&self) -> Done {
        self.0.wish.send_replace(Wish::Leave);
        let shared = Arc::clone(&self.0);
        // The task gives up by itself, so this only guards against a runtime that has stopped.
        Box::pin(async move { drop(timeout(ANSWER, shared.life.stopped()).await) })
    }

    fn view(&self) -> watch::Receiver<SharedView> {
        self.0.view.subscribe()
    }
}

impl Drop for RedisRegistry {
    fn drop(&mut self) {
        // Who leaves is let go first.
        if *self.0.wish.borrow() != Wish::Leave {
            self.0.life.stop();
        }
    }
}

/// The one task behind a registry.
struct Task {
    shared: Arc<Shared>,
    dialler: Arc<Dialler>,
    keeping: Keeping,
    key: String,
    script: Script,
    /// The version of the entries that are known.
    known: String,
    /// Whether the server had this node's entry after the last turn.
    was_there: bool,
    /// When this node said last that it lives.
    said: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut link: Link) {
        let shared = Arc::clone(&self.shared);
        let stopping = shared.life.stopping();
        tokio::pin!(stopping);
        loop {
            let trouble = tokio::select! {
                ended = self.session(&mut link) => match ended {
                    Ok(()) => break,
                    Err(trouble) => trouble,
                },
                () = &mut stopping => break,
            };
            let server = self.shared.settings.address.server();
            tracing::warn!(server, %trouble, "The registry's server is away; the nodes that were known stay so.");
            self.keeping.away();
            self.known.clear();
            (self.was_there, self.said) = (false, None);
            self.show();
            tokio::select! {
                again = self.connect_again(trouble) => match again {
                    Some(again) => link = again,
                    None => break,
                },
                () = &mut stopping => break,
            }
            tracing::info!(server, "The registry's server is back.");
        }
        self.shared.life.end();
    }

    /// Looks and says until the node leaves or the connection fails.
    async fn session(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let mut wishes = self.shared.wish.subscribe();
        let mut looks = interval(self.shared.settings.look);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wish = wishes.borrow_and_update().clone();
            self.turn(link, &wish).await?;
            if wish == Wish::Leave {
                return Ok(());
            }
            tokio::select! {
                _ = looks.tick() => {}
                // Its sender is in what this task shares.
                _ = wishes.changed() => self.said = None,
            }
        }
    }

    /// Has the script run once, and takes in what it shows.
    async fn turn(&mut self, link: &mut Link, wish: &Wish) -> Result<(), Trouble> {
        let settings = &self.shared.settings;
        let is_due = self.said.is_none_or(|said| said.elapsed() >= settings.refresh);
        let mut own_words = String::new();
        let act = match (wish, &settings.me) {
            (Wish::Leave, _) => "leave",
            (Wish::Stay(registration), Some(me)) if is_due => {
                own_words = words::write(&settings.cluster, me, registration);
                "stay"
            }
            _ => "look",
        };
        let mut arguments = Words::new(&[self.key.as_bytes()]);
        arguments.push(settings.me.as_ref().map(NodeId::to_string).unwrap_or_default().as_bytes());
        arguments.push(act.as_bytes());
        arguments.push(own_words.as_bytes());
        arguments.push_number(settings.lease.as_millis() as u64);
        arguments.push(self.known.as_bytes());
        link.run(&self.script, &arguments);
        let cluster = settings.cluster.clone();
        let known = self.known.clone();
        let asked = async {
            link.send().await?;
            link.grant(|answer| Shown::of(answer, &cluster, &known)).await
        };
        let shown = timeout(ANSWER, asked).await.unwrap_or(Err(Trouble::Silent))?.ok_or(Trouble::Garbage)?;
        let now = Instant::now();
        if act == "stay" {
            self.said = Some(now);
        }
        if self.was_there && !shown.was_there {
            self.keeping.forgotten(now);
            // Only what it says next brings it back.
            if act == "look" {
                self.said = None;
            }
        }
        self.was_there = act == "stay" || shown.was_there && act != "leave";
        if let Some(entries) = shown.entries {
            self.known = shown.version;
            let hidden = (0..shown.hidden).map(|_| Err(words::Strange::TooLong));
            self.keeping.listed(entries.into_iter().chain(hidden), now);
        }
        self.keeping.tick(now);
        self.show();
        Ok(())
    }

    fn show(&self) {
        let view = self.keeping.view();
        self.shared.view.send_if_modified(|shown| {
            let is_news = **shown != view;
            if is_news {
                *shown = Arc::new(view);
            }
            is_news
        });
    }

    /// One attempt: connects and greets.
    async fn connect(&self) -> Result<Link, Trouble> {
        let connecting = async {
            let (mut link, greetings) = Link::connect(&self.dialler).await?;
            // Asked once a second, it is not worth remembering which server has seen the script.
            link.send_whole_scripts(true);
            link.send().await?;
            for _ in 0..greetings {
                link.grant(|_| ()).await?;
            }
            Ok(link)
        };
        timeout(ANSWER, connecting).await.unwrap_or(Err(Trouble::Silent))
    }

    /// Tries until it works; none when the node leaves meanwhile, whose lease ends by itself then.
    async fn connect_again(&self, mut trouble: Trouble) -> Option<Link> {
        let mut wishes = self.shared.wish.subscribe();
        let mut failures = 0;
        loop {
            let attempt = async {
                sleep(pause(RETRY.0, RETRY.1, failures)).await;
                self.connect().await
            };
            tokio::select! {
                connected = attempt => match connected {
                    Ok(link) => return Some(link),
                    Err(error) => {
                        // Once for each reason: attempts go on every second.
                        if error.to_string() != trouble.to_string() {
                            let server = self.shared.settings.address.server();
                            tracing::warn!(server, %error, "The registry's server is still away.");
                        }
                        trouble = error;
                        failures += 1;
                    }
                },
                _ = wishes.wait_for(|wish| *wish == Wish::Leave) => return None,
            }
        }
    }
}

/// What the script answers.
struct Shown {
    was_there: bool,
    version: String,
    hidden: usize,
    /// None where they are as known.
    entries: Option<Vec<Result<registry::Member, words::Strange>>>,
}

impl Shown {
    fn of(answer: &Answer<'_>, cluster: &str, known: &str) -> Option<Self> {
        let Answer::Many(parts) = answer else { return None };
        let [Answer::Number(was_there), Answer::Text(version), Answer::Number(hidden), entries @ ..] =
            &parts[..]
        else {
            return None;
        };
        let version = String::from_utf8(version.to_vec()).ok()?;
        let read = |entry: &[Answer<'_>]| match entry {
            [Answer::Text(id), Answer::Text(words)] => {
                let member = words::read(cluster, words)?;
                // Nobody takes another's place by what it says.
                if member.id.to_string().as_bytes() == *id {
                    Ok(member)
                } else {
                    Err(words::Strange::Value("name"))
                }
            }
            _ => Err(words::Strange::Malformed),
        };
        Some(Shown {
            was_there: *was_there == 1,
            hidden: usize::try_from(*hidden).ok()?,
            entries: (version != known).then(|| entries.chunks(2).map(read).collect()),
            version,
        })
    }
}
