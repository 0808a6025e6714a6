//! Whole logins as tables: what the upstream says, piece by piece, and what comes of it.

use proptest::prelude::*;

use super::*;
use crate::fault::FaultKind;
use crate::proto::Mechanism;
use crate::proto::testing::login::{
    self, ALL, Run, TOKEN, WITHOUT_STARTTLS, assert_end_is_told, blob, check_interactive_split, check_last_step,
    check_split, forwarded_client, oauth, password, readies,
};

fn run_in_pieces(ready: UpstreamReady, says: &[&str], piece: usize) -> Run {
    let run = login::run_in_pieces(Pop3Upstream::new(ready), says, piece);
    run.assert_client_hears_nothing();
    run
}

fn run(ready: UpstreamReady, says: &[&str]) -> Run {
    run_in_pieces(ready, says, usize::MAX)
}

const GMAIL: &str = "+OK Capability list follows\r\nUSER\r\nRESP-CODES\r\nEXPIRE 0\r\nLOGIN-DELAY 300\r\nTOP\r\nUIDL\r\n\
                     X-GOOGLE-RICO\r\nSASL PLAIN XOAUTH2 OAUTHBEARER\r\n.\r\n";

const EXCHANGE: &str = "+OK\r\nTOP\r\nUIDL\r\nSASL PLAIN XOAUTH2\r\nUSER\r\n.\r\n";

/// What Google says to a bad token.
const GMAIL_CHALLENGE: &str =
    "+ eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJodHRwczovL21haWwuZ29vZ2xlLmNvbS8ifQ==\r\n";

#[test]
fn a_token_goes_in_two_steps_by_the_first_mechanism_that_is_offered() {
    let gmail = run(
        oauth(UpstreamSecurity::Secured),
        &[
            "+OK Gpop ready for requests\r\n",
            GMAIL,
            "+ \r\n",
            "+OK Welcome.\r\n+OK 2 320\r\n",
        ],
    );
    let bearer = format!("{}\r\n", blob(Mechanism::OAuthBearer));
    assert_eq!(gmail.did, ["CAPA\r\n", "AUTH OAUTHBEARER\r\n", &bearer]);
    assert_eq!(gmail.surplus(), "+OK 2 320\r\n");

    // Exchange's continuation has no space, and its banner looks like an offer of APOP.
    let exchange = run(
        oauth(UpstreamSecurity::Secured),
        &[
            "+OK The POP3 service is ready. <TABPAA==>\r\n",
            EXCHANGE,
            "+\r\n",
            "+OK User successfully authenticated.\r\n",
        ],
    );
    let xoauth2 = format!("{}\r\n", blob(Mechanism::XOAuth2));
    assert_eq!(exchange.did, ["CAPA\r\n", "AUTH XOAUTH2\r\n", &xoauth2]);
    assert_eq!(exchange.surplus(), "");
}

#[test]
fn without_capabilities_the_providers_first_mechanism_is_tried() {
    for capa in ["-ERR Command is not valid in this state.\r\n", "+OK\r\nTOP\r\n.\r\n"] {
        let run = run(
            oauth(UpstreamSecurity::Secured),
            &["+OK hi\r\n", capa, "+\r\n", "+OK\r\n"],
        );
        assert_eq!(run.did[..2], ["CAPA\r\n", "AUTH OAUTHBEARER\r\n"]);
        assert_eq!(run.surplus(), "");
    }
}

#[test]
fn a_refused_token_is_explained_acknowledged_and_blamed() {
    for (mechanism, list, answer) in [
        (Mechanism::OAuthBearer, GMAIL, "AQ==\r\n"),
        (Mechanism::XOAuth2, EXCHANGE, "\r\n"),
    ] {
        let run = run(
            oauth(UpstreamSecurity::Secured),
            &[
                "+OK hi\r\n",
                list,
                "+ \r\n",
                GMAIL_CHALLENGE,
                "-ERR [AUTH] Username and password not accepted.\r\n",
            ],
        );
        let challenge = r#"<challenge {"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}>"#;
        assert_eq!(run.did[3..], [challenge, answer], "{mechanism:?}");
        assert_eq!(
            run.refusal(),
            (Some("AUTH"), "Username and password not accepted.", true)
        );
        assert_eq!(run.fault().detail, format!("in answer to AUTH {}", mechanism.name()));
    }
    let exchange = run(
        oauth(UpstreamSecurity::Secured),
        &[
            "+OK hi\r\n",
            EXCHANGE,
            "+\r\n",
            "-ERR Authentication failure: unknown user name or bad password.\r\n",
        ],
    );
    let text = "Authentication failure: unknown user name or bad password.";
    assert_eq!(exchange.refusal(), (None, text, true));
}

