//! The nemesis: what is broken, when, and for how long. All of it follows from the seed.
//!
//! A [`Strike`] names its victim by a number that is taken modulo what there is at that moment, so that the plan can be made
//! before anything runs. What is already broken is left alone.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tieline_judge::Dice;

use super::Error;
use super::nodes::{Cluster, Party, Wire};
use super::options::Store;
use super::stage::Stage;
use crate::proxy::{Cut, Direction, Way};

/// How long a party is kept from running.
const FROZEN: Duration = Duration::from_secs(10);

/// Pause before a node that did not start is started again.
const START_AGAIN: Duration = Duration::from_secs(1);

/// How many nodes are added in a run at most.
const ADDED: usize = 1;

/// What is done to a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// SIGKILL; it comes back when the strike is over.
    Kill,
    /// SIGSTOP.
    Freeze,
    /// Connections are reset, once.
    Reset,
    /// Connections end, once.
    End,
    /// Connections are reset, and so are new ones.
    Sever,
    /// What is said comes so many milliseconds later.
    Delay(u64),
    /// What is said is lost, in one direction.
    Lose(Direction),
    /// One more node.
    Add,
}

/// Something that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Strike {
    /// After the beginning.
    at: Duration,
    lasts: Duration,
    blow: Blow,
    victim: usize,
}

/// What is struck at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wound {
    Dead(Party),
    Frozen(Party),
    Broken(Wire),
}

fn milliseconds(dice: &mut Dice, from: u64, to: u64) -> Duration {
    Duration::from_millis(from + dice.below((to - from) as usize) as u64)
}

fn strike(dice: &mut Dice, at: Duration) -> Strike {
    let blow = dice.weighed(&[
        (5, Blow::Kill),
        (2, Blow::Freeze),
        (3, Blow::Reset),
        (2, Blow::End),
        (3, Blow::Sever),
        (3, Blow::Delay(0)),
        (3, Blow::Lose(Direction::There)),
        (1, Blow::Add),
    ]);
    let blow = match blow {
        Blow::Delay(_) => Blow::Delay(20 + dice.below(1500) as u64),
        Blow::Lose(_) => Blow::Lose(dice.pick(&[Direction::There, Direction::Back])),
        blow => blow,
    };
    let lasts = match blow {
        Blow::Freeze => FROZEN,
        _ => milliseconds(dice, 200, 6000),
    };
    Strike { at, lasts, blow, victim: dice.below(1 << 20) }
}

/// What a seed breaks within a time: one thing after the other, and now and then several at once.
fn plan(dice: &mut Dice, lasts: Duration) -> Vec<Strike> {
    let mut strikes = Vec::new();
    let mut at = milliseconds(dice, 100, 1000);
    while at < lasts {
        let many = if dice.chance(15) { 3 + dice.below(4) } else { 1 };
        for _ in 0..many {
            strikes.push(strike(dice, at));
        }
        at += milliseconds(dice, 300, 3500);
    }
    strikes
}

/// Who breaks things.
pub(super) struct Nemesis {
    stage: Arc<Stage>,
    plan: Vec<Strike>,
    lasts: Duration,
    /// What is broken, and until when.
    wounds: Vec<(Instant, Wound)>,
    /// Nodes that were added.
    added: usize,
    may_add: bool,
}

impl Nemesis {
    /// One that does what the dice say for so long.
    pub(super) fn new(stage: &Arc<Stage>, dice: &mut Dice, lasts: Duration, store: &Store) -> Nemesis {
        Nemesis {
            stage: Arc::clone(stage),
            plan: plan(dice, lasts),
            lasts,
            wounds: Vec::new(),
            added: 0,
            // Another node would have another store.
            may_add: *store != Store::Memory,
        }
    }

    /// Breaks and mends until its time is over, and mends everything.
    pub(super) fn rage(mut self, cluster: &mut Cluster) -> Result<(), Error> {
        let begun = Instant::now();
        let plan = std::mem::take(&mut self.plan);
        for strike in plan {
            self.mend_until(cluster, begun + strike.at)?;
            self.strike(cluster, strike)?;
        }
        self.mend_until(cluster, begun + self.lasts)?;
        // What nodes need comes first.
        let mut wounds: Vec<_> =
            std::mem::take(&mut self.wounds).into_iter().map(|(_, wound)| wound).collect();
        wounds.sort_by_key(|wound| matches!(wound, Wound::Dead(Party::Node(_))));
        wounds.into_iter().try_for_each(|wound| self.mend(cluster, wound))
    }

    fn say(&self, what: &str) {
        let now = self.stage.now();
        println!("{:>4}.{:03}   {what}", now / 1000, now % 1000);
    }

