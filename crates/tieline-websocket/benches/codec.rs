//! What the codec costs by itself: `cargo bench -p tieline-websocket`. The numbers that decided something stand beside
//! the code that they decided.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tieline_websocket::{
    Decoder, Deflater, Inflater, Limits, Opcode, Role, Shared, apply_mask, encode_masked, server_header,
    stored_block,
};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A message as applications send them: JSON with a few fields that differ.
fn json(len: usize) -> Vec<u8> {
    let mut text = String::from("[");
    for i in 0..=len / 50 {
        text.push_str(&format!("{{\"type\":\"message\",\"id\":{},\"from\":\"user{}\"}},", i * 7919, i % 17));
    }
    text.into_bytes().into_iter().cycle().take(len).collect()
}

/// The obvious way, to compare with.
fn byte_loop(bytes: &mut [u8], mask: [u8; 4]) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[i % 4];
    }
}

fn mask(c: &mut Criterion) {
    let mut group = c.benchmark_group("mask");
    for len in [16, 132, 4096, 65_536] {
        let mut bytes = json(len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("words", len), |b| {
            b.iter(|| apply_mask(black_box(&mut bytes), MASK))
        });
        group.bench_function(BenchmarkId::new("byte loop", len), |b| {
            b.iter(|| byte_loop(black_box(&mut bytes), MASK));
        });
    }
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode 16 frames");
    for len in [16, 132, 4096] {
        let mut stream = Vec::new();
        for _ in 0..16 {
            encode_masked(&mut stream, Opcode::Text, &json(len), MASK);
        }
        group.throughput(Throughput::Elements(16));
        let mut shared = Shared::new(Limits::default());
        let mut decoder = Decoder::new(Role::Server, None);
        let mut run = |bytes: &mut [u8]| {
            let mut input = bytes;
            let mut events = 0;
            while let Ok(Some(event)) = decoder.decode(&mut input, &mut shared) {
                black_box(event);
                events += 1;
            }
            events
        };
        group.bench_function(BenchmarkId::new("whole", len), |b| {
            b.iter_batched_ref(|| stream.clone(), |bytes| assert_eq!(run(bytes), 16), BatchSize::SmallInput);
        });
        // Cut in the middle of a frame, as the end of a read buffer does.
        group.bench_function(BenchmarkId::new("cut once", len), |b| {
            let cut = stream.len() / 2 + 5;
            let half = |bytes: &mut Vec<u8>| {
                let (first, second) = bytes.split_at_mut(cut);
                assert_eq!(run(first) + run(second), 16);
            };
            b.iter_batched_ref(|| stream.clone(), half, BatchSize::SmallInput);
        });
    }
}

fn deflate(c: &mut Criterion) {
    let mut group = c.benchmark_group("deflate");
    for len in [132, 1024, 16_384] {
        let plain = json(len);
        group.throughput(Throughput::Bytes(len as u64));
        for bits in [15, 9] {
            let mut deflater = Deflater::new(bits);
            let mut out = Vec::new();
            group.bench_function(BenchmarkId::new(format!("compress, window {bits}"), len), |b| {
                b.iter(|| {
                    out.clear();
                    deflater.compress(black_box(&plain), &mut out);
                });
            });
            println!("{len} bytes become {}", out.len());
        }
        let mut packed = Vec::new();
        Deflater::new(15).compress(&plain, &mut packed);
        let (mut inflater, mut out) = (Inflater::new(), Vec::new());
        group.bench_function(BenchmarkId::new("inflate", len), |b| {
            b.iter(|| inflater.inflate(black_box(&packed), 1 << 20, &mut out));
        });
    }
}

fn join(c: &mut Criterion) {
    let mut tail = Vec::new();
    Deflater::new(15).compress(&json(132), &mut tail);
    let mut out = Vec::with_capacity(1024);
    c.bench_function("header, stored head and shared tail", |b| {
        b.iter(|| {
            out.clear();
            let head = black_box(b"{\"sequenceId\":123456,");
            out.extend_from_slice(&server_header(Opcode::Text, true, 5 + head.len() + tail.len()));
            stored_block(head, &mut out);
            out.extend_from_slice(&tail);
        });
    });
}

criterion_group!(benches, mask, decode, deflate, join);
criterion_main!(benches);