#[test]
fn what_is_not_the_credentials_fault_is_not_blamed_on_it() {
    let after_blob = |answer: &str| {
        let says = ["+OK hi\r\n", EXCHANGE, "+\r\n", answer];
        run(oauth(UpstreamSecurity::Secured), &says)
    };
    let limited = after_blob("-ERR [IN-USE] Do you have another POP session running?\r\n");
    assert_eq!(
        limited.refusal(),
        (Some("IN-USE"), "Do you have another POP session running?", false)
    );
    let not_enabled = after_blob("-ERR [SYS/PERM] Your account is not enabled for POP access\r\n");
    assert_eq!(
        not_enabled.refusal(),
        (Some("SYS/PERM"), "Your account is not enabled for POP access", false)
    );
    for (answer, detail) in [
        (
            "-ERR [SYS/TEMP] Temporary failure\r\n",
            "-ERR [SYS/TEMP] Temporary failure",
        ),
        ("-ERR [LOGIN-DELAY] too soon\r\n", "-ERR [LOGIN-DELAY] too soon"),
        ("-ERR Server Unavailable. 21\r\n", "-ERR Server Unavailable. 21"),
        (
            "-ERR Protocol error. Connection is closed. 10\r\n",
            "-ERR Protocol error. Connection is closed. 10",
        ),
    ] {
        after_blob(answer).assert_unavailable(&format!("upstream answers AUTH XOAUTH2 with {detail}"));
    }
    let says = ["+OK hi\r\n", EXCHANGE, "-ERR Protocol error. 14\r\n"];
    let command = run(oauth(UpstreamSecurity::Secured), &says);
    command.assert_unavailable("upstream answers AUTH XOAUTH2 with -ERR Protocol error. 14");
    assert_eq!(command.did.len(), 2, "the token stays here");
}

#[test]
fn a_password_goes_by_plain_by_user_and_pass_or_by_login() {
    let plain = run(
        password(UpstreamSecurity::Secured),
        &["+OK hi\r\n", GMAIL, "+ \r\n", "+OK in\r\n"],
    );
    assert_eq!(
        plain.did,
        [
            "CAPA\r\n",
            "AUTH PLAIN\r\n",
            "AGFkYUBleGFtcGxlLmNvbQBjb3JyZWN0IGhvcnNlIGJhdHRlcnk=\r\n"
        ]
    );
    let user = run(
        password(UpstreamSecurity::Secured),
        &[
            "+OK hi\r\n",
            "-ERR what?\r\n",
            "+OK send PASS\r\n",
            "+OK in\r\n+OK 0 0\r\n",
        ],
    );
    assert_eq!(
        user.did,
        ["CAPA\r\n", "USER ada@example.com\r\n", "PASS correct horse battery\r\n"]
    );
    assert_eq!(user.surplus(), "+OK 0 0\r\n");
    let login = run(
        password(UpstreamSecurity::Secured),
        &[
            "+OK hi\r\n",
            "+OK\r\nSASL LOGIN\r\n.\r\n",
            "+ VXNlcm5hbWU6\r\n",
            "+ UGFzc3dvcmQ6\r\n",
            "-ERR [AUTH] no\r\n",
        ],
    );
    assert_eq!(
        login.did[1..],
        [
            "AUTH LOGIN\r\n",
            "YWRhQGV4YW1wbGUuY29t\r\n",
            "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5\r\n"
        ]
    );
    assert_eq!(login.refusal(), (Some("AUTH"), "no", true));
}

#[test]
fn a_refused_name_or_password_is_blamed() {
    let begin = ["+OK hi\r\n", "-ERR\r\n"];
    let name = run(
        password(UpstreamSecurity::Secured),
        &[&begin[..], &["-ERR no such user: ada\r\n"]].concat(),
    );
    assert_eq!(name.refusal(), (None, "no such user: ada", true));
    assert_eq!(name.fault().detail, "in answer to USER and PASS");
    assert_eq!(name.did.len(), 2, "the password stays here");
    let secret = run(
        password(UpstreamSecurity::Secured),
        &[&begin[..], &["+OK\r\n", "-ERR invalid password\r\n"]].concat(),
    );
    assert_eq!(secret.refusal(), (None, "invalid password", true));
}

