//! [`owner`]: the node that a user belongs to, computed after what `docs/placement.md` says of the hash `tieline`, and not by the
//! program's own code, which is what the demonstration looks at. Tested here, with the vectors of the program's tests.

/// Points of a node.
const POINTS: u32 = 160;

fn hash(name: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ hash >> 33).wrapping_mul(factor);
    }
    hash ^ hash >> 33
}

/// The owner of each user on the ring of these nodes, which weigh the same, as a place in `nodes`.
pub(super) fn owners(nodes: &[&str], users: &[String]) -> Vec<usize> {
    let mut points: Vec<(u64, &str, usize)> = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        points.extend((0..POINTS).map(|number| (hash(&format!("{node}#{number}")), *node, place)));
    }
    points.sort_unstable();
    let owner = |user: &String| {
        let own = hash(user);
        let next = points.iter().find(|(point, ..)| *point >= own).or(points.first());
        next.expect("a node has points").2
    };
    users.iter().map(owner).collect()
}

#[cfg(test)]
mod tests {
    use super::owners;

    #[test]
    fn users_are_where_the_program_has_them() {
        let users =
            ["1", "2", "3", "4", "5", "6", "7", "8", "100", "alice", "müller", "用户"].map(str::to_owned);
        let found: String =
            owners(&["c", "a", "b"], &users).into_iter().map(|place| ["c", "a", "b"][place]).collect();
        assert_eq!(found, "cbbaaacbcabb");
    }
}
