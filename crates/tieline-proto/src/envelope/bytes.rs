//! Integers, texts and lists in bytes. Reading never allocates more than the bytes could hold.

use super::EnvelopeError;
use crate::id::ConnectionId;

/// Appends to a buffer.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// Lengths above four bytes cannot come up: a frame is far smaller.
    fn length(&mut self, length: usize) {
        self.bytes(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.length(text.len());
        self.bytes(text.as_bytes());
    }

    pub(super) fn optional_text(&mut self, text: Option<&str>) {
        self.byte(u8::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }

    pub(super) fn texts(&mut self, texts: &[&str]) {
        self.length(texts.len());
        texts.iter().for_each(|text| self.text(text));
    }

    pub(super) fn ids(&mut self, ids: &[ConnectionId]) {
        self.length(ids.len());
        ids.iter().for_each(|id| self.bytes(&id.to_bytes()));
    }
}

/// Takes from the front of bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], EnvelopeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(EnvelopeError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        self.take(N)?.try_into().map_err(|_| EnvelopeError::Malformed)
    }

    pub(super) fn byte(&mut self) -> Result<u8, EnvelopeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn number(&mut self) -> Result<u64, EnvelopeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn length(&mut self) -> Result<usize, EnvelopeError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, EnvelopeError> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| EnvelopeError::Malformed)
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<&'a str>, EnvelopeError> {
        Ok(if self.byte()? == 0 { None } else { Some(self.text()?) })
    }

    pub(super) fn texts(&mut self) -> Result<Vec<&'a str>, EnvelopeError> {
        // Collecting grows with what is really there: a length alone reserves nothing.
        let length = self.length()?;
        let mut texts = Vec::new();
        for _ in 0..length {
            texts.push(self.text()?);
        }
        Ok(texts)
    }

    pub(super) fn ids(&mut self) -> Result<Vec<ConnectionId>, EnvelopeError> {
        let length = self.length()?;
        let bytes = self.take(length.checked_mul(ConnectionId::BYTES).ok_or(EnvelopeError::Malformed)?)?;
        let (ids, _) = bytes.as_chunks::<{ ConnectionId::BYTES }>();
        Ok(ids.iter().map(|id| ConnectionId::from_bytes(*id)).collect())
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), EnvelopeError> {
        if self.0.is_empty() { Ok(()) } else { Err(EnvelopeError::Malformed) }
    }
}
