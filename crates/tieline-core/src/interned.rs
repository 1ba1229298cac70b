//! Sets of roles, each kept once: a million connections have a handful of different ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tieline_proto::role::Roles;

/// Entries above which dead ones are looked for; doubled when most are alive.
const FIRST_SWEEP: usize = 64;

/// The sets of roles in use.
#[derive(Debug, Default)]
pub(crate) struct InternedRoles(Mutex<Table>);

#[derive(Debug)]
struct Table {
    known: HashMap<Roles, Weak<Roles>>,
    sweep_at: usize,
}

impl Default for Table {
    fn default() -> Self {
        Table { known: HashMap::new(), sweep_at: FIRST_SWEEP }
    }
}

impl InternedRoles {
    /// The shared copy of an equal set. The table forgets sets that nobody holds, so it is bounded by twice those
    /// in use.
    pub(crate) fn share(&self, roles: Roles) -> Arc<Roles> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = table.known.get(&roles).and_then(Weak::upgrade) {
            return shared;
        }
        if table.known.len() >= table.sweep_at {
            table.known.retain(|_, shared| shared.strong_count() > 0);
            table.sweep_at = (table.known.len() * 2).max(FIRST_SWEEP);
        }
        let shared = Arc::new(roles.clone());
        table.known.insert(roles, Arc::downgrade(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_one_and_dead_ones_are_forgotten() {
        let roles = InternedRoles::default();
        let (a, b) = (roles.share(Roles::everything()), roles.share(Roles::everything()));
        assert!(Arc::ptr_eq(&a, &b));
        for n in 0..10_000 {
            roles.share(Roles::parse([format!("webpubsub.sendToGroup.{n}")]));
        }
        assert!(roles.0.lock().unwrap().known.len() <= FIRST_SWEEP);
        assert!(Arc::ptr_eq(&a, &roles.share(Roles::everything())));
    }
}
