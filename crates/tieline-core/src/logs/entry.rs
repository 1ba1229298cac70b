//! [`Entry`]: a message of a log, with what of its targets the log's name does not say, and the bytes that a store keeps
//! of it. Tested here.

use std::sync::Arc;

use smallvec::SmallVec;
use tieline_proto::envelope::{self, EnvelopeError};
use tieline_proto::filter::Filter;
use tieline_proto::{ConnectionId, GroupName, HubName, MessageId, Payload, Position, UserId};

use super::feed::Item;
use crate::delivery::{Delivery, Receipt, Target};
use crate::hub::Hub;
use crate::message::{Message, Way};
use crate::store::LogKey;

/// A message of a log. A clone is the same.
#[derive(Clone)]
pub struct Entry(Arc<Inner>);

struct Inner {
    id: MessageId,
    /// None where the store's bytes could not be read: then its place is passed over.
    message: Option<Arc<Message>>,
    except: SmallVec<[ConnectionId; 1]>,
    users: Vec<UserId>,
    filter: Option<Arc<Filter>>,
    receipt: Option<Arc<Receipt>>,
}

impl Item for Entry {
    fn id(&self) -> MessageId {
        self.0.id
    }

    fn bytes(&self) -> usize {
        let names = |message: &Message| {
            let way = match &message.way {
                Way::Group(name) => name.len(),
                Way::User(name) => name.len(),
                Way::Server => 0,
            };
            way + message.from_user.as_ref().map_or(0, |user| user.len())
        };
        256 + self.0.message.as_ref().map_or(0, |message| message.payload.len() + names(message))
    }
}

impl Entry {
    /// The message of a delivery, which its log has.
    pub(crate) fn of_delivery(delivery: &Delivery) -> Self {
        Entry(Arc::new(Inner {
            id: delivery.message.id,
            message: Some(Arc::clone(&delivery.message)),
            except: delivery.except.clone(),
            users: delivery.users.clone(),
            filter: delivery.filter.clone(),
            receipt: delivery.receipt.clone(),
        }))
    }

    /// What a store gives back.
    pub(crate) fn of_log(id: MessageId, position: Position, body: &[u8]) -> Self {
        read(position, body).unwrap_or_else(|error| {
            tracing::error!(%id, ?position, %error, "A stored message cannot be read; it is passed over.");
            let (except, users) = (SmallVec::new(), Vec::new());
            Entry(Arc::new(Inner { id, message: None, except, users, filter: None, receipt: None }))
        })
    }

    /// Who waits to hear of it.
    pub(crate) fn receipt(&self) -> Option<&Arc<Receipt>> {
        self.0.receipt.as_ref()
    }

    /// The message; none when it cannot be read.
    pub(crate) fn message(&self) -> Option<&Arc<Message>> {
        self.0.message.as_ref()
    }

    /// Its message to the targets of its log, or to one connection; none when it cannot be read.
    pub(crate) fn delivery(&self, hub: &Arc<Hub>, to: Target, with_receipt: bool) -> Option<Delivery> {
        let message = Arc::clone(self.0.message.as_ref()?);
        Some(Delivery {
            hub: Arc::clone(hub),
            message,
            to: SmallVec::from_iter([to]),
            newest: None,
            handed_on: false,
            except: self.0.except.clone(),
            users: self.0.users.clone(),
            filter: self.0.filter.clone(),
            receipt: self.0.receipt.clone().filter(|_| with_receipt),
        })
    }
}

/// What a store keeps of a delivery, as this message.
pub(crate) fn body(delivery: &Delivery, message: &Message) -> Vec<u8> {
    let data = message.payload.as_data();
    envelope::Message {
        hub: delivery.hub.name(),
        way: message.way.borrow(),
        from_user: message.from_user.as_deref(),
        id: message.id,
        time_ms: message.time_ms,
        data_type: data.data_type(),
        json: data.json(),
        // The log says whom it is for.
        everyone: false,
        groups: Vec::new(),
        users: Vec::new(),
        newest: Vec::new(),
        handed_on: false,
        connections: Vec::new(),
        except: delivery.except.to_vec(),
        only_users: delivery.users.iter().map(UserId::as_str).collect(),
        filter: delivery.filter.as_ref().map(|filter| filter.source()),
        receipt: 0,
        position: None,
    }
    .to_log()
}

