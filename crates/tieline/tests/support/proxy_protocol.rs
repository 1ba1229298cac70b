//! Headers of the PROXY protocol, version 2, as a balancer writes them.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of any command and family.
pub(crate) fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

/// What a balancer says when it connects for a client; a TLV follows the addresses.
pub(crate) fn proxied(source: SocketAddr) -> Vec<u8> {
    let ports = [source.port().to_be_bytes(), 80_u16.to_be_bytes()].concat();
    let tlv = [4, 0, 2, 0, 0];
    match source.ip() {
        IpAddr::V4(ip) => header(0x21, 0x11, &[&ip.octets()[..], &[192, 0, 2, 80], &ports, &tlv].concat()),
        IpAddr::V6(ip) => header(0x21, 0x21, &[&ip.octets()[..], &[0xfd; 16], &ports, &tlv].concat()),
    }
}

/// What a balancer says when it connects for itself.
pub(crate) fn local() -> Vec<u8> {
    header(0x20, 0, &[])
}
