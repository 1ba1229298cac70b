//! [`Climate`]: what kind of weather a run has. It follows from the seed.

use std::time::Duration;

use tieline_core::Limits;
use tieline_switchboard::Settings;

use tieline_judge::Dice;

/// Seconds after which a cut connection cannot be recovered any more.
pub(crate) const RECOVERY: u64 = 6;

/// How a run is set up.
pub(crate) struct Climate {
    /// Shards of each node.
    pub(crate) shards: usize,
    /// Nodes, joined where there are several.
    pub(crate) nodes: usize,
    /// Steps of the scheduler before everything is let come to rest.
    pub(crate) steps: usize,
    /// Most connections at a time.
    pub(crate) guests: usize,
    /// Whether sockets are lost and clients go.
    pub(crate) stormy: bool,
    /// Whether who does not read is closed; otherwise there is more room than a run fills.
    pub(crate) short_of_lag: bool,
    /// Most bytes that a socket takes more at once.
    pub(crate) gain: usize,
    pub(crate) limits: Limits,
    pub(crate) switchboard: Settings,
}

impl Climate {
    pub(crate) fn of(nodes: usize, dice: &mut Dice) -> Self {
        let short_of_lag = dice.chance(10);
        let tight = dice.chance(40);
        let limits = Limits {
            groups_per_connection: if tight { 1 + dice.below(2) } else { 1_000 },
            // The model counts those of all nodes.
            connections_per_user: if tight && nodes == 1 { 1 + dice.below(3) } else { 0 },
            messages_per_second: if tight && dice.chance(50) { 2 } else { 0 },
            message_burst: 4,
            faults: 2 + dice.below(3) as u8,
            hello: Duration::from_secs(2),
        };
        let switchboard = Settings {
            max_lag: if short_of_lag { 1_500 } else { 4 << 20 },
            // Between nodes a full mailbox loses messages: that is another promise.
            max_mailbox: if nodes == 1 && dice.chance(25) { 300 } else { 16 << 20 },
            ping_every: Duration::from_secs(3),
            ping_misses: 250,
            resume_window: Duration::from_secs(RECOVERY),
            ..Settings::default()
        };
        Climate {
            shards: if nodes == 1 { 1 + dice.below(3) } else { 1 + dice.below(2) },
            nodes,
            steps: 40 + dice.below(160),
            guests: 2 + dice.below(6),
            stormy: dice.chance(60),
            short_of_lag,
            gain: dice.pick(&[20, 200, 2_000]),
            limits,
            switchboard,
        }
    }
}
