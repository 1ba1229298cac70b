//! What time does to a shard: pings, idle limits, and the ends of waits. The clock is given from outside.
//! Tested through the properties of the shard.

use std::time::Duration;

use crate::Slot;
use crate::application::{Application, Cause};
use crate::connection::Phase;
use crate::shard::Shard;

impl<A: Application> Shard<A> {
    /// Sets the clock. Returns whether at least one second has passed, and [`Shard::tick`] is due.
    pub fn advance(&mut self, now_ms: u64) -> bool {
        self.now_ms = self.now_ms.max(now_ms);
        (self.now_ms / 1000) as u32 > self.tick
    }

    /// What is due each second: pings, idle limits, and the ends of waits. [`Shard::settle`] follows.
    pub fn tick(&mut self) {
        let before = self.tick;
        self.tick = (self.now_ms / 1000) as u32;
        let period = self.ticks(self.settings.ping_every);
        // After a pause of the process at most one whole period is caught up.
        for tick in before.max(self.tick.saturating_sub(period)) + 1..=self.tick {
            self.sweep(tick % period, period);
        }
        while let Some((deadline, slot, generation)) = self.closing.front().copied()
            && deadline <= self.tick
        {
            self.closing.pop_front();
            let connection = &self.connections[slot as usize];
            if connection.generation == generation
                && matches!(
                    connection.phase,
                    Phase::Closing | Phase::Failing | Phase::Lingering | Phase::Finishing
                )
            {
                self.lose_socket(slot);
            }
        }
        let window = self.ticks(self.settings.resume_window);
        while let Some((deadline, slot, generation)) = self.detached.front().copied()
            && deadline <= self.tick
        {
            self.detached.pop_front();
            let connection = &self.connections[slot as usize];
            let same = connection.generation == generation && connection.phase == Phase::Detached;
            // It may have been resumed and cut again since: then a later entry stands for it.
            if same && connection.last_message + window <= self.tick {
                self.end(slot, Cause::Expired);
            }
        }
    }

    /// Visits one in `period` connections: pings it, or ends it when nothing was heard since the last pings.
    /// Each connection is visited once a period, without a timer or a list of its own.
    fn sweep(&mut self, remainder: u32, period: u32) {
        let idle = self.settings.idle.map(|idle| self.ticks(idle));
        for slot in (remainder as usize..self.connections.len()).step_by(period as usize) {
            let connection = &mut self.connections[slot];
            let slot = slot as Slot;
            // While its reading stands still nothing can be heard from it, and that is not its fault.
            if connection.phase != Phase::Open || connection.is_parked() {
                continue;
            }
            if connection.unanswered >= self.settings.ping_misses {
                self.end(slot, Cause::Silent);
            } else if idle.is_some_and(|idle| connection.last_message + idle <= self.tick) {
                self.end(slot, Cause::Idle);
            } else {
                connection.unanswered += 1;
                self.queue_control(slot, &[0x89, 0]);
            }
        }
    }

    pub(crate) fn current_tick(&self) -> u32 {
        self.tick
    }

    /// A duration in whole ticks, at least one.
    pub(crate) fn ticks(&self, duration: Duration) -> u32 {
        duration.as_secs().clamp(1, u64::from(u32::MAX / 2)) as u32
    }
}
