//! [`ConnectRate`]: how fast one address may open connections.
//!
//! A token bucket per address, in a table of bounded size. Where more addresses than that come within the time in which
//! buckets refill, those that are full again are forgotten first; when none is, the table begins anew, so that an attacker
//! with very many addresses costs memory never, and at worst gives each address one more burst. Tested below, with a clock
//! of its own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::admission::is_loopback;

/// Addresses whose buckets are kept: about 4 MiB.
const MAX_ADDRESSES: usize = 64 * 1024;

/// Limits how fast one address may open connections.
pub struct ConnectRate {
    /// Connections a second on the average; 0 for no limit.
    rate: AtomicU32,
    /// Connections at once.
    burst: AtomicU32,
    /// For each address, what it has spent and when that was reckoned.
    spent: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl ConnectRate {
    /// `rate` connections a second, `burst` at once.
    pub fn new(rate: u32, burst: u32) -> Self {
        ConnectRate { rate: rate.into(), burst: burst.into(), spent: Mutex::default() }
    }

    /// The same for another rate. What an address has spent stays spent.
    pub fn set(&self, rate: u32, burst: u32) {
        self.rate.store(rate, Ordering::Relaxed);
        self.burst.store(burst, Ordering::Relaxed);
    }

    /// Takes one connection of an address, if it has one left.
    pub fn take(&self, address: IpAddr, now: Instant) -> bool {
        let (rate, burst) = (self.rate.load(Ordering::Relaxed), self.burst.load(Ordering::Relaxed));
        if rate == 0 || is_loopback(address) {
            return true;
        }
        let refilled = |spent: f64, since: Instant| {
            (spent - now.saturating_duration_since(since).as_secs_f64() * f64::from(rate)).max(0.0)
        };
        let mut table = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let network = network(address);
        if table.len() >= MAX_ADDRESSES && !table.contains_key(&network) {
            table.retain(|_, (spent, since)| refilled(*spent, *since) > 0.0);
            if table.len() >= MAX_ADDRESSES {
                table.clear();
            }
        }
        let (spent, since) = table.entry(network).or_insert((0.0, now));
        *spent = refilled(*spent, *since);
        *since = now;
        if *spent + 1.0 > f64::from(burst) {
            return false;
        }
        *spent += 1.0;
        true
    }
}

/// What counts as one address: for IPv6 a network of 64 bits, of which one host has as many addresses as it likes.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn address_number(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_burst_then_the_average_for_each_address() {
        let rate = ConnectRate::new(2, 5);
        let start = Instant::now();
        let taken = |from: &str, at: u64| {
            let now = start + Duration::from_millis(at);
            (0..100).take_while(|_| rate.take(address(from), now)).count()
        };
        assert_eq!(taken("192.0.2.1", 0), 5);
        assert_eq!(taken("192.0.2.2", 0), 5, "another address has its own");
        assert_eq!(taken("192.0.2.1", 499), 0);
        assert_eq!(taken("192.0.2.1", 1500), 3);
        assert_eq!(taken("192.0.2.1", 3_600_000), 5);
        assert_eq!(taken("::ffff:192.0.2.1", 3_600_000), 0, "the same address, otherwise written");
        assert_eq!(taken("2001:db8::1", 0), 5);
        assert_eq!(taken("2001:db8::ffff:2", 0), 0, "the same network");
        assert_eq!(taken("2001:db8:0:1::1", 0), 5);
    }

    #[test]
    fn another_rate_holds_at_once() {
        let rate = ConnectRate::new(1, 1);
        let now = Instant::now();
        let from = address("192.0.2.1");
        assert!(rate.take(from, now) && !rate.take(from, now));
        rate.set(1, 3);
        assert!(rate.take(from, now) && rate.take(from, now) && !rate.take(from, now));
        rate.set(0, 1);
        assert!(rate.take(from, now));
    }

    #[test]
    fn loopback_is_free_and_zero_is_no_limit() {
        let now = Instant::now();
        let rate = ConnectRate::new(1, 1);
        assert!((0..100).all(|_| rate.take(address("127.0.0.1"), now) && rate.take(address("::1"), now)));
        let unlimited = ConnectRate::new(0, 1);
        assert!((0..100).all(|_| unlimited.take(address("192.0.2.1"), now)));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_those_that_spent() {
        let rate = ConnectRate::new(1, 2);
        let start = Instant::now();
        for n in 0..MAX_ADDRESSES as u32 {
            assert!(rate.take(address_number(0x2000_0000 + n), start));
        }
        let late = start + Duration::from_millis(900);
        let busy = address("203.0.113.7");
        assert!(rate.take(busy, late) && rate.take(busy, late) && !rate.take(busy, late));
        // At that time the others are full again, and are forgotten before the busy one is.
        let later = start + Duration::from_millis(1100);
        assert!(rate.take(address_number(0x4000_0000), later));
        assert_eq!(rate.spent.lock().unwrap().len(), 2);
        // Without anything to forget the table begins anew.
        for n in 0..MAX_ADDRESSES as u32 {
            rate.take(address_number(0x3000_0000 + n), later);
            assert!(rate.spent.lock().unwrap().len() <= MAX_ADDRESSES);
        }
    }
}
