//! Enrolling: users become stored members of groups, and are members no longer; and counting those of them who are offline
//! when a message comes. The records are those of `logs/audience.rs`; here is the clerk's side, which never waits for them.
//! Tested by the sessions' tests.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tieline_proto::{GroupName, HubName, MessageId, Position, UserId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::audience::{Audience, Membership};
use super::clerk::{Clerk, Request, Told};
use super::{KeepError, Logs, Reader};
use crate::delivery::{Outcome, Receipt};
use crate::events::Queued;
use crate::hub::Hub;
use crate::store::{LogKey, Refusal, StoreError};

/// How long somebody outside the shards waits for records.
const PATIENCE: Duration = Duration::from_secs(5);

/// How old a list of a group's members may be by which those who are offline are counted.
const FRESH: Duration = Duration::from_secs(5);

/// How old it may be for the bound of members; then it is forgotten.
const KNOWN: Duration = Duration::from_secs(60);

/// Counting takes at most one part in so many of the clerk's time: who is offline in a large group is looked up less often.
const SHARE: u32 = 20;

/// More than it takes to look whether one member is offline: a clerk that stood still while it counted has not counted for so long.
const LOOK: Duration = Duration::from_micros(10);

/// Messages of one group that wait for its list. Of more the numbers are not known, and nobody is told.
const MOST_UNCOUNTED: usize = 4096;

/// What is to be done about a user's stored memberships.
#[derive(Clone, Debug)]
pub(crate) struct Enrolment {
    /// The hub.
    pub(crate) hub: HubName,
    /// Whose.
    pub(crate) user: UserId,
    /// What.
    pub(crate) wish: Wish,
}

/// See [`Enrolment`].
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// To be a member of this group.
    Join(GroupName),
    /// Not to be one any more.
    Leave(GroupName),
    /// To be one of no group.
    LeaveAll,
    /// To be a member of these, and to know of all.
    List(Vec<GroupName>),
}

/// What became of an [`Enrolment`].
pub(super) struct Enrolled {
    /// Those that were made, found or listed.
    pub(super) memberships: Vec<Membership>,
    /// Whether the one that was wished for is new.
    pub(super) is_new: bool,
    /// Groups that were left.
    left: Vec<GroupName>,
}

/// Who waits for an [`Enrolment`].
pub(super) enum Asked {
    /// A connection that is entering.
    Entrant(u64),
    /// Somebody outside the shards.
    Waiter(oneshot::Sender<Result<(), KeepError>>),
}

/// The members of a group as they were listed.
struct Roll {
    members: HashSet<UserId>,
    listed: Instant,
    /// Those of them who were offline, when that was looked up, and how long that took.
    offline: Option<(Arc<[UserId]>, Instant, Duration)>,
}

/// A message of a group with stored members, until those who are offline are counted.
pub(super) struct Uncounted {
    pub(super) hub: Arc<Hub>,
    pub(super) message: MessageId,
    pub(super) position: Position,
    pub(super) from: Option<UserId>,
    /// Whom it is for, where it is not for all.
    pub(super) users: Vec<UserId>,
    /// Who wants to know how many. It waits for one more answer.
    pub(super) receipt: Option<Arc<Receipt>>,
}

/// The lists of members that are known here.
#[derive(Default)]
pub(super) struct Rolls {
    known: HashMap<LogKey, Roll>,
    /// Messages that wait for a list, which the store was asked for.
    waiting: HashMap<LogKey, Vec<Uncounted>>,
}

impl Logs {
    /// Makes a user, who may be offline, a member of those of the groups whose members are stored.
    ///
    /// # Errors
    /// Why the user is not one, or why nobody knows.
    pub async fn join_user(
        &self,
        hub: &HubName,
        user: &UserId,
        groups: &[GroupName],
    ) -> Result<(), KeepError> {
        for group in groups.iter().filter(|group| self.rules.stores_members(group)) {
            self.enrol(hub, user, Wish::Join(group.clone())).await?;
        }
        Ok(())
    }

