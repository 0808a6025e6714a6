//! Whole questions as tables: what the upstream says, piece by piece, and what comes of it.

use proptest::prelude::*;

use super::*;
use crate::limits::UPSTREAM_LOGIN_BYTES_MAX;
use crate::proto::Protocol::{Imap, Pop3, Smtp};

/// What a probe did, handshakes included, and its last step.
fn run(
    protocol: Protocol,
    security: UpstreamSecurity,
    says: &[&str],
    piece: usize,
) -> (Vec<String>, Option<ProbeStep>) {
    let mut probe = Probe::new(protocol, security, "proxy.example");
    let (mut did, mut last) = (Vec::new(), None);
    for bytes in says.iter().flat_map(|said| said.as_bytes().chunks(piece)) {
        probe.handle_bytes(bytes);
        while let Some(step) = probe.poll_step() {
            assert_eq!(last, None, "a step behind the last one");
            match step {
                ProbeStep::Send(bytes) => did.push(String::from_utf8(bytes.to_vec()).unwrap()),
                ProbeStep::Secure => {
                    did.push("<TLS>".to_owned());
                    probe.handle_secured();
                }
                ended => last = Some(ended),
            }
        }
    }
    (did, last)
}

fn told(lines: &[&str]) -> ProbeStep {
    ProbeStep::Told(Some(lines.iter().map(|&line| line.to_owned()).collect()))
}

fn assert_told(protocol: Protocol, security: UpstreamSecurity, says: &[&str], did: &[&str], last: &ProbeStep) {
    for piece in [1, 7, usize::MAX] {
        let (really, ended) = run(protocol, security, says, piece);
        assert_eq!(really, did, "{says:?}");
        assert_eq!(ended.as_ref(), Some(last), "{says:?}");
    }
}

fn failure(protocol: Protocol, security: UpstreamSecurity, says: &[&str]) -> (Vec<String>, String) {
    match run(protocol, security, says, usize::MAX) {
        (did, Some(ProbeStep::Failed(fault))) => (did, fault.detail),
        other => panic!("{says:?}: {other:?}"),
    }
}

#[test]
fn inside_tls_the_question_follows_the_greeting_unless_that_tells() {
    use UpstreamSecurity::{Clear, Secured};
    for security in [Secured, Clear] {
        assert_told(
            Imap,
            security,
            &["* OK [CAPABILITY IMAP4rev1 IDLE move AUTH=PLAIN] Dovecot ready.\r\n"],
            &[],
            &told(&["IDLE", "MOVE"]),
        );
        assert_told(
            Imap,
            security,
            &[
                "* OK Gimap ready\r\n",
                "* CAPABILITY IMAP4rev1 UNSELECT IDLE\r\nP OK Thats all she wrote!\r\n",
            ],
            &["P CAPABILITY\r\n"],
            &told(&["IDLE", "UNSELECT"]),
        );
        assert_told(
            Imap,
            security,
            &["* OK hi\r\n", "* OK still here\r\nP OK [CAPABILITY IDLE] done\r\n"],
            &["P CAPABILITY\r\n"],
            &told(&["IDLE"]),
        );
        assert_told(
            Smtp,
            security,
            &[
                "220-one\r\n220 two\r\n",
                "250-smtp.example.com\r\n250-SIZE 1000\r\n250 DSN\r\n",
            ],
            &["EHLO proxy.example\r\n"],
            &told(&["SIZE 1000", "DSN"]),
        );
        assert_told(
            Pop3,
            security,
            &[
                "+OK ready <1@x>\r\n",
                "+OK\r\nTOP\r\nuidl\r\nX-OTHER 1\r\nUIDL\r\nSASL PLAIN\r\n.\r\n",
            ],
            &["CAPA\r\n"],
            &told(&["TOP", "UIDL"]),
        );
    }
}

#[test]
fn an_upstream_without_capa_has_answered_all_the_same() {
    assert_told(
        Pop3,
        UpstreamSecurity::Secured,
        &["+OK\r\n", "-ERR what\r\n"],
        &["CAPA\r\n"],
        &ProbeStep::Told(None),
    );
}

#[test]
fn what_is_said_in_clear_is_not_believed_where_starttls_is_configured() {
    let starttls = UpstreamSecurity::StartTls;
    assert_told(
        Imap,
        starttls,
        &[
            "* OK [CAPABILITY IMAP4rev1 MOVE] hi\r\n",
            "* CAPABILITY MOVE\r\nP OK [CAPABILITY MOVE] go\r\n",
            "* CAPABILITY IMAP4rev1 IDLE\r\nP OK\r\n",
        ],
        &["P STARTTLS\r\n", "<TLS>", "P CAPABILITY\r\n"],
        &told(&["IDLE"]),
    );
    assert_told(
        Smtp,
        starttls,
        &[
            "220 x\r\n",
            "250-x\r\n250 DSN\r\n",
            "220 go\r\n",
            "250-x\r\n250 8BITMIME\r\n",
        ],
        &[
            "EHLO proxy.example\r\n",
            "STARTTLS\r\n",
            "<TLS>",
            "EHLO proxy.example\r\n",
        ],
        &told(&["8BITMIME"]),
    );
    assert_told(
        Pop3,
        starttls,
        &["+OK x\r\n", "+OK go\r\n", "+OK\r\nUIDL\r\n.\r\n"],
        &["STLS\r\n", "<TLS>", "CAPA\r\n"],
        &told(&["UIDL"]),
    );
}

