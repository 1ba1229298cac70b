//! A connection that goes to another node, and one that comes from there: the shard's side of each step in `recovery.rs`.

use std::collections::HashSet;
use std::sync::Arc;

use smallvec::SmallVec;
use tieline_proto::presence::Details;
use tieline_proto::role::Roles;
use tieline_proto::{CloseCode, ConnectionId, GroupName, HubName, Position, UserId};
use tieline_switchboard::{Address, Mark, Numbered, Shard, Slot};

use super::{Operator, Shown};
use crate::acks::AckWindow;
use crate::hub::Hub;
use crate::inbox::Inbox;
use crate::limits::Bucket;
use crate::logs::Reader;
use crate::recovery::{Frame, Given, Group, Head, PAGE, Page, Place, Progress, Rest, roles};
use crate::session::{GONE, SETTLING, Session};
use crate::store::LogKey;
use crate::subprotocol::Subprotocol;

/// What the client of a socket is told whose connection goes to another node.
pub(super) const TAKEN: &str = "The connection was recovered at another node.";

impl Operator {
    // ---- the old node ----

    fn reliable(&self, shard: &Shard<Self>, id: ConnectionId) -> Option<Slot> {
        let slot = shard.find(self.node.settlers().find(id).or_else(|| self.node.first_address(id))?)?;
        let session = shard.session(slot)?;
        let is_it = session.id == id && session.greeted && session.subprotocol == Subprotocol::AzureReliable;
        is_it.then_some(slot)
    }

    /// The logs of a connection's groups.
    pub(crate) fn logs_of(&self, shard: &Shard<Self>, id: ConnectionId) -> Option<Vec<LogKey>> {
        let session = shard.session(self.reliable(shard, id)?)?;
        let names = session.groups.iter().filter_map(|group| group.name());
        let kept = names.filter(|name| self.node.keeps_group(name));
        Some(kept.map(|name| LogKey::Group(session.hub.name().clone(), name.clone())).collect())
    }

    /// Takes a connection's socket away and describes it. `ends` is where logs were before this, which counts where nothing of
    /// them was delivered here.
    pub(crate) fn give_head(
        &mut self,
        shard: &mut Shard<Self>,
        id: ConnectionId,
        hub: &HubName,
        taking: u64,
        ends: &[(LogKey, Position)],
    ) -> Option<Given> {
        let slot = self.reliable(shard, id)?;
        if shard.session(slot)?.taking == SETTLING {
            return Some(Given::Later);
        }
        if shard.session(slot)?.hub.name() != hub || !shard.unplug(self, slot) {
            return None;
        }
        let (base, end) = shard.held(slot)?;
        let session = shard.session_mut(slot)?;
        session.taking = taking;
        let at = |group: &Arc<crate::hub::Group>, name: &GroupName| {
            let is_it = |(log, _): &&(LogKey, Position)| matches!(log, LogKey::Group(_, of) if of == name);
            self.ends.of(group).or_else(|| ends.iter().find(is_it).map(|(_, at)| *at))
        };
        let groups = session.groups.iter().filter_map(|group| {
            let name = group.name()?;
            let at = if self.node.keeps_group(name) { at(group, name) } else { None };
            Some(Group { name: name.clone(), at })
        });
        let inbox = session.inbox.as_ref().map(|inbox| Place {
            at: inbox.at,
            has_given: inbox.has_given,
            is_open: inbox.is_open,
            device: inbox.reader.device.as_deref().map(str::to_owned),
            marks: inbox.marks().collect(),
        });
        let (user, roles) = (session.user.clone(), roles(&session.roles));
        let device = session.login.as_ref().map(|login| login.place.device.to_string());
        let details = session.details().cloned();
        Some(Given::Head(Head {
            taking,
            user,
            device,
            details,
            roles,
            groups: groups.collect(),
            inbox,
            base,
            end,
        }))
    }

    fn taken(&self, shard: &Shard<Self>, id: ConnectionId, taking: u64) -> Option<Slot> {
        let slot = self.reliable(shard, id)?;
        (taking != 0 && taking != SETTLING && shard.session(slot)?.taking == taking).then_some(slot)
    }

    /// Some of a connection's frames.
    pub(crate) fn give_page(
        &self,
        shard: &Shard<Self>,
        id: ConnectionId,
        taking: u64,
        from: u64,
    ) -> Option<Given> {
        self.taken(shard, id, taking).map(|slot| Given::Page(page(shard, slot, from)))
    }

    /// The last of them, and the end of the connection here.
    pub(crate) fn let_go(
        &mut self,
        shard: &mut Shard<Self>,
        id: ConnectionId,
        taking: u64,
        from: u64,
    ) -> Option<Given> {
        let slot = self.taken(shard, id, taking)?;
        let page = page(shard, slot, from);
        if !page.is_all {
            return Some(Given::Page(page));
        }
        let session = shard.session_mut(slot)?;
        session.taking = GONE;
        let rest = Rest {
            page,
            roles: roles(&session.roles),
            groups: session.groups.iter().filter_map(|group| group.name().cloned()).collect(),
            acks: session.acks.intervals().to_vec(),
            state: session.state.as_deref().cloned(),
            known: session.progress.as_ref().map(|progress| progress.known.clone()),
        };
        shard.close(slot, CloseCode::PolicyViolation.code(), TAKEN);
        Some(Given::Rest(rest))
    }

    // ---- the new node ----