    /// Ends such memberships: that of one group, or all.
    ///
    /// # Errors
    /// Why the user is still a member, or why nobody knows.
    pub async fn leave_user(
        &self,
        hub: &HubName,
        user: &UserId,
        group: Option<&GroupName>,
    ) -> Result<(), KeepError> {
        match group {
            Some(group) if self.rules.stores_members(group) => {
                self.enrol(hub, user, Wish::Leave(group.clone())).await
            }
            None if self.rules.store_any_members() => self.enrol(hub, user, Wish::LeaveAll).await,
            _ => Ok(()),
        }
    }

    async fn enrol(&self, hub: &HubName, user: &UserId, wish: Wish) -> Result<(), KeepError> {
        let (sender, receiver) = oneshot::channel();
        let enrolment = Enrolment { hub: hub.clone(), user: user.clone(), wish };
        let full = || KeepError::Store(Refusal::QueueFull.into());
        let request = Request::Enrol(Box::new(enrolment), sender);
        self.requests.try_send(request).map_err(|_| full())?;
        let unknown = |_| KeepError::Store(StoreError::Unknown("it does not answer".into()));
        tokio::time::timeout(PATIENCE, receiver).await.map_err(unknown)?.map_err(|_| full())?
    }

    /// A connection is to enter a group's log no longer.
    pub(crate) fn stop_entering(&self, address: tieline_switchboard::Address, log: LogKey) {
        // It goes on until it is in, and then finds that it is not to be.
        let _ = self.requests.try_send(Request::StopEntering(address, log));
    }
}

impl Clerk {
    /// Asks the store what an enrolment needs.
    ///
    /// # Errors
    /// When there is no store that may be asked.
    pub(super) fn enrol(&mut self, enrolment: Enrolment, asked: Asked) -> Result<(), (KeepError, Asked)> {
        let engine = match self.logs.usable() {
            Ok(engine) => engine,
            Err(error) => return Err((error, asked)),
        };
        let audience = Audience::new(engine);
        let count = match &enrolment.wish {
            Wish::Join(group) => self.rolls.count(&LogKey::Group(enrolment.hub.clone(), group.clone())),
            _ => None,
        };
        self.asking.push(Box::pin(async move {
            let result = carry_out(&audience, &enrolment, count).await;
            Told::Enrolled(asked, enrolment, result)
        }));
        Ok(())
    }

    /// The store has done what an enrolment needs, or has not.
    pub(super) async fn enrolled(
        &mut self,
        asked: Asked,
        enrolment: Enrolment,
        result: Result<Enrolled, KeepError>,
    ) {
        let Enrolment { hub, user, .. } = enrolment;
        match &result {
            Ok(enrolled) => {
                self.store_answered();
                for membership in &enrolled.memberships {
                    let log = LogKey::Group(hub.clone(), membership.group.clone());
                    self.rolls.add(&log, &user);
                }
                for group in &enrolled.left {
                    let log = LogKey::Group(hub.clone(), group.clone());
                    self.rolls.remove(&log, &user);
                    self.places.forget(&Reader::of_member(hub.clone(), group.clone(), user.clone()));
                }
            }
            Err(KeepError::Store(error)) => self.store_failed(error),
            Err(_) => {}
        }
        match asked {
            // Who asked may have given up.
            Asked::Waiter(waiter) => drop(waiter.send(result.map(drop))),
            Asked::Entrant(number) => self.entrant_enrolled(number, &hub, &user, result).await,
        }
    }

    /// Counts the members of a group that are offline and get a message on return, and tells the application of them.
    pub(super) fn count_offline(&mut self, log: LogKey, uncounted: Uncounted) {
        if self.rolls.known.get(&log).is_some_and(|roll| roll.listed.elapsed() < FRESH) {
            return self.tell_offline(&log, &uncounted);
        }
        let Some(engine) = &self.logs.engine else { return };
        let LogKey::Group(hub, group) = &log else { return };
        let (audience, hub, group) = (Audience::new(engine), hub.clone(), group.clone());
        let waiting = self.rolls.waiting.entry(log.clone()).or_default();
        if waiting.len() < MOST_UNCOUNTED {
            waiting.push(uncounted);
        }
        if waiting.len() == 1 {
            self.asking
                .push(Box::pin(async move { Told::Listed(log, audience.members(&hub, &group).await) }));
        }
    }

