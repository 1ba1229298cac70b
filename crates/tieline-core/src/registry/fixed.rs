//! [`Fixed`]: the registry that somebody has written down. Its members are there from the beginning and never go; whether they
//! live is for others to find out. Tested below.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tieline_proto::{Incarnation, NodeId, NodeName};
use tokio::sync::watch;

use super::words::{is_client_url, is_peer_url};
use super::{Done, MAX_MEMBERS, MAX_WEIGHT, Member, Registration, Registry, SharedView, View};

/// What a list of nodes begins with.
const SCHEME: &str = "static://";

/// Why a text is no list of nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a list of nodes is `static://NAME=ws://HOST:PORT[;weight=N][;capacity=N][;peer=HOST:PORT],…`: {0}")]
pub struct FixedError(String);

/// Nodes that somebody has written down.
#[derive(Clone, Debug)]
pub struct Fixed {
    /// All of them, by name.
    members: Vec<Member>,
    view: watch::Sender<SharedView>,
}

impl PartialEq for Fixed {
    fn eq(&self, other: &Self) -> bool {
        self.members == other.members
    }
}

impl Fixed {
    /// Reads `static://NAME=ws://HOST:PORT,…`. Behind each address may stand, each after a `;`, `weight=N` (1 to 100, 1 if it is
    /// left out), `capacity=N` (connections) and `peer=HOST:PORT`, where other nodes connect.
    ///
    /// # Errors
    /// [`FixedError`], which says what is wrong with which part.
    pub fn parse(text: &str) -> Result<Self, FixedError> {
        let list =
            text.strip_prefix(SCHEME).ok_or_else(|| FixedError(format!("it begins with `{SCHEME}`")))?;
        let mut members = list.split(',').map(member).collect::<Result<Vec<_>, _>>()?;
        if members.len() > MAX_MEMBERS {
            return Err(FixedError(format!("there are more than {MAX_MEMBERS}")));
        }
        let mut names = HashSet::new();
        if let Some(twice) = members.iter().find(|member| !names.insert(&member.id.name)) {
            return Err(FixedError(format!("`{}` is there twice", twice.id.name)));
        }
        members.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let view = watch::Sender::new(Arc::new(View { members: members.clone(), ..View::default() }));
        Ok(Fixed { members, view })
    }

    /// The list as one of the nodes sees it: without itself.
    #[must_use]
    pub fn seen_by(&self, me: &NodeName) -> Self {
        let others = self.members.iter().filter(|member| member.id.name != *me).cloned().collect();
        let view = View { members: others, ..View::default() };
        Fixed { members: self.members.clone(), view: watch::Sender::new(Arc::new(view)) }
    }

    /// All nodes of the list, by name.
    pub fn members(&self) -> &[Member] {
        &self.members
    }
}

impl fmt::Display for Fixed {
    /// The list as it is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        for (index, Member { id, registration, .. }) in self.members.iter().enumerate() {
            let Registration { client_url, peer_url, weight, capacity, .. } = registration;
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}={client_url}", id.name)?;
            if *weight != 1 {
                write!(f, ";weight={weight}")?;
            }
            if *capacity != 0 {
                write!(f, ";capacity={capacity}")?;
            }
            if let Some(peer) = peer_url.strip_prefix("mesh://") {
                write!(f, ";peer={peer}")?;
            }
        }
        Ok(())
    }
}

fn member(text: &str) -> Result<Member, FixedError> {
    let wrong = |what: &str| FixedError(format!("`{text}`: {what}"));
    let (name, rest) = text.split_once('=').ok_or_else(|| wrong("there is no `NAME=` before its address"))?;
    let name = NodeName::new(name).map_err(|_| wrong("this is no name of a node"))?;
    let mut parts = rest.split(';');
    let client_url = parts.next().unwrap_or_default().to_owned();
    if client_url.is_empty() || !is_client_url(&client_url) {
        return Err(wrong("its address is `ws://HOST:PORT` or `wss://HOST:PORT`, without a path"));
    }
    let mut registration = Registration { client_url, ..Registration::default() };
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key {
            "weight" => {
                let weight = value.parse().ok().filter(|weight| (1..=MAX_WEIGHT).contains(weight));
                registration.weight = weight.ok_or_else(|| wrong("a weight is a number from 1 to 100"))?;
            }
            "capacity" => {
                registration.capacity =
                    value.parse().map_err(|_| wrong("a capacity is a number of connections"))?;
            }
            "peer" => {
                registration.peer_url = format!("mesh://{value}");
                if value.is_empty() || !is_peer_url(&registration.peer_url) {
                    return Err(wrong("where other nodes connect is `HOST:PORT`"));
                }
            }
            _ => return Err(wrong("behind the address come `weight`, `capacity` and `peer`")),
        }
    }
    Ok(Member { id: NodeId { name, incarnation: Incarnation(0) }, registration, is_enabled: true })
}

impl Registry for Fixed {
    /// Says nothing to anybody: the list stands.
    fn register(&self, _: Registration) {}

    fn deregister(&self) -> Done {
        Box::pin(std::future::ready(()))
    }

    fn view(&self) -> watch::Receiver<SharedView> {
        self.view.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_nodes_and_what_they_are() {
        let text =
            "static://b=wss://b.example.com,a=ws://10.0.0.1:7800;weight=2;capacity=1000;peer=[::1]:7900";
        let fixed = Fixed::parse(text).unwrap();
        let view = fixed.view().borrow().clone();
        let names: Vec<&str> = view.members.iter().map(|member| member.id.name.as_str()).collect();
        assert_eq!((names, view.is_degraded), (vec!["a", "b"], false));
        let wanted = Registration {
            client_url: "ws://10.0.0.1:7800".into(),
            peer_url: "mesh://[::1]:7900".into(),
            weight: 2,
            capacity: 1000,
            ..Registration::default()
        };
        assert_eq!(view.members[0].registration, wanted);
        assert_eq!(
            (view.members[1].registration.weight, view.members[1].id.incarnation),
            (1, Incarnation(0))
        );
        let seen = fixed.seen_by(&NodeName::new("a").unwrap());
        seen.register(Registration::default());
        assert_eq!(seen.view().borrow().members, view.members[1..]);
        assert_eq!(seen.members(), view.members);
        assert_eq!(Fixed::parse(&fixed.to_string()), Ok(fixed));
    }

    #[test]
    fn what_is_wrong_is_told_with_the_part_that_is() {
        for (list, what) in [
            ("static://", "`NAME=`"),
            ("static:a=ws://a", "begins with"),
            ("static://ws://a:1", "`NAME=`"),
            ("static://a b=ws://a", "no name"),
            ("static://a=a:1", "its address"),
            ("static://a=", "its address"),
            ("static://a=ws://a/path", "its address"),
            ("static://a=ws://u:p@a", "its address"),
            ("static://a=ws://a;weight=0", "from 1 to 100"),
            ("static://a=ws://a;weight=101", "from 1 to 100"),
            ("static://a=ws://a;capacity=much", "number of connections"),
            ("static://a=ws://a;peer=", "`HOST:PORT`"),
            ("static://a=ws://a;peer=b/c", "`HOST:PORT`"),
            ("static://a=ws://a;size=2", "come `weight`"),
            ("static://a=ws://a,,b=ws://b", "`NAME=`"),
            ("static://a=ws://a,a=ws://b", "twice"),
        ] {
            let error = Fixed::parse(list).unwrap_err().to_string();
            assert!(error.contains(what), "{list}: {error}");
        }
    }
}
