//! CRC-16 as XMODEM has it: what a NATS key ends with, and what makes a slot of a channel's name on a Redis Cluster. Tested here.

/// The check of these bytes.
pub(crate) fn crc16<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u16 {
    bytes.into_iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::crc16;

    #[test]
    fn the_check_is_that_of_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
        // As `CLUSTER KEYSLOT foo` answers.
        assert_eq!(crc16(b"foo") % 16384, 12182);
    }
}