#[test]
fn stls_comes_before_everything_and_what_was_said_in_clear_is_forgotten() {
    let run = run(
        oauth(UpstreamSecurity::StartTls),
        &["+OK hi <1@x>\r\n", "+OK begin\r\n", EXCHANGE, "+\r\n", "+OK in\r\n"],
    );
    let blob = format!("{}\r\n", blob(Mechanism::XOAuth2));
    assert_eq!(run.did, ["STLS\r\n", "<TLS>", "CAPA\r\n", "AUTH XOAUTH2\r\n", &blob]);
    assert_eq!(run.surplus(), "");
}

#[test]
fn behind_an_stls_that_is_over_capabilities_come_first_and_no_greeting_is_awaited() {
    let run = run(oauth(UpstreamSecurity::Upgraded), &[EXCHANGE, "+\r\n", "+OK in\r\n"]);
    let blob = format!("{}\r\n", blob(Mechanism::XOAuth2));
    assert_eq!(run.did, ["CAPA\r\n", "AUTH XOAUTH2\r\n", &blob]);
    assert_eq!(run.surplus(), "");
}

#[test]
fn data_in_clear_behind_the_ok_of_stls_is_an_injection() {
    for injected in ["+OK\r\nSASL PLAIN\r\n.\r\n", "-ERR x\r\n", "+", "\r\n", "\x16\x03\x03"] {
        let answer = format!("+OK go\r\n{injected}");
        let run = run(oauth(UpstreamSecurity::StartTls), &["+OK hi\r\n", &answer]);
        assert_eq!(run.did, ["STLS\r\n"], "no handshake: {injected:?}");
        assert_eq!(run.fault(), &super::injected());
    }
    // Both answers and more, before anything was asked.
    let early = run(oauth(UpstreamSecurity::StartTls), &["+OK hi\r\n+OK go\r\n+OK x\r\n"]);
    assert_eq!((early.did.len(), early.fault()), (0, &super::injected()));
    // In a piece of its own, before the handshake was done.
    let mut dialogue = Pop3Upstream::new(oauth(UpstreamSecurity::StartTls));
    dialogue.handle_bytes(b"+OK hi\r\n+OK go\r\n");
    assert!(matches!(dialogue.poll_step(), Some(UpstreamStep::Send(_))));
    assert!(matches!(dialogue.poll_step(), Some(UpstreamStep::Secure)));
    dialogue.handle_bytes(b"+");
    assert!(matches!(dialogue.poll_step(), Some(UpstreamStep::Failed(fault)) if fault == super::injected()));
    dialogue.handle_secured();
    assert!(dialogue.poll_step().is_none());
}

#[test]
fn stls_that_is_refused_or_avoided_ends_the_login_before_the_credential() {
    for (says, detail) in [
        (
            &["+OK hi\r\n", "-ERR [SYS/TEMP] not now\r\n"][..],
            "upstream refuses STLS: not now",
        ),
        (
            &["+OK hi\r\n", "-ERR Command is not valid\r\n"],
            "upstream refuses STLS: Command is not valid",
        ),
        (
            &["+OK hi\r\n", "+ go\r\n"],
            "unexpected reply, waiting for the upstream's answer to STLS: + go",
        ),
        (&["+OK hi\r\n", "OK\r\n"], "unexpected reply"),
    ] {
        let run = run(oauth(UpstreamSecurity::StartTls), says);
        assert_eq!(run.fault().kind, FaultKind::Unavailable);
        assert!(run.fault().detail.contains(detail), "{:?}", run.fault());
        assert_eq!(run.did, ["STLS\r\n"]);
    }
}

#[test]
fn a_greeting_that_is_none_ends_the_login() {
    for greeting in [
        "-ERR [IN-USE] Too many connections",
        "-ERR [SYS/TEMP] later",
        "* OK IMAP4",
        "220 smtp.example.com ESMTP",
        "HTTP/1.1 400 Bad Request",
        "+ hi",
        "",
    ] {
        for security in [
            UpstreamSecurity::Secured,
            UpstreamSecurity::Clear,
            UpstreamSecurity::StartTls,
        ] {
            let run = run(oauth(security), &[&format!("{greeting}\r\n")]);
            let detail = format!("upstream sent an unexpected reply, waiting for the upstream's greeting: {greeting}");
            run.assert_unavailable(&detail);
            assert!(run.did.is_empty());
        }
    }
}

