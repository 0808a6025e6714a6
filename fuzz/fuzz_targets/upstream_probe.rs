//! Any answer to the question what an upstream can do: never a panic, always an end, what is told is printable, and every split
//! of the stream comes to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::proto::Protocol;
use portreeve::proto::probe::{Probe, ProbeStep};
use portreeve::proto::session::UpstreamSecurity;

/// Feeds `stream` in pieces of `size` and returns how it ended, and after how many handshakes.
fn run(choice: u8, stream: &[u8], size: usize) -> (Option<ProbeStep>, u32) {
    let protocol = match choice & 3 {
        1 => Protocol::Smtp,
        2 => Protocol::Pop3,
        _ => Protocol::Imap,
    };
    let security = match choice >> 2 & 3 {
        0 => UpstreamSecurity::Secured,
        1 => UpstreamSecurity::StartTls,
        _ => UpstreamSecurity::Clear,
    };
    let mut probe = Probe::new(protocol, security, "proxy.example");
    let mut handshakes = 0;
    for bytes in stream.chunks(size) {
        probe.handle_bytes(bytes);
        if let Some(end) = end_of(&mut probe, &mut handshakes) {
            return (Some(end), handshakes);
        }
    }
    probe.handle_eof();
    let end = end_of(&mut probe, &mut handshakes);
    assert!(end.is_some(), "an upstream that is gone is waited for");
    (end, handshakes)
}

fn end_of(probe: &mut Probe, handshakes: &mut u32) -> Option<ProbeStep> {
    while let Some(step) = probe.poll_step() {
        match step {
            ProbeStep::Send(_) => {}
            ProbeStep::Secure => {
                *handshakes += 1;
                probe.handle_secured();
            }
            ProbeStep::Told(ref lines) => {
                let lines = lines.iter().flatten();
                assert!(
                    lines
                        .flat_map(|line| line.bytes())
                        .all(|byte| matches!(byte, b' '..=b'~'))
                );
                return Some(step);
            }
            ProbeStep::Failed(_) => return Some(step),
        }
    }
    None
}

fuzz_target!(|data: &[u8]| {
    let [choice, piece, stream @ ..] = data else { return };
    let whole = run(*choice, stream, usize::MAX);
    let split = run(*choice, stream, usize::from(*piece).max(1));
    // What comes with the answer to STARTTLS is an injection, which a split at that very place hides.
    if whole.1 == 0 && split.1 == 0 && matches!(whole.0, Some(ProbeStep::Told(_))) {
        assert_eq!(whole, split);
    }
});