#[test]
fn a_starttls_that_is_refused_or_tampered_with_ends_the_question() {
    for (protocol, says, command) in [
        (
            Imap,
            &["* OK x\r\n", "P OK go\r\n* CAPABILITY MOVE\r\n"][..],
            "P STARTTLS\r\n",
        ),
        (Imap, &["* OK x\r\n", "P NO not now\r\n"], "P STARTTLS\r\n"),
        (
            Smtp,
            &["220 x\r\n", "250 x\r\n", "220 go\r\n250 DSN\r\n"],
            "STARTTLS\r\n",
        ),
        (
            Smtp,
            &["220 x\r\n", "250 x\r\n", "454 4.7.0 not now\r\n"],
            "STARTTLS\r\n",
        ),
        (Pop3, &["+OK x\r\n", "+OK go\r\n+OK\r\n"], "STLS\r\n"),
        (Pop3, &["+OK x\r\n", "-ERR not now\r\n"], "STLS\r\n"),
    ] {
        let (did, why) = failure(protocol, UpstreamSecurity::StartTls, says);
        assert_eq!(did.last().map(String::as_str), Some(command), "{says:?}");
        assert!(why.contains("in clear") || why.contains("not now"), "{why}");
    }
}

#[test]
fn what_is_no_answer_is_told_to_the_operator_and_bounded() {
    let secured = UpstreamSecurity::Secured;
    for (protocol, says, expected) in [
        (Imap, &["* PREAUTH hello\r\n"][..], "in its greeting: * PREAUTH hello"),
        (Imap, &["* BYE busy\r\n"], "in its greeting: * BYE busy"),
        (
            Imap,
            &["* OK x\r\n", "* BYE busy\r\n"],
            "when asked what it can do: * BYE busy",
        ),
        (Imap, &["* OK x\r\n", "P BAD what\r\n"], "P BAD what"),
        (Imap, &["220 x\r\n"], "220 x"),
        (Smtp, &["421 4.3.2 busy\r\n"], "says 421 4.3.2 busy, in its greeting"),
        (Smtp, &["220 x\r\n", "502 no\r\n"], "says 502 no, when asked"),
        (Smtp, &["* OK\r\n"], "no reply of SMTP"),
        (Pop3, &["-ERR busy\r\n"], "in its greeting: -ERR busy"),
        (Pop3, &["+OK\r\n", "what\r\n"], "when asked what it can do: what"),
    ] {
        let (_, why) = failure(protocol, secured, says);
        assert!(why.contains(expected), "{why}");
    }
    let endless = |line: &str| line.repeat(UPSTREAM_LOGIN_BYTES_MAX / line.len() + 2);
    for (protocol, greeting, line) in [
        (Imap, "* OK x\r\n", "* CAPABILITY IDLE\r\n"),
        (Smtp, "220 x\r\n", "250-DSN\r\n"),
        (Pop3, "+OK\r\n", "+OK\r\n"),
    ] {
        failure(protocol, secured, &[greeting, &endless(line)]);
        failure(protocol, secured, &[&"x".repeat(UPSTREAM_LOGIN_BYTES_MAX)]);
    }
}

#[test]
fn an_upstream_that_leaves_is_a_failure_once() {
    let mut probe = Probe::new(Imap, UpstreamSecurity::Secured, "x");
    probe.handle_bytes(b"* OK hi\r\n");
    probe.handle_eof();
    assert!(
        matches!(probe.poll_step(), Some(ProbeStep::Failed(_))),
        "and nothing is written"
    );
    probe.handle_eof();
    probe.handle_bytes(b"* OK\r\n");
    probe.handle_secured();
    assert_eq!(probe.poll_step(), None);
}

proptest! {
    #[test]
    fn whatever_an_upstream_says_there_is_one_last_step_at_the_most(
        protocol in prop_oneof![Just(Imap), Just(Smtp), Just(Pop3)],
        is_starttls: bool,
        says in prop::collection::vec(prop_oneof![
            Just("* OK x\r\n"), Just("P OK x\r\n"), Just("* CAPABILITY IDLE\r\n"), Just("220 x\r\n"), Just("250-x\r\n250 DSN\r\n"),
            Just("+OK\r\n"), Just("UIDL\r\n.\r\n"), Just("-ERR\r\n"), Just("* BYE\r\n"), Just("{5}\r\n"), Just("\r"), Just("x\n"),
        ], 0..12),
        piece in 1usize..20,
    ) {
        let security = if is_starttls { UpstreamSecurity::StartTls } else { UpstreamSecurity::Secured };
        let (did, last) = run(protocol, security, &says, piece);
        prop_assert!(did.iter().filter(|did| *did == "<TLS>").count() <= usize::from(is_starttls));
        if is_starttls && matches!(last, Some(ProbeStep::Told(_))) {
            prop_assert!(did.iter().any(|did| did == "<TLS>"));
        }
    }
}
