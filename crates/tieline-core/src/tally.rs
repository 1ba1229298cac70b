//! What sessions count. Each shard adds to plain integers and publishes a copy each second, for whoever scrapes.

use std::ops::AddAssign;

use tieline_proto::ErrorCode;

macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since the start of a shard.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Tally {
            $($(#[$doc])* pub $name: u64,)*
            /// Errors that clients were answered with, by row of the table of errors.
            pub errors: Errors,
            /// Connections that ended because a newer one took the only place of their user.
            pub displaced: u64,
            /// Connections that were sent to other nodes.
            pub sent_away: u64,
        }

        impl Tally {
            /// Each count with its name.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        impl AddAssign for Tally {
            fn add_assign(&mut self, other: Tally) {
                $(self.$name += other.$name;)*
                self.displaced += other.displaced;
                self.sent_away += other.sent_away;
                for (mine, others) in self.errors.0.iter_mut().zip(other.errors.0) {
                    *mine += others;
                }
            }
        }
    };
}

tally! {
    /// Joins of a group.
    joins,
    /// Ends of a membership asked for by the client.
    leaves,
    /// Messages to a group.
    to_group,
    /// Messages to a user.
    to_user,
    /// Messages to everybody.
    to_all,
    /// Messages to many targets at once.
    to_many,
    /// Events for the application.
    events,
    /// Requests that were carried out before and were sent again.
    duplicates,
    /// Recoveries that were refused.
    recoveries_refused,
}

/// Counts by row of the table of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errors([u64; ErrorCode::ALL.len()]);

impl Default for Errors {
    fn default() -> Self {
        Errors([0; ErrorCode::ALL.len()])
    }
}

impl Errors {
    /// Counts one error.
    pub fn count(&mut self, code: ErrorCode) {
        self.0[code as usize] += 1;
    }

    /// Each error that occurred, with its count.
    pub fn counts(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        ErrorCode::ALL.iter().copied().zip(self.0).filter(|(_, count)| *count > 0)
    }
}
