//! [`RingHash`]: how names become points of a ring.
//!
//! The first is tieline's own. The other two are those of systems that people come from: with one of them, and nodes that
//! have the names they had there, every user stays on the node where that system had it. Their vectors stand in
//! `ring/tests.rs`.

use std::fmt;
use std::str::FromStr;

use md5::{Digest, Md5};

/// Points of a node for each unit of its weight.
const POINTS: u32 = 160;

/// The same with [`RingHash::Md5`].
const MD5_POINTS: u32 = 10;

/// The same with [`RingHash::Fnv`], beside the one of the name itself.
const FNV_POINTS: u32 = 100;

/// How names become points of a ring. All nodes and gateways of a cluster use the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingHash {
    /// FNV-1a of 64 bits over the bytes of the name, then the finalizer of MurmurHash3, which spreads names that differ in
    /// their last byte alone. 160 points for each unit of weight, of `{node}#{n}`.
    #[default]
    Tieline,
    /// The first four bytes of MD5, the highest first; 10 points for each unit of weight, of `{node}-{n}`.
    Md5,
    /// FNV-1a of 32 bits over the UTF-16 units of the name, with five more shifts and sums, as a positive number; 100 points
    /// for each unit of weight, of `{node}&&VN{n}`, and one of the node's name. A user whose hash is that of a point belongs
    /// to the next one.
    Fnv,
}

/// A hash that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ring's hash is one of tieline, md5, fnv")]
pub struct UnknownHash;

impl RingHash {
    /// All of them.
    pub const ALL: [RingHash; 3] = [RingHash::Tieline, RingHash::Md5, RingHash::Fnv];

    /// As it stands in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            RingHash::Tieline => "tieline",
            RingHash::Md5 => "md5",
            RingHash::Fnv => "fnv",
        }
    }

    /// The hash of a user.
    pub(super) fn user(self, name: &str) -> u64 {
        match self {
            RingHash::Tieline => spread(name),
            RingHash::Md5 => u64::from(md5_head(name)),
            RingHash::Fnv => u64::from(shifted_fnv(name)),
        }
    }

    /// The points of a node. More weight adds points, and leaves those that less weight has.
    pub(super) fn points(self, node: &str, weight: u32, mut take: impl FnMut(u64)) {
        for n in 0..weight * self.points_a_unit() {
            take(self.user(&match self {
                RingHash::Tieline => format!("{node}#{n}"),
                RingHash::Md5 => format!("{node}-{n}"),
                RingHash::Fnv => format!("{node}&&VN{n}"),
            }));
        }
        if self == RingHash::Fnv && weight > 0 {
            take(self.user(node));
        }
    }

    fn points_a_unit(self) -> u32 {
        match self {
            RingHash::Tieline => POINTS,
            RingHash::Md5 => MD5_POINTS,
            RingHash::Fnv => FNV_POINTS,
        }
    }

    /// Whether a point equal to the user's hash is passed over.
    pub(super) fn is_strict(self) -> bool {
        self == RingHash::Fnv
    }
}

impl fmt::Display for RingHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RingHash {
    type Err = UnknownHash;

    fn from_str(text: &str) -> Result<Self, UnknownHash> {
        RingHash::ALL.into_iter().find(|hash| hash.name() == text).ok_or(UnknownHash)
    }
}

/// FNV-1a of 64 bits, and MurmurHash3's `fmix64`.
fn spread(name: &str) -> u64 {
    let fnv = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut hash = (fnv ^ fnv >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

fn md5_head(name: &str) -> u32 {
    let [a, b, c, d, ..] = Md5::digest(name).0;
    u32::from_be_bytes([a, b, c, d])
}

/// The arithmetic is that of signed 32-bit integers, whose shifts to the right keep the sign.
fn shifted_fnv(name: &str) -> u32 {
    let mut hash = 0x811c_9dc5_u32.cast_signed();
    for unit in name.encode_utf16() {
        hash = (hash ^ i32::from(unit)).wrapping_mul(0x0100_0193);
    }
    hash = hash.wrapping_add(hash << 13);
    hash ^= hash >> 7;
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 17;
    hash = hash.wrapping_add(hash << 5);
    // There the smallest integer stays negative, and whoever has that hash has no node. Here it is the largest.
    hash.unsigned_abs()
}