#[test]
fn every_state_says_where_the_login_was_when_the_upstream_went_away() {
    let sasl = [
        ("+OK hi\r\n", "waiting for the upstream's greeting"),
        ("+OK\r\n", "waiting for the upstream's answer to STLS"),
        ("+OK\r\n", "waiting for the upstream's answer to CAPA"),
        (".\r\n", "waiting for the end of the upstream's capabilities"),
        ("+\r\n", "waiting for the upstream's invitation to go on with AUTH"),
        ("", "waiting for the upstream's answer to AUTH"),
    ];
    let user_pass = [
        ("+OK hi\r\n", "waiting for the upstream's greeting"),
        ("+OK\r\n", "waiting for the upstream's answer to STLS"),
        ("-ERR\r\n", "waiting for the upstream's answer to CAPA"),
        ("+OK\r\n", "waiting for the upstream's answer to USER"),
        ("", "waiting for the upstream's answer to PASS"),
    ];
    for (ready, states) in [(oauth as fn(_) -> _, &sasl[..]), (password, &user_pass)] {
        for count in 0..states.len() {
            let says: Vec<&str> = states[..count].iter().map(|(said, _)| *said).collect();
            let dialogue = Pop3Upstream::new(ready(UpstreamSecurity::StartTls));
            assert_end_is_told(dialogue, &says, states[count].1);
        }
    }
}

#[test]
fn a_challenge_that_makes_no_sense_is_cancelled_and_a_second_one_is_the_end() {
    let cancelled = run(
        password(UpstreamSecurity::Secured),
        &["+OK hi\r\n", GMAIL, "+\r\n", "+ ?\r\n", "-ERR cancelled\r\n"],
    );
    assert_eq!(cancelled.did[3..], ["<challenge ?>", "*\r\n"]);
    let endless = run(
        oauth(UpstreamSecurity::Secured),
        &["+OK hi\r\n", EXCHANGE, "+\r\n", "+ e30=\r\n", "+ e30=\r\n"],
    );
    assert_eq!(endless.did[3..], ["<challenge {}>", "\r\n"]);
    assert!(
        endless.fault().detail.contains("unexpected reply"),
        "{:?}",
        endless.fault()
    );
}

#[test]
fn an_upstream_that_echoes_the_credential_is_not_repeated() {
    let blob = blob(Mechanism::XOAuth2);
    for echo in [
        format!("-ERR unknown command {blob}\r\n"),
        format!("-ERR {TOKEN} is bad\r\n"),
        format!("-ERR [{TOKEN}] is bad\r\n"),
        format!("{blob}\r\n"),
        format!("+ {blob}\r\n-ERR no\r\n"),
    ] {
        let says = ["+OK hi\r\n", EXCHANGE, "+\r\n", &echo];
        let run = run(oauth(UpstreamSecurity::Secured), &says);
        let seen = format!("{:?} {:?}", &run.did[3..], run.outcome);
        assert!(
            run.outcome.is_some() && !seen.contains(blob.split_at(20).0) && !seen.contains(TOKEN.split_at(16).0),
            "{seen}"
        );
    }
    let says = [
        "+OK hi\r\n",
        "-ERR\r\n",
        "+OK\r\n",
        "-ERR what is PASS correct horse battery?\r\n",
    ];
    let run = run(password(UpstreamSecurity::Secured), &says);
    assert!(!format!("{:?}", run.outcome).contains("correct"), "{:?}", run.outcome);
}

#[test]
fn neither_steps_nor_the_dialogue_print_a_credential() {
    let mut dialogue = Pop3Upstream::new(oauth(UpstreamSecurity::Secured));
    dialogue.handle_bytes(format!("+OK hi\r\n{EXCHANGE}+\r\n").as_bytes());
    let steps: Vec<_> = std::iter::from_fn(|| dialogue.poll_step()).collect();
    assert_eq!(
        format!("{dialogue:?} {steps:?}"),
        "Pop3Upstream { state: \"waiting for the upstream's answer to AUTH\", .. } \
         [Send(6 bytes), Learned(Said { moment: BeforeLogin, lines: [\"TOP\", \"UIDL\"] }), Send(14 bytes), Send(94 bytes)]"
    );
}

#[test]
fn a_credential_behind_a_fault_of_the_same_piece_is_not_sent() {
    let run = run(
        oauth(UpstreamSecurity::Secured),
        &["+OK hi\r\n", &format!("{EXCHANGE}+\r\nHTTP/1.1 400\r\n")],
    );
    assert_eq!(run.did, ["CAPA\r\n"]);
    assert!(run.fault().detail.contains("HTTP/1.1 400"));
}

