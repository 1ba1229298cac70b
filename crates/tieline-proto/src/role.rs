//! [`Roles`]: what a connection may do, from its token and from grants at run time.
//!
//! A role names a permission for everything (`webpubsub.sendToGroup`) or for one target
//! (`webpubsub.sendToGroup.room`). Roles that the server does not know are ignored, as tokens may carry the
//! application's own; a role with an empty target is ignored too, never widened. Roles compare and hash by
//! meaning, so that equal sets can be interned and shared.

#[cfg(test)]
mod tests;

use crate::id;

/// Something a connection may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Permission {
    /// To join and leave groups.
    JoinLeaveGroup,
    /// To send to groups.
    SendToGroup,
    /// To send to users.
    SendToUser,
    /// To send to everybody in the hub. Has no target.
    SendToAll,
    /// To see who is in a group, or in the hub.
    Presence,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Permission; 5] = [
        Permission::JoinLeaveGroup,
        Permission::SendToGroup,
        Permission::SendToUser,
        Permission::SendToAll,
        Permission::Presence,
    ];

    /// The role that gives it for everything.
    #[must_use]
    pub const fn role(self) -> &'static str {
        match self {
            Permission::JoinLeaveGroup => "webpubsub.joinLeaveGroup",
            Permission::SendToGroup => "webpubsub.sendToGroup",
            Permission::SendToUser => "tieline.sendToUser",
            Permission::SendToAll => "tieline.sendToAll",
            Permission::Presence => "tieline.presence",
        }
    }

    /// Finds a permission by its name in REST paths, such as `joinLeaveGroup`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Permission> {
        Permission::ALL.into_iter().find(|permission| {
            permission.role().split_once('.').is_some_and(|(_, after_prefix)| after_prefix == name)
        })
    }

    /// Whether a text may be its target.
    fn takes(self, target: &str) -> bool {
        match self {
            Permission::SendToAll => false,
            Permission::SendToUser => id::check_user(target).is_ok(),
            _ => id::check_group(target).is_ok(),
        }
    }
}

/// For which targets a permission is given. The names are sorted and told apart by case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Scope {
    /// For these alone; for none when empty.
    Only(Vec<Box<str>>),
    /// For everything but these, from which it was revoked by name.
    AllBut(Vec<Box<str>>),
}

impl Scope {
    const NONE: Scope = Scope::Only(Vec::new());
    const ALL: Scope = Scope::AllBut(Vec::new());

    fn holds(&self, target: &str) -> bool {
        match self {
            Scope::Only(names) => find(names, target).is_ok(),
            Scope::AllBut(names) => find(names, target).is_err(),
        }
    }

    fn grant(&mut self, target: &str) {
        match self {
            Scope::Only(names) => insert(names, target),
            Scope::AllBut(names) => remove(names, target),
        }
    }

    fn revoke(&mut self, target: &str) {
        match self {
            Scope::Only(names) => remove(names, target),
            Scope::AllBut(names) => insert(names, target),
        }
    }
}

fn find(names: &[Box<str>], name: &str) -> Result<usize, usize> {
    names.binary_search_by(|found| (**found).cmp(name))
}

fn insert(names: &mut Vec<Box<str>>, name: &str) {
    if let Err(place) = find(names, name) {
        names.insert(place, name.into());
    }
}

fn remove(names: &mut Vec<Box<str>>, name: &str) {
    if let Ok(place) = find(names, name) {
        names.remove(place);
    }
}

/// Everything a connection may do. Share it by `Arc`; grants and revokes are rare, and go through
/// `Arc::make_mut`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Roles {
    /// One scope per permission, in the order of [`Permission::ALL`].
    scopes: [Scope; Permission::ALL.len()],
}

impl Default for Roles {
    fn default() -> Self {
        Roles::nothing()
    }
}

impl Roles {
    /// No permission at all: what a token without roles gives. Events need none.
    #[must_use]
    pub const fn nothing() -> Roles {
        Roles { scopes: [Scope::NONE; Permission::ALL.len()] }
    }

    /// Every permission: what anonymous access gives.
    #[must_use]
    pub const fn everything() -> Roles {
        Roles { scopes: [Scope::ALL; Permission::ALL.len()] }
    }

    /// Reads a token's roles. What is no role of ours is ignored.
    #[must_use]
    pub fn parse<I>(roles: I) -> Roles
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut found = Roles::nothing();
        for role in roles {
            found.add(role.as_ref());
        }
        found
    }

    /// Adds one role. False when the server does not know it, or its target breaks the rule for names.
    pub fn add(&mut self, role: &str) -> bool {
        for permission in Permission::ALL {
            let Some(rest) = role.strip_prefix(permission.role()) else { continue };
            if rest.is_empty() {
                self.grant(permission, None);
                return true;
            }
            if let Some(target) = rest.strip_prefix('.') {
                return self.grant(permission, Some(target));
            }
        }
        false
    }

    /// Gives a permission for one target, or for everything. False when the text can be no target of it.
    pub fn grant(&mut self, permission: Permission, target: Option<&str>) -> bool {
        let scope = &mut self.scopes[permission as usize];
        match target {
            None => *scope = Scope::ALL,
            Some(target) if permission.takes(target) => scope.grant(target),
            Some(_) => return false,
        }
        true
    }

    /// Takes a permission back for one target, or for everything. It is gone for that target even where it
    /// was given for everything. False when the text can be no target of it.
    pub fn revoke(&mut self, permission: Permission, target: Option<&str>) -> bool {
        let scope = &mut self.scopes[permission as usize];
        match target {
            None => *scope = Scope::NONE,
            Some(target) if permission.takes(target) => scope.revoke(target),
            Some(_) => return false,
        }
        true
    }

    /// Whether a permission holds: for one target, or, without one, for everything.
    #[must_use]
    pub fn may(&self, permission: Permission, target: Option<&str>) -> bool {
        let scope = &self.scopes[permission as usize];
        match target {
            Some(target) => scope.holds(target),
            None => *scope == Scope::ALL,
        }
    }

    /// Whether a permission is given for everything, and the targets that are exceptions: those that it is given for, or those
    /// that it is not given for.
    pub fn scope(&self, permission: Permission) -> (bool, impl Iterator<Item = &str>) {
        let (is_wide, names) = match &self.scopes[permission as usize] {
            Scope::Only(names) => (false, names),
            Scope::AllBut(names) => (true, names),
        };
        (is_wide, names.iter().map(|name| &**name))
    }

    /// Whether the connection may join and leave the group.
    #[must_use]
    pub fn may_join(&self, group: &str) -> bool {
        self.may(Permission::JoinLeaveGroup, Some(group))
    }

    /// Whether the connection may send to the group.
    #[must_use]
    pub fn may_send_to_group(&self, group: &str) -> bool {
        self.may(Permission::SendToGroup, Some(group))
    }

    /// Whether the connection may send to the user.
    #[must_use]
    pub fn may_send_to_user(&self, user: &str) -> bool {
        self.may(Permission::SendToUser, Some(user))
    }

    /// Whether the connection may send to everybody.
    #[must_use]
    pub fn may_send_to_all(&self) -> bool {
        self.may(Permission::SendToAll, None)
    }

    /// Whether the connection may see who is in the group; without one, who is in the hub.
    #[must_use]
    pub fn may_see_presence(&self, group: Option<&str>) -> bool {
        self.may(Permission::Presence, group)
    }
}
