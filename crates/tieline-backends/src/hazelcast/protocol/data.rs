//! Values as members keep them, and where they keep them: an array of bytes, a text, what fits a pattern, and the partition of a name.
//!
//! A member does not refuse a wrong partition; what was said to it is only never found. So the hash is held against numbers that
//! real clients computed.

use super::Garbage;

/// Where the content of a value begins: behind an unused hash and the type.
const CONTENT: usize = 8;

/// Bytes of an array's length.
const LEN: usize = 4;

/// The number of the type `byte[]`.
const BYTES: i32 = -12;

/// The number of the type of texts.
const TEXT: i32 = -11;

/// The number of the type of what a member has a class for.
const CLASS: i32 = -2;

/// The predicate by a regular expression: its factory and its class.
const PATTERN: (i32, i32) = (-20, 12);

/// Begins an array of bytes, and says where its bytes begin, which are appended behind it.
pub(super) fn begin_bytes(out: &mut Vec<u8>) -> usize {
    begin(out, BYTES);
    out.extend_from_slice(&[0; LEN]);
    out.len()
}

/// Says how long the array is that began there, and ends where the bytes do.
pub(super) fn end_bytes(out: &mut [u8], begin: usize) {
    let len = signed(out.len() - begin);
    out[begin - LEN..begin].copy_from_slice(&len.to_be_bytes());
}

/// A value of this type, without its content.
fn begin(out: &mut Vec<u8>, kind: i32) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_be_bytes());
}

fn push_content(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&signed(text.len()).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a text.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    begin(out, TEXT);
    push_content(out, text);
}

/// Appends the predicate that fits entries whose value, a text, is what this regular expression says, all of it.
pub(super) fn push_pattern(out: &mut Vec<u8>, pattern: &str) {
    let (factory, class) = PATTERN;
    begin(out, CLASS);
    // It is told by numbers.
    out.push(1);
    out.extend_from_slice(&factory.to_be_bytes());
    out.extend_from_slice(&class.to_be_bytes());
    // The value itself, and not a part of it.
    push_content(out, "this");
    push_content(out, pattern);
}

/// The array of bytes in a value; `None` where it is one of another type, or whose length is not right.
pub(super) fn read_bytes(data: &[u8]) -> Option<&[u8]> {
    content(data, BYTES)
}

/// The text in a value; `None` where it is none.
pub(in super::super) fn read_text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(content(data, TEXT)?).ok()
}

fn content(data: &[u8], wanted: i32) -> Option<&[u8]> {
    let kind = data.get(4..CONTENT)?;
    let (len, bytes) = data[CONTENT..].split_first_chunk()?;
    let is_whole = usize::try_from(i32::from_be_bytes(*len)) == Ok(bytes.len());
    (kind == wanted.to_be_bytes() && is_whole).then_some(bytes)
}

/// The partition where a topic of this name is, or a map's entry of this key, of so many.
///
/// # Errors
/// [`Garbage`] when there is no partition at all.
pub(in super::super) fn partition(name: &str, count: i32) -> Result<i32, Garbage> {
    // The name is hashed as a value, of which the length is a part.
    let mut content = Vec::with_capacity(LEN + name.len());
    push_content(&mut content, name);
    let hash = murmur(&content).checked_abs().unwrap_or(0);
    if count > 0 { Ok(hash % count) } else { Err(Garbage) }
}

/// A length as the protocol has it.
pub(super) fn signed(len: usize) -> i32 {
    i32::try_from(len).expect("no message is that long")
}

/// Murmur3, 32 bits, with Hazelcast's seed.
fn murmur(bytes: &[u8]) -> i32 {
    const SEED: u32 = 0x0100_0193;
    let scramble = |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = SEED;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        hash = (hash ^ scramble(u32::from_le_bytes(*word))).rotate_left(13);
        hash = hash.wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    hash ^= scramble(u32::from_le_bytes(last));
    hash ^= signed(bytes.len()) as u32;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    (hash ^ (hash >> 16)) as i32
}
