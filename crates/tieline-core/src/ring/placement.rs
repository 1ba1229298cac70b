//! [`Placement`]: what the nodes of a cluster agree on about where connections belong. Tested here.

use std::fmt;
use std::str::FromStr;

use super::RingHash;

/// Where connections of users belong. All nodes of a cluster have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Wherever they are: nobody is moved.
    #[default]
    None,
    /// With the owner of their user on the ring of this hash.
    Ring(RingHash),
}

/// A placement that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a placement is one of none, ring, ring:md5, ring:fnv")]
pub struct UnknownPlacement;

impl Placement {
    /// All of them.
    pub const ALL: [Placement; 4] = [
        Placement::None,
        Placement::Ring(RingHash::Tieline),
        Placement::Ring(RingHash::Md5),
        Placement::Ring(RingHash::Fnv),
    ];

    /// As it stands in a configuration, and as nodes tell each other.
    pub fn name(self) -> &'static str {
        match self {
            Placement::None => "none",
            Placement::Ring(RingHash::Tieline) => "ring",
            Placement::Ring(RingHash::Md5) => "ring:md5",
            Placement::Ring(RingHash::Fnv) => "ring:fnv",
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Placement {
    type Err = UnknownPlacement;

    fn from_str(text: &str) -> Result<Self, UnknownPlacement> {
        if text == "ring:tieline" {
            return Ok(Placement::Ring(RingHash::Tieline));
        }
        Placement::ALL.into_iter().find(|placement| placement.name() == text).ok_or(UnknownPlacement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_are_read_as_they_are_written() {
        for placement in Placement::ALL {
            assert_eq!(placement.to_string().parse(), Ok(placement));
        }
        assert_eq!("ring:tieline".parse(), Ok(Placement::Ring(RingHash::Tieline)));
        for text in ["", "Ring", "ring:", "ring:sha", "md5"] {
            assert_eq!(text.parse::<Placement>(), Err(UnknownPlacement));
        }
        // Every hash can be chosen.
        for hash in RingHash::ALL {
            assert!(Placement::ALL.contains(&Placement::Ring(hash)));
        }
    }
}