fn read(position: Position, body: &[u8]) -> Result<Entry, EnvelopeError> {
    let malformed = |_| EnvelopeError::Malformed;
    let kept = envelope::Message::of_log(body)?;
    let way = Way::of(kept.way).ok_or(EnvelopeError::Malformed)?;
    let payload = Payload::from_parts(kept.data_type, kept.json).map_err(|_| EnvelopeError::Malformed)?;
    let from_user = kept.from_user.map(UserId::new).transpose().map_err(malformed)?;
    let filter = kept.filter.map(Filter::parse).transpose().map_err(|_| EnvelopeError::Malformed)?;
    let users = kept.only_users.iter().map(|user| UserId::new(user)).collect::<Result<_, _>>();
    Ok(Entry(Arc::new(Inner {
        id: kept.id,
        message: Some(Message::kept(way, from_user, kept.id, kept.time_ms, payload, position)),
        except: kept.except.into_iter().collect(),
        users: users.map_err(malformed)?,
        filter: filter.map(Arc::new),
        receipt: None,
    })))
}

/// Whom the messages of a log are for, on each node.
pub(crate) fn target(log: &LogKey) -> (&HubName, Target) {
    match log {
        LogKey::Group(hub, group) => (hub, Target::Group(group.clone())),
        LogKey::Inbox(hub, user) => (hub, Target::User(user.clone())),
        LogKey::Events(..) => unreachable!("events are for the application, and no clerk follows them"),
    }
}

/// The log of a target, if it could have one.
pub(crate) fn log_of(hub: &HubName, target: &Target) -> Option<LogKey> {
    match target {
        Target::Group(group) => Some(LogKey::Group(hub.clone(), GroupName::clone(group))),
        Target::User(user) => Some(LogKey::Inbox(hub.clone(), user.clone())),
        Target::Everyone | Target::Connection(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use tieline_proto::Incarnation;
    use tieline_proto::payload::DataType;

    use super::*;
    use crate::hub::LocalHubs;

    const AT: Position = Position { epoch: 3, offset: 4 };

    fn delivery() -> Delivery {
        let hub = LocalHubs::new(1).get_or_make(&HubName::new("hub").unwrap());
        let group = GroupName::new("room").unwrap();
        let payload = Payload::from_parts(DataType::Json, "{\"a\":1}").unwrap();
        let user = UserId::new("alice").unwrap();
        let id = MessageId::new(1_700_000_000_000, 7);
        Delivery {
            hub,
            message: Message::new(Way::Group(group.clone()), Some(user.clone()), id, id.unix_ms(), payload),
            to: SmallVec::from_iter([Target::Group(group)]),
            newest: None,
            handed_on: false,
            except: SmallVec::from_iter([ConnectionId::new(Incarnation(1), 2, 3, 4, 5)]),
            users: vec![user],
            filter: Some(Arc::new(Filter::parse("userId eq 'x'").unwrap())),
            receipt: None,
        }
    }

    #[test]
    fn what_a_store_gives_back_is_what_was_kept() {
        let before = delivery();
        let body = body(&before, &before.message);
        let entry = Entry::of_log(before.message.id, AT, &body);
        let after = entry.delivery(&before.hub, before.to[0].clone(), true).unwrap();
        assert_eq!((after.message.id, after.message.time_ms), (before.message.id, before.message.time_ms));
        assert_eq!(after.message.position, Some(AT));
        assert_eq!(after.message.from_user, before.message.from_user);
        assert_eq!(after.message.payload.as_data().json(), "{\"a\":1}");
        assert_eq!((&after.except, &after.users), (&before.except, &before.users));
        assert_eq!(after.filter.unwrap().source(), "userId eq 'x'");
        assert!(matches!(&after.message.way, Way::Group(group) if group.as_str() == "room"));
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let before = delivery();
        let body = body(&before, &before.message);
        for end in 0..body.len() {
            let entry = Entry::of_log(before.message.id, AT, &body[..end]);
            assert!(entry.delivery(&before.hub, Target::Everyone, true).is_none());
            assert_eq!(entry.id(), before.message.id);
        }
    }
}