    /// Puts a connection in place: it is in the tables of this node, in its groups that have no log, and without a socket.
    #[expect(clippy::too_many_arguments, reason = "they are what a connection is")]
    pub(crate) fn settle_down(
        &mut self,
        shard: &mut Shard<Self>,
        id: ConnectionId,
        hub: &Arc<Hub>,
        user: Option<UserId>,
        roles: Arc<Roles>,
        live: Vec<GroupName>,
        inbox: Option<Place>,
        device: Option<String>,
        details: Option<Details>,
    ) -> Option<Address> {
        let (name, subprotocol) = (hub.name().clone(), Subprotocol::AzureReliable);
        let (_, claim) = self.hold_all(&name, user.as_ref(), &live);
        let (_, login) = self.log_in(&name, user.as_ref(), device.as_deref());
        let keeps_inboxes = self.node.keeps_inboxes();
        let inbox = user.as_ref().zip(inbox).filter(|_| keeps_inboxes).map(|(user, place)| {
            let device = place.device.map(Arc::from);
            let reader = Reader::of_inbox(name.clone(), user.clone(), device);
            let mut inbox = Inbox::new(reader, place.at, subprotocol);
            inbox.has_given = place.has_given;
            Box::new(inbox)
        });
        let session = Session {
            id,
            hub: Arc::clone(hub),
            user: user.clone(),
            roles,
            subprotocol,
            groups: SmallVec::new(),
            expires: 0,
            claim,
            login: login.clone(),
            leaving: false,
            greeted: true,
            approved: false,
            state: None,
            faults: 0,
            bucket: Bucket::default(),
            acks: AckWindow::default(),
            inbox,
            memberships: None,
            shown: Shown::new(details.filter(|_| self.node.presence().is_on())),
            taking: SETTLING,
            progress: None,
        };
        let Some(slot) = shard.plant(session, subprotocol.format(0)) else {
            live.iter().for_each(|group| self.release(&name, group));
            user.iter().for_each(|user| self.release_user(&name, user, claim));
            self.log_out(&name, login.as_deref());
            return None;
        };
        let address = shard.address(slot);
        self.node.settlers().add(id, address);
        if let Some(cluster) = self.node.cluster() {
            cluster.hold_connection(&name, id);
        }
        if let Some(user) = &user {
            hub.add_user(user, address);
        }
        hub.everyone().enter(self.shard);
        shard.join(slot, hub.everyone().id());
        if let Some(session) = shard.session(slot) {
            self.appear(session, None);
        }
        for group in &live {
            self.admit(shard, slot, group);
        }
        Some(address)
    }

    /// States a group that a connection is about to enter.
    pub(crate) fn state_group(&self, hub: &HubName, group: &GroupName) {
        self.hold(hub, group);
    }

    /// Gives a connection what it had. Returns whether it is there.
    #[expect(clippy::too_many_arguments, reason = "they are what a connection has")]
    pub(crate) fn fill(
        &mut self,
        shard: &mut Shard<Self>,
        address: Address,
        base: u64,
        frames: &[Numbered],
        known: &HashSet<Mark>,
        roles: Arc<Roles>,
        marks: Vec<(u64, Position)>,
        rest: &Rest,
    ) -> bool {
        let Some(slot) = shard.find(address) else { return false };
        shard.refill(slot, base, frames, known);
        shard.settle(self);
        let last = shard.last_sequence(slot).unwrap_or_default();
        let checkpoints = self.node.checkpoints().cloned();
        let Some(session) = shard.find(address).and_then(|slot| shard.session_mut(slot)) else {
            return false;
        };
        session.taking = 0;
        session.state = rest.state.clone().map(Arc::new);
        let is_waiting = session.inbox.as_mut().is_some_and(|inbox| {
            inbox.renumber(marks, last);
            !inbox.is_open
        });
        session.roles = roles;
        session.acks = AckWindow::of(&rest.acks);
        if let Some(checkpoints) = checkpoints {
            checkpoints.begin();
            let known = rest.known.clone();
            session.progress = Some(Box::new(known.map_or_else(Progress::new, Progress::of)));
        }
        // Memberships may have been changed from outside while it moved.
        let left: Vec<GroupName> = session
            .groups
            .iter()
            .filter_map(|group| group.name())
            .filter(|name| !rest.groups.contains(name))
            .cloned()
            .collect();
        for name in &left {
            self.exit(shard, slot, name);
        }
        for name in &rest.groups {
            self.enter(shard, slot, name);
        }
        self.settle_memberships(shard, slot, last);
        self.enlist(shard, slot);
        if is_waiting {
            // It was not given all that is kept before it moved.
            self.open_inbox_by_itself(shard, slot);
        }
        // The place of its user may have been taken meanwhile.
        self.take_place(shard, slot);
        true
    }

    /// Ends a connection that could not be brought here whole.
    pub(crate) fn evict(&mut self, shard: &mut Shard<Self>, address: Address) {
        if let Some(slot) = shard.find(address) {
            shard.close(slot, CloseCode::PolicyViolation.code(), CloseCode::PolicyViolation.text());
        }
    }

    /// A connection has ended that was one from elsewhere, perhaps.
    pub(super) fn forget_settler(&self, session: &Session, address: Address) {
        if self.node.is_settler(session.id, address) {
            self.node.settlers().remove(session.id, address);
            if let Some(cluster) = self.node.cluster() {
                cluster.release_connection(session.hub.name(), session.id);
            }
        }
    }
}

fn page(shard: &Shard<Operator>, slot: Slot, from: u64) -> Page {
    let (frames, is_all) = shard.frames(slot, from, PAGE);
    Page { frames: frames.iter().map(Frame::from).collect(), is_all }
}
