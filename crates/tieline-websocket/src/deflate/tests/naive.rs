//! A second inflater, written from RFC 1951, slow and plain. It says how far back a stream reaches, which zlib does not
//! check within one output, and so whether a peer with just the agreed window can follow.

/// What a stream means to a receiver with unlimited memory.
#[derive(Default)]
pub(super) struct Naive {
    /// Everything that came out of all messages.
    pub(super) output: Vec<u8>,
    /// The longest distance of any match.
    pub(super) farthest: usize,
}

/// Bits, least significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        (0..count).fold(0, |number, i| {
            let bit = self.bytes[self.at / 8] >> (self.at % 8) & 1;
            self.at += 1;
            number | usize::from(bit) << i
        })
    }

    /// The next symbol of a code.
    fn symbol(&mut self, code: &Code) -> usize {
        let (mut bits, mut first, mut before) = (0, 0, 0);
        for count in &code.counts[1..] {
            bits = bits << 1 | self.take(1);
            if bits - first < *count {
                return code.symbols[before + bits - first];
            }
            before += count;
            first = (first + count) << 1;
        }
        panic!("no such code");
    }
}

/// A canonical Huffman code.
struct Code {
    /// How many codes there are of each length.
    counts: [usize; 16],
    /// The symbols, those with short codes first.
    symbols: Vec<usize>,
}

impl Code {
    /// The code that is given by the length of each symbol's code, zero for symbols that do not occur.
    fn new(lengths: &[usize]) -> Self {
        let mut counts = [0; 16];
        lengths.iter().for_each(|length| counts[*length] += 1);
        let mut symbols: Vec<_> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        Self { counts, symbols }
    }
}

/// Start and extra bits of the lengths (symbols 257 on) and of the distances.
fn ranges(start: usize, plain: usize, per_size: usize, count: usize) -> Vec<(usize, usize)> {
    let mut base = start;
    let range = |i: usize| {
        let extra = i.saturating_sub(plain) / per_size + usize::from(i >= plain);
        let range = (base, extra);
        base += 1 << extra;
        range
    };
    (0..count).map(range).collect()
}

impl Naive {
    /// Inflates one message, its tail put back.
    pub(super) fn message(&mut self, payload: &[u8]) {
        let bytes = [payload, &super::TAIL].concat();
        let mut bits = Bits { bytes: &bytes, at: 0 };
        while bits.at.div_ceil(8) < bytes.len() {
            bits.take(1);
            match bits.take(2) {
                0 => {
                    bits.at = bits.at.div_ceil(8) * 8;
                    let len = bits.take(16);
                    assert_eq!(bits.take(16), !len & 0xffff);
                    for _ in 0..len {
                        let byte = bits.take(8) as u8;
                        self.output.push(byte);
                    }
                }
                1 => {
                    let literals: Vec<_> = [(144, 8), (112, 9), (24, 7), (8, 8)]
                        .into_iter()
                        .flat_map(|(count, length)| std::iter::repeat_n(length, count))
                        .collect();
                    self.block(&mut bits, &Code::new(&literals), &Code::new(&[5; 30]));
                }
                2 => {
                    let (literals, distances) = tables(&mut bits);
                    self.block(&mut bits, &Code::new(&literals), &Code::new(&distances));
                }
                _ => panic!("no such block"),
            }
        }
        assert_eq!(bits.at, bytes.len() * 8, "the message must end with the tail");
    }

    fn block(&mut self, bits: &mut Bits<'_>, literals: &Code, distances: &Code) {
        let mut length_ranges = ranges(3, 8, 4, 28);
        length_ranges.push((258, 0));
        let distance_ranges = ranges(1, 4, 2, 30);
        loop {
            match bits.symbol(literals) {
                literal @ 0..=255 => self.output.push(literal as u8),
                256 => return,
                symbol => {
                    let (base, extra) = length_ranges[symbol - 257];
                    let length = base + bits.take(extra);
                    let (base, extra) = distance_ranges[bits.symbol(distances)];
                    let distance = base + bits.take(extra);
                    self.farthest = self.farthest.max(distance);
                    for _ in 0..length {
                        self.output.push(self.output[self.output.len() - distance]);
                    }
                }
            }
        }
    }
}

/// The code lengths at the head of a dynamic block.
fn tables(bits: &mut Bits<'_>) -> (Vec<usize>, Vec<usize>) {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances) = (bits.take(5) + 257, bits.take(5) + 1);
    let mut code = [0; 19];
    let count = bits.take(4) + 4;
    for symbol in &ORDER[..count] {
        code[*symbol] = bits.take(3);
    }
    let code = Code::new(&code);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match bits.symbol(&code) {
            16 => (lengths[lengths.len() - 1], bits.take(2) + 3),
            17 => (0, bits.take(3) + 3),
            18 => (0, bits.take(7) + 11),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    let distances = lengths.split_off(literals);
    (lengths, distances)
}