    /// Waits, and mends what has been broken for long enough.
    fn mend_until(&mut self, cluster: &mut Cluster, until: Instant) -> Result<(), Error> {
        loop {
            let first = self.wounds.iter().enumerate().min_by_key(|(_, (ends, _))| *ends);
            match first {
                Some((index, (ends, _))) if *ends <= until => {
                    thread::sleep(ends.saturating_duration_since(Instant::now()));
                    let (_, wound) = self.wounds.remove(index);
                    match self.mend(cluster, wound) {
                        // What it needs is not there: whoever looks after nodes starts them until they stay.
                        Err(Error::Node { .. }) if matches!(wound, Wound::Dead(Party::Node(_))) => {
                            self.say(&format!("{wound:?} does not start"));
                            self.wounds.push((Instant::now() + START_AGAIN, wound));
                        }
                        mended => mended?,
                    }
                }
                _ => {
                    thread::sleep(until.saturating_duration_since(Instant::now()));
                    return Ok(());
                }
            }
        }
    }

    fn mend(&self, cluster: &mut Cluster, wound: Wound) -> Result<(), Error> {
        match wound {
            Wound::Dead(party) => {
                cluster.revive(party)?;
                self.say(&format!("{party:?} is back"));
            }
            Wound::Frozen(party) => {
                cluster.signal(party, Signal::SIGCONT)?;
                self.say(&format!("{party:?} runs on"));
            }
            Wound::Broken(wire) => {
                if let Some(proxy) = cluster.proxy(wire) {
                    proxy.heal();
                }
                self.say(&format!("{wire:?} is mended"));
            }
        }
        Ok(())
    }

    fn is_struck(&self, party: Party) -> bool {
        // Of several servers one at a time: the others are there to take its place.
        let is_same = |of: Party| of == party || matches!((of, party), (Party::Server(_), Party::Server(_)));
        let is_it = |(_, wound): &(Instant, Wound)| matches!(wound, Wound::Dead(of) | Wound::Frozen(of) if is_same(*of));
        self.wounds.iter().any(is_it)
    }

    fn strike(&mut self, cluster: &mut Cluster, strike: Strike) -> Result<(), Error> {
        let ends = Instant::now() + strike.lasts;
        let wound = match strike.blow {
            Blow::Kill | Blow::Freeze => {
                let parties = cluster.parties();
                let party = parties[strike.victim % parties.len()];
                if self.is_struck(party) {
                    return Ok(());
                }
                let Some(party) = cluster.meant(party) else { return Ok(()) };
                if strike.blow == Blow::Kill {
                    cluster.kill(party)?;
                    Wound::Dead(party)
                } else {
                    cluster.signal(party, Signal::SIGSTOP)?;
                    Wound::Frozen(party)
                }
            }
            Blow::Add if self.added < ADDED && self.may_add => {
                self.added += 1;
                let added = cluster.add()?;
                self.say(&format!("{added:?} is added"));
                self.wounds.push((Instant::now(), Wound::Dead(added)));
                return Ok(());
            }
            Blow::Add => return Ok(()),
            blow => {
                let wires = cluster.wires();
                let wire = wires[strike.victim % wires.len()];
                let Some(proxy) = cluster.proxy(wire) else { return Ok(()) };
                match blow {
                    Blow::Reset => proxy.cut(Cut::Reset),
                    Blow::End => proxy.cut(Cut::End),
                    Blow::Delay(late) => proxy.set_both(Way::Late(Duration::from_millis(late))),
                    Blow::Lose(direction) => proxy.set(direction, Way::Lost),
                    _ => proxy.sever(),
                }
                if matches!(blow, Blow::Reset | Blow::End) {
                    self.say(&format!("{wire:?}: {blow:?}"));
                    return Ok(());
                }
                Wound::Broken(wire)
            }
        };
        let Strike { lasts, blow, .. } = strike;
        self.say(&format!("{wound:?}: {blow:?} for {} ms", lasts.as_millis()));
        self.wounds.push((ends, wound));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use tieline_judge::Dice;

    use super::plan;

    #[test]
    fn a_seed_breaks_the_same_things_again_and_another_one_others() {
        let of = |seed| plan(&mut Dice::new(seed), Duration::from_secs(60));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn everything_is_broken_in_some_run_and_several_things_at_once() {
        let strikes: Vec<_> =
            (0..20).flat_map(|seed| plan(&mut Dice::new(seed), Duration::from_secs(30))).collect();
        let kinds: HashSet<_> = strikes.iter().map(|strike| std::mem::discriminant(&strike.blow)).collect();
        assert_eq!(kinds.len(), 8);
        assert!(strikes.windows(3).any(|some| some[0].at == some[2].at));
        assert!(strikes.iter().all(|strike| strike.at < Duration::from_secs(30)));
    }
}
