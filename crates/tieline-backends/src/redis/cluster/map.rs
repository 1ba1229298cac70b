//! [`Map`]: which master of a Redis Cluster holds which slots. No I/O. Tested here.

use super::super::resp::Answer;
use crate::crc16::crc16;
use crate::hosts::Host;

/// How many slots a cluster has.
const SLOTS: u16 = 16384;

/// Where a channel belongs. Its name is made of pieces, in which no braces mark a part of it.
pub(super) fn slot(name: &[&[u8]]) -> u16 {
    crc16(name.iter().flat_map(|piece| piece.iter())) % SLOTS
}

/// Who holds what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    /// First and last slot, and their master, in the order of the slots.
    ranges: Vec<(u16, u16, Host)>,
    /// Everybody, to ask for a newer map.
    pub(super) nodes: Vec<Host>,
}

impl Map {
    /// Reads what `CLUSTER SLOTS` answers. A node that does not say where it is, is the one that was `asked`.
    pub(super) fn read(answer: &Answer<'_>, asked: &Host) -> Option<Map> {
        let Answer::Many(rows) = answer else { return None };
        let mut map = Map::default();
        for row in rows {
            let Answer::Many(row) = row else { return None };
            let [Answer::Number(first), Answer::Number(last), servers @ ..] = &row[..] else { return None };
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            let servers = servers.iter().map(|server| host(server, asked)).collect::<Option<Vec<_>>>()?;
            map.ranges.push((first, last, servers.first()?.clone()));
            map.nodes.extend(servers);
        }
        map.ranges.sort();
        map.nodes.sort();
        map.nodes.dedup();
        Some(map)
    }

    /// Who holds a slot.
    pub(super) fn master(&self, slot: u16) -> Option<&Host> {
        let behind = self.ranges.partition_point(|(_, last, _)| *last < slot);
        self.ranges.get(behind).filter(|(first, _, _)| *first <= slot).map(|(_, _, host)| host)
    }

    /// Everybody who holds any, once.
    pub(super) fn masters(&self) -> Vec<&Host> {
        let mut masters: Vec<&Host> = self.ranges.iter().map(|(_, _, host)| host).collect();
        masters.sort();
        masters.dedup();
        masters
    }
}

fn host(server: &Answer<'_>, asked: &Host) -> Option<Host> {
    let Answer::Many(server) = server else { return None };
    let port = match server.get(1)? {
        Answer::Number(port) => u16::try_from(*port).ok()?,
        _ => return None,
    };
    let name = match server.first()? {
        Answer::Text(name) if !name.is_empty() && name != b"?" => String::from_utf8(name.to_vec()).ok()?,
        Answer::Text(_) | Answer::Nothing => asked.name.clone(),
        _ => return None,
    };
    Some(Host { name, port })
}

#[cfg(test)]
mod tests {
    use super::super::super::resp;
    use super::*;

    fn read(text: &str) -> Option<Map> {
        let (answer, _) = resp::answer(text.as_bytes()).unwrap().unwrap();
        Map::read(&answer, &Host { name: "asked".into(), port: 1 })
    }

    #[test]
    fn slots_have_masters() {
        let server = |name: &str, port: u16| {
            format!("*4\r\n${}\r\n{name}\r\n:{port}\r\n$2\r\nid\r\n*0\r\n", name.len())
        };
        let text = format!(
            "*3\r\n*3\r\n:5461\r\n:16383\r\n{}*4\r\n:0\r\n:5459\r\n{}{}*3\r\n:5460\r\n:5460\r\n{}",
            server("", 7),
            server("10.0.0.1", 2),
            server("10.0.0.1", 3),
            server("10.0.0.2", 2)
        );
        let map = read(&text).unwrap();
        let master = |slot| map.master(slot).unwrap().to_string();
        assert_eq!(
            [0, 5459, 5460, 5461, 16383].map(master),
            ["10.0.0.1:2", "10.0.0.1:2", "10.0.0.2:2", "asked:7", "asked:7"]
        );
        assert_eq!(map.masters().len(), 3);
        assert_eq!(map.nodes.len(), 4);
        assert_eq!(slot(&[b"f", b"oo"]), 12182);
    }

    #[test]
    fn a_map_with_holes_says_so() {
        let map = read("*1\r\n*3\r\n:5\r\n:6\r\n*2\r\n$1\r\na\r\n:1\r\n").unwrap();
        assert!(map.master(4).is_none() && map.master(5).is_some() && map.master(7).is_none());
        assert_eq!(read("*0\r\n"), Some(Map::default()));
        for garbage in [
            "+OK\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n*2\r\n:1\r\n:2\r\n",
            "*1\r\n*3\r\n:1\r\n:99999\r\n*2\r\n+a\r\n:1\r\n",
        ] {
            assert_eq!(read(garbage), None, "{garbage}");
        }
    }
}
