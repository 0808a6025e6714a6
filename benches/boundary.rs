//! What it costs to follow a relayed session: bulk literals and messages, and lines, which are the worst case.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portreeve::proto::dialogue::Boundaries;
use portreeve::proto::imap::boundary::ImapBoundaries;
use portreeve::proto::smtp::boundary::SmtpBoundaries;

/// Bytes of a piece, as the relay moves them.
const PIECE_BYTES: usize = 64 * 1024;

fn follow(criterion: &mut Criterion) {
    let mail = [
        &b"* 1 FETCH (UID 7 BODY[] {10000000}\r\n"[..],
        &[b'x'; 10_000_000],
        b")\r\n",
    ]
    .concat();
    let flags = b"* 12345 FETCH (UID 12345 FLAGS (\\Seen))\r\n".repeat(25_000);
    let small_mails = [&b"* 1 FETCH (UID 7 BODY[] {700}\r\n"[..], &[b'\n'; 700], b")\r\n"]
        .concat()
        .repeat(1500);
    let commands = b"a0001 UID FETCH 12345 (UID BODY.PEEK[])\r\n".repeat(25_000);

    let mut group = criterion.benchmark_group("boundary");
    for (name, stream) in [("mail", &mail), ("flags", &flags), ("small mails", &small_mails)] {
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut boundaries = ImapBoundaries::new();
                for piece in stream.chunks(PIECE_BYTES) {
                    boundaries.watch_upstream(black_box(piece));
                }
                assert!(boundaries.at_boundary());
            });
        });
    }
    group.throughput(Throughput::Bytes(commands.len() as u64));
    group.bench_function("commands", |bencher| {
        bencher.iter(|| {
            let mut boundaries = ImapBoundaries::new();
            for piece in commands.chunks(PIECE_BYTES) {
                boundaries.watch_client(black_box(piece));
            }
            assert!(boundaries.at_boundary());
        });
    });
    group.finish();
}

/// A message of 20 MB as mail programs write it, in lines of base64, and one of nothing but line ends, which is the worst case.
fn follow_submission(criterion: &mut Criterion) {
    let attachment = [&[b'x'; 76][..], b"\r\n"].concat().repeat(256_410);
    let blank = b"\r\n".repeat(500_000);
    let mut group = criterion.benchmark_group("boundary");
    for (name, text) in [("submission", &attachment), ("blank submission", &blank)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut boundaries = SmtpBoundaries::new();
                boundaries.watch_client(b"DATA\r\n");
                boundaries.watch_upstream(b"354 go on\r\n");
                for piece in text.chunks(PIECE_BYTES) {
                    boundaries.watch_client(black_box(piece));
                }
                boundaries.watch_client(b".\r\n");
                boundaries.watch_upstream(b"250 2.0.0 queued\r\n");
                assert!(boundaries.at_boundary());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, follow, follow_submission);
criterion_main!(benches);
