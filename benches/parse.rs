//! What a client's bytes cost before its login: framing, in one piece and byte by byte, and the grammar.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portreeve::proto::framing::{FrameLimits, Framer};
use portreeve::proto::smtp::extensions::Extensions;
use portreeve::proto::{imap, pop3, smtp};

const LIMITS: FrameLimits = FrameLimits {
    line_bytes_max: 8192,
    literal_bytes_max: 4096,
};

const LOGIN: &[u8] = b"A LOGIN joe@example.com 6cad01dae08d4b6f9f0a7c1e2b3d4f5a6cad01dae08d4b6f9f0a7c1e2b3d4f5a";

fn framing(criterion: &mut Criterion) {
    let commands = [LOGIN, b"\r\nB NOOP\r\nC LOGIN {3}\r\njoe {5+}\r\ntoken\r\n"]
        .concat()
        .repeat(400);
    let long_line = [&b"A "[..], &b"x".repeat(8000), b"\r\n"].concat();
    let mut group = criterion.benchmark_group("framing");
    for (name, stream, piece) in [
        ("commands in one piece", &commands, commands.len()),
        ("commands byte by byte", &commands, 1),
        ("long line byte by byte", &long_line, 1),
    ] {
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut framer = Framer::new(LIMITS);
                let mut cuts = 0;
                for piece in stream.chunks(piece) {
                    framer.push(piece);
                    while framer.poll_command().is_some() {
                        cuts += 1;
                    }
                }
                black_box(cuts)
            });
        });
    }
    group.finish();
}

fn grammar(criterion: &mut Criterion) {
    let parentheses = [&b"A ID "[..], &b"(".repeat(8000)].concat();
    let mut group = criterion.benchmark_group("command");
    for (name, frame) in [
        ("LOGIN", LOGIN),
        ("LOGIN quoted", br#"A LOGIN "joe@example.com" "a \"quoted\" password""#),
        ("ID", br#"A ID ("name" "Thunderbird" "version" "140.0" "os" NIL)"#),
        ("parentheses", &parentheses),
    ] {
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| imap::command::parse(black_box(frame)).is_ok())
        });
    }
    group.finish();
}

fn pop3_grammar(criterion: &mut Criterion) {
    let pass = [&b"PASS "[..], &b"6cad01dae08d4b6f".repeat(4)].concat();
    let auth = [&b"AUTH PLAIN "[..], &b"AGpvZUBleGFtcGxlLmNvbQA2".repeat(5)].concat();
    let long_name = [&b"USER "[..], &b"x ".repeat(4000)].concat();
    let mut group = criterion.benchmark_group("POP3 command");
    for (name, line) in [
        ("USER", &b"USER joe@example.com"[..]),
        ("PASS", &pass),
        ("AUTH", &auth),
        ("CAPA", b"CAPA"),
        ("long name", &long_name),
    ] {
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| pop3::command::parse(black_box(line)).is_ok())
        });
    }
    group.finish();
}

fn smtp_grammar(criterion: &mut Criterion) {
    let long = [&b"AUTH XOAUTH2 "[..], &b"A".repeat(8000)].concat();
    let mut group = criterion.benchmark_group("SMTP command");
    for (name, line) in [
        ("EHLO", &b"EHLO [192.0.2.17]"[..]),
        (
            "AUTH PLAIN",
            b"AUTH PLAIN AGpvZUBleGFtcGxlLmNvbQA2Y2FkMDFkYWUwOGQ0YjZmOWYwYTdjMWUyYjNkNGY1YQ==",
        ),
        ("AUTH as long as a line", &long),
        ("MAIL", b"MAIL FROM:<joe@example.com> SIZE=123456 BODY=8BITMIME"),
    ] {
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| smtp::command::parse(black_box(line)).is_ok())
        });
    }
    group.bench_function("extensions shared by 20 upstreams", |bencher| {
        let upstream = Extensions::parse(&["SIZE 35882577", "8BITMIME", "PIPELINING", "CHUNKING", "SMTPUTF8"]);
        let upstreams = vec![upstream; 20];
        bencher.iter(|| Extensions::shared(black_box(&upstreams)).lines())
    });
    group.finish();
}

criterion_group!(benches, framing, grammar, pop3_grammar, smtp_grammar);
criterion_main!(benches);
