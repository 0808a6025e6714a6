//! What it costs to follow a relayed session: bulk literals, and lines, which are the worst case.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portreeve::proto::dialogue::Boundaries;
use portreeve::proto::imap::boundary::ImapBoundaries;

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

criterion_group!(benches, follow);
criterion_main!(benches);
