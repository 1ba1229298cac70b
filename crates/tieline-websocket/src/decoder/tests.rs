//! The decoder's own tests.
use super::*;

#[test]
fn an_idle_decoder_is_24_bytes() {
    assert!(size_of::<Decoder>() <= 24, "{} bytes", size_of::<Decoder>());
}