    /// The members of a group were listed.
    pub(super) fn listed(&mut self, log: &LogKey, members: Result<Vec<UserId>, StoreError>) {
        let waiting = self.rolls.waiting.remove(log).unwrap_or_default();
        match members {
            Ok(members) => {
                self.store_answered();
                let members = members.into_iter().collect();
                let roll = Roll { members, listed: Instant::now(), offline: None };
                self.rolls.known.insert(log.clone(), roll);
                waiting.iter().for_each(|uncounted| self.tell_offline(log, uncounted));
            }
            // Their numbers are not known.
            Err(error) => self.store_failed(&error),
        }
    }

    fn tell_offline(&mut self, log: &LogKey, uncounted: &Uncounted) {
        let Some(roll) = self.rolls.known.get_mut(log) else { return };
        let is_due = |(_, since, took): &(Arc<[UserId]>, Instant, Duration)| since.elapsed() >= *took * SHARE;
        if roll.offline.as_ref().is_none_or(is_due) {
            let began = Instant::now();
            let is_offline = |user: &&UserId| self.node.is_offline(&uncounted.hub, user);
            let offline: Arc<[UserId]> = roll.members.iter().filter(is_offline).cloned().collect();
            let took = began.elapsed().min(LOOK * roll.members.len() as u32);
            roll.offline = Some((offline, began, took));
        }
        let Some((offline, ..)) = &roll.offline else { return };
        let gets_it = |user: &&UserId| uncounted.users.is_empty() || uncounted.users.contains(user);
        let group = if let LogKey::Group(_, group) = log { Some(group.clone()) } else { None };
        let mut queued = 0;
        for user in offline.iter().filter(gets_it) {
            queued += 1;
            if let Some(events) = self.node.events() {
                events.queued(Queued {
                    hub: uncounted.hub.name().clone(),
                    user: user.clone(),
                    group: group.clone(),
                    message: uncounted.message,
                    position: uncounted.position,
                    from: uncounted.from.clone(),
                });
            }
        }
        if let Some(receipt) = &uncounted.receipt {
            self.add(receipt, Outcome { queued, ..Outcome::default() });
        }
    }
}

impl Rolls {
    /// How many members a group has, if that is known.
    fn count(&self, log: &LogKey) -> Option<usize> {
        self.known.get(log).map(|roll| roll.members.len())
    }

    fn add(&mut self, log: &LogKey, user: &UserId) {
        if let Some(roll) = self.known.get_mut(log)
            && roll.members.insert(user.clone())
        {
            roll.offline = None;
        }
    }

    fn remove(&mut self, log: &LogKey, user: &UserId) {
        if let Some(roll) = self.known.get_mut(log)
            && roll.members.remove(user)
        {
            roll.offline = None;
        }
    }

    /// Forgets lists that are old.
    pub(super) fn tend(&mut self) {
        self.known.retain(|_, roll| roll.listed.elapsed() < KNOWN);
    }
}

async fn carry_out(
    audience: &Audience,
    enrolment: &Enrolment,
    count: Option<usize>,
) -> Result<Enrolled, KeepError> {
    let Enrolment { hub, user, wish } = enrolment;
    let mut enrolled = Enrolled { memberships: Vec::new(), is_new: false, left: Vec::new() };
    match wish {
        Wish::Join(group) => {
            let (membership, is_new) = audience.join(hub, user, group, count).await?;
            enrolled.memberships.push(membership);
            enrolled.is_new = is_new;
        }
        Wish::Leave(group) => {
            audience.leave(hub, user, group).await?;
            enrolled.left.push(group.clone());
        }
        Wish::LeaveAll => {
            for Membership { group, .. } in audience.of(hub, user).await? {
                audience.leave(hub, user, &group).await?;
                enrolled.left.push(group);
            }
        }
        Wish::List(groups) => {
            for group in groups {
                match audience.join(hub, user, group, None).await {
                    Ok(_) => {}
                    Err(error @ (KeepError::TooManyGroups | KeepError::TooManyMembers)) => {
                        tracing::debug!(%hub, %user, %group, %error, "A token's group was not joined.");
                    }
                    Err(error) => return Err(error),
                }
            }
            enrolled.memberships = audience.of(hub, user).await?;
        }
    }
    Ok(enrolled)
}