#[test]
fn endless_talk_is_ended() {
    let line = format!("X-{}\r\n", "x".repeat(1000));
    let talk: Vec<&str> = ["+OK hi\r\n", "+OK\r\n"]
        .into_iter()
        .chain(std::iter::repeat_n(line.as_str(), 100))
        .collect();
    let talkative = run(oauth(UpstreamSecurity::Secured), &talk);
    assert!(
        talkative.fault().detail.contains("more than 65536 bytes"),
        "{:?}",
        talkative.fault()
    );
    let long = "x".repeat(9000);
    let endless = run(oauth(UpstreamSecurity::Secured), &["+OK hi\r\n", &long]);
    assert!(
        endless.fault().detail.contains("longer than 8192 bytes"),
        "{:?}",
        endless.fault()
    );
}

/// What an upstream may say in one turn, real and hostile.
const FRAGMENTS: [&str; 20] = [
    "+OK hi\r\n",
    "+OK\r\n",
    "+OK <1@x>\n",
    "SASL PLAIN XOAUTH2\r\n",
    "SASL LOGIN\r\n",
    "USER\r\n",
    "TOP\r\n",
    ".\r\n",
    "+OK\r\nSASL OAUTHBEARER\r\n.\r\n",
    "-ERR\r\n",
    "-ERR [AUTH] no\r\n",
    "-ERR [SYS/TEMP] later\r\n",
    "-ERR [IN-USE",
    "+\r\n",
    "+ \r\n",
    "+ e30=\r\n",
    "* OK\r\n",
    "\r",
    "\n",
    "x",
];

proptest! {
    #![proptest_config(crate::proto::testing::proptest_config("proptest-regressions/pop3_upstream.txt"))]

    #[test]
    fn every_split_comes_to_the_same(
        ready in readies(WITHOUT_STARTTLS),
        says in proptest::collection::vec(proptest::sample::select(&FRAGMENTS[..]), 0..12),
        piece in 1usize..50,
    ) {
        check_split(run_in_pieces, ready, &says, piece)?;
    }

    #[test]
    fn an_interactive_login_is_the_same_in_any_pieces(
        ready in readies(ALL),
        says in proptest::collection::vec(proptest::sample::select(&FRAGMENTS[..]), 0..12),
        piece in 1usize..50,
    ) {
        // A piece that ends a line and begins another is an injection on one side of the cut only.
        let lines: Vec<&str> = says.iter().flat_map(|said| said.split_inclusive('\n')).collect();
        check_interactive_split(run_in_pieces, ready, &lines, piece)?;
    }

    #[test]
    fn a_login_ends_with_one_last_step_and_never_shows_the_credential(
        ready in readies(ALL),
        says in proptest::collection::vec(proptest::sample::select(&FRAGMENTS[..]), 0..20),
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        check_last_step(Pop3Upstream::new(ready), &says, &bytes)?;
    }
}

#[test]
fn an_upstream_that_takes_xclient_is_told_of_the_client() {
    let told = |security, remote: &str| UpstreamReady {
        forwarded: Some(forwarded_client(remote)),
        ..oauth(security)
    };
    let listed = "+OK\r\nSASL XOAUTH2\r\nXCLIENT\r\n.\r\n";
    let (v4, v6) = ("192.0.2.7:40001", "[2001:db8::7]:1");
    let (line, line_v6) = (
        "XCLIENT ADDR=192.0.2.7 PORT=40001 SESSION=17\r\n",
        "XCLIENT ADDR=2001:db8::7 PORT=1 SESSION=17\r\n",
    );
    let (capa, auth) = ("CAPA\r\n", "AUTH XOAUTH2\r\n");
    use UpstreamSecurity::{Secured, StartTls};
    for (ready, says, expected) in [
        (
            told(Secured, v4),
            &["+OK [XCLIENT] Dovecot ready.\r\n", "+OK Updated\r\n", EXCHANGE][..],
            &[line, capa, auth][..],
        ),
        (
            told(Secured, v6),
            &["+OK hi\r\n", listed, "+OK Updated\r\n"],
            &[capa, line_v6, auth],
        ),
        // One that will not have it.
        (
            told(Secured, v4),
            &["+OK hi\r\n", listed, "-ERR no\r\n"],
            &[capa, line, auth],
        ),
        // What the greeting says in clear counts for nothing.
        (
            told(StartTls, v4),
            &["+OK [XCLIENT] hi\r\n", "+OK\r\n", listed, "+OK\r\n"],
            &["STLS\r\n", "<TLS>", capa, line, auth],
        ),
        (told(Secured, v4), &["+OK hi\r\n", EXCHANGE], &[capa, auth]),
        (oauth(Secured), &["+OK [XCLIENT] hi\r\n", listed], &[capa, auth]),
    ] {
        assert_eq!(run(ready, says).did, expected, "{says:?}");
    }
}
