//! Whole logins as tables: what the upstream says, piece by piece, and what comes of it.

use proptest::prelude::*;

use super::*;
use crate::fault::{FaultKind, LoginStep};
use crate::proto::Mechanism;
use crate::proto::testing::login::{
    self, ALL, Run, TOKEN, WITHOUT_STARTTLS, assert_end_is_told, blob, check_interactive_split, check_last_step,
    check_split, forwarded_client, oauth, password, readies, with_token,
};

fn run_in_pieces(ready: UpstreamReady, says: &[&str], piece: usize) -> Run {
    let run = login::run_in_pieces(SmtpUpstream::new(ready, "proxy.example.com"), says, piece);
    run.assert_client_hears_nothing();
    run
}

fn run(ready: UpstreamReady, says: &[&str]) -> Run {
    run_in_pieces(ready, says, usize::MAX)
}

const EHLO: &str = "EHLO proxy.example.com\r\n";

const GMAIL_GREETING: &str = "220 smtp.gmail.com ESMTP 5b1f17b1804b1-x - gsmtp\r\n";

const GMAIL: &str = "250-smtp.gmail.com at your service, [192.0.2.1]\r\n250-SIZE 35882577\r\n250-8BITMIME\r\n\
                     250-AUTH LOGIN PLAIN XOAUTH2 PLAIN-CLIENTTOKEN OAUTHBEARER XOAUTH\r\n250-ENHANCEDSTATUSCODES\r\n\
                     250-PIPELINING\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n";

const GMAIL_LEARNED: &str = "SIZE 35882577, 8BITMIME, AUTH LOGIN PLAIN XOAUTH2 PLAIN-CLIENTTOKEN OAUTHBEARER XOAUTH, \
                             ENHANCEDSTATUSCODES, PIPELINING, CHUNKING, SMTPUTF8";

/// What Google says to a bad token.
const GMAIL_CHALLENGE: &str =
    "334 eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJodHRwczovL21haWwuZ29vZ2xlLmNvbS8ifQ==\r\n";

const OFFICE_GREETING: &str =
    "220 AM0PR01CA0001.outlook.office365.com Microsoft ESMTP MAIL Service ready at Mon, 2 Feb 2026 10:00:00 +0000\r\n";

const OFFICE_IN_CLEAR: &str = "250-AM0PR01CA0001.outlook.office365.com Hello [192.0.2.1]\r\n250-SIZE 157286400\r\n\
                               250-PIPELINING\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250-STARTTLS\r\n250-8BITMIME\r\n\
                               250-BINARYMIME\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n";

const OFFICE: &str = "250-AM0PR01CA0001.outlook.office365.com Hello [192.0.2.1]\r\n250-SIZE 157286400\r\n250-DSN\r\n\
                      250-AUTH LOGIN XOAUTH2\r\n250 CHUNKING\r\n";

const OFFICE_READY: &str = "220 2.0.0 SMTP server ready\r\n";

#[test]
fn gmail_takes_the_token_in_the_auth_line() {
    let run = run(
        oauth(UpstreamSecurity::Secured),
        &[GMAIL_GREETING, GMAIL, "235 2.7.0 Accepted\r\n421 late\r\n"],
    );
    assert_eq!(
        run.did,
        [EHLO, &format!("AUTH OAUTHBEARER {}\r\n", blob(Mechanism::OAuthBearer))]
    );
    assert_eq!(run.learned, [(Moment::BeforeLogin, GMAIL_LEARNED.to_owned())]);
    assert_eq!(run.surplus(), "421 late\r\n");
    assert_eq!(run.state, "logged in to the upstream");
}

#[test]
fn gmails_challenge_to_a_bad_token_is_answered_and_reported() {
    for (offered, answer, mechanism) in [
        (GMAIL.to_owned(), "AQ==\r\n", Mechanism::OAuthBearer),
        (GMAIL.replace(" OAUTHBEARER", ""), "\r\n", Mechanism::XOAuth2),
    ] {
        let refused = "535-5.7.8 Username and Password not accepted. For more information, go to\r\n\
                       535 5.7.8  https://support.google.com/mail/?p=BadCredentials x - gsmtp\r\n";
        let run = run(
            oauth(UpstreamSecurity::Secured),
            &[GMAIL_GREETING, &offered, GMAIL_CHALLENGE, refused],
        );
        assert_eq!(
            run.did[1..],
            [
                format!("AUTH {} {}\r\n", mechanism.name(), blob(mechanism)),
                r#"<challenge {"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}>"#.to_owned(),
                answer.to_owned(),
            ]
        );
        assert_eq!(
            run.refusal(),
            (
                Some("535 5.7.8"),
                "Username and Password not accepted. For more information, go to \
                 https://support.google.com/mail/?p=BadCredentials x - gsmtp",
                true
            )
        );
    }
}

#[test]
fn office_365_takes_a_long_token_in_two_steps_behind_starttls() {
    let token = "e".repeat(1600);
    let blob = crate::proto::sasl::upstream::xoauth2("ada@example.com", &token.clone().into()).unwrap();
    let run = run(
        with_token(&token, UpstreamSecurity::StartTls),
        &[
            OFFICE_GREETING,
            OFFICE_IN_CLEAR,
            OFFICE_READY,
            OFFICE,
            "334 \r\n",
            "235 2.7.0 Authentication successful\r\n",
        ],
    );
    assert_eq!(
        run.did,
        [
            EHLO,
            "STARTTLS\r\n",
            "<TLS>",
            EHLO,
            "AUTH XOAUTH2\r\n",
            &format!("{}\r\n", blob.as_str()),
        ]
    );
    assert_eq!(run.surplus(), "");
}

#[test]
fn office_365_refuses_for_reasons_that_are_kept_apart() {
    let answers = [
        (
            "535 5.7.3 Authentication unsuccessful [AM0PR01CA0001]\r\n",
            "535 5.7.3",
            true,
        ),
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.\r\n",
            "535 5.7.139",
            false,
        ),
    ];
    let before = [OFFICE_GREETING, OFFICE_IN_CLEAR, OFFICE_READY, OFFICE];
    for (answer, code, is_blamed) in answers {
        let run = run(oauth(UpstreamSecurity::StartTls), &[&before[..], &[answer]].concat());
        let (seen, _, blames_credential) = run.refusal();
        assert_eq!((seen, blames_credential), (Some(code), is_blamed));
    }
    let limit = "432 4.3.2 STOREDRV.ClientSubmit; Concurrent connections limit exceeded\r\n";
    let run = run(oauth(UpstreamSecurity::StartTls), &[&before[..], &[limit]].concat());
    run.assert_unavailable(
        "upstream answers AUTH XOAUTH2 with 432 4.3.2 STOREDRV.ClientSubmit; Concurrent connections limit exceeded",
    );
}

#[test]
fn postfix_and_dovecot_are_understood() {
    let postfix = "250-testbed.example\r\n250-PIPELINING\r\n250-AUTH PLAIN LOGIN XOAUTH2\r\n\
                   250-AUTH=PLAIN LOGIN XOAUTH2\r\n250 SMTPUTF8\r\n";
    let refused = run(
        oauth(UpstreamSecurity::Secured),
        &[
            "220 testbed.example ESMTP Postfix (Debian/GNU)\r\n",
            postfix,
            "334 eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIiwic2NvcGUiOiJtYWlsIn0=\r\n",
            "535 5.7.8 Error: authentication failed: eyJz\r\n",
        ],
    );
    assert_eq!(
        refused.did[2..],
        [
            r#"<challenge {"status":"401","schemes":"bearer","scope":"mail"}>"#,
            "\r\n"
        ]
    );
    assert_eq!(
        refused.refusal(),
        (Some("535 5.7.8"), "Error: authentication failed: eyJz", true)
    );

    let dovecot = "250-testbed.example\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE\r\n";
    let accepted = run(
        password(UpstreamSecurity::Secured),
        &[
            "220 testbed.example Dovecot ready.\r\n",
            dovecot,
            "235 2.7.0 Logged in.\r\n",
        ],
    );
    assert_eq!(
        accepted.did[1..],
        ["AUTH PLAIN AGFkYUBleGFtcGxlLmNvbQBjb3JyZWN0IGhvcnNlIGJhdHRlcnk=\r\n"]
    );
    let unavailable = run(
        password(UpstreamSecurity::Secured),
        &["220 x\r\n", dovecot, "454 4.7.0 Temporary authentication failure.\r\n"],
    );
    assert_eq!(unavailable.fault().kind, FaultKind::Unavailable);
}

#[test]
fn login_answers_each_of_its_prompts() {
    let says = ["220 x\r\n", "250-x\r\n250 AUTH=LOGIN\r\n", "334 VXNlcm5hbWU6\r\n"];
    let accepted = run(
        password(UpstreamSecurity::Clear),
        &[&says[..], &["334 UGFzc3dvcmQ6\r\n", "235 in\r\n"]].concat(),
    );
    assert_eq!(
        accepted.did[1..],
        [
            "AUTH LOGIN\r\n",
            "YWRhQGV4YW1wbGUuY29t\r\n",
            "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5\r\n"
        ]
    );
    assert_eq!(accepted.surplus(), "");
    // An upstream that refuses the user does not hear the password.
    let refused = run(
        password(UpstreamSecurity::Clear),
        &[&says[..], &["535 no\r\n"]].concat(),
    );
    assert_eq!(refused.did.len(), 3);
    assert_eq!(refused.refusal(), (Some("535"), "no", true));
}

#[test]
fn what_was_said_before_starttls_is_forgotten_and_what_was_stripped_is_not_missed() {
    for in_clear in [
        "250-x\r\n250-AUTH PLAIN XOAUTH2\r\n250-SIZE 1\r\n250 STARTTLS\r\n",
        "250-x\r\n250-AUTH PLAIN XOAUTH2\r\n250 XXXXXXXA\r\n",
        "250 x\r\n",
    ] {
        let run = run(
            oauth(UpstreamSecurity::StartTls),
            &[
                "220 x\r\n",
                in_clear,
                "220 go\r\n",
                "250-x\r\n250 AUTH OAUTHBEARER\r\n",
                "235 in\r\n",
            ],
        );
        assert_eq!(
            run.did,
            [
                EHLO,
                "STARTTLS\r\n",
                "<TLS>",
                EHLO,
                &format!("AUTH OAUTHBEARER {}\r\n", blob(Mechanism::OAuthBearer))
            ]
        );
    }
}

#[test]
fn data_in_clear_behind_the_220_of_starttls_is_an_injection() {
    for behind in ["250-x\r\n250 AUTH PLAIN\r\n", "250-x\r\n", "2", "\r\n", "\x16\x03\x03"] {
        let answer = format!("220 go\r\n{behind}");
        let run = run(oauth(UpstreamSecurity::StartTls), &["220 x\r\n", "250 x\r\n", &answer]);
        assert_eq!(run.did, [EHLO, "STARTTLS\r\n"], "no handshake: {behind:?}");
        assert_eq!(run.fault(), &injected());
    }
    // In a piece of its own, before the handshake was done.
    let mut dialogue = SmtpUpstream::new(oauth(UpstreamSecurity::StartTls), "x.example");
    dialogue.handle_bytes(b"220 x\r\n250 x\r\n220 go\r\n");
    assert!(matches!(dialogue.poll_step(), Some(UpstreamStep::Send(_))));
    assert!(matches!(dialogue.poll_step(), Some(UpstreamStep::Send(_))));
    assert!(matches!(dialogue.poll_step(), Some(UpstreamStep::Secure)));
    dialogue.handle_bytes(b"2");
    assert!(matches!(dialogue.poll_step(), Some(UpstreamStep::Failed(fault)) if fault == injected()));
    dialogue.handle_secured();
    assert!(dialogue.poll_step().is_none());
}

#[test]
fn behind_a_starttls_that_is_over_ehlo_comes_first_and_no_greeting_is_awaited() {
    let run = run(
        oauth(UpstreamSecurity::Upgraded),
        &["250-x\r\n250 AUTH OAUTHBEARER\r\n", "235 in\r\n"],
    );
    let auth = format!("AUTH OAUTHBEARER {}\r\n", blob(Mechanism::OAuthBearer));
    assert_eq!(run.did, [EHLO, &auth]);
    assert_eq!(run.surplus(), "");
}

#[test]
fn starttls_that_is_refused_or_avoided_ends_the_login_before_the_credential() {
    for (says, detail) in [
        (
            &["220 x\r\n", "250 x\r\n", "454 4.7.0 TLS not available\r\n"][..],
            "upstream refuses STARTTLS: 454 4.7.0 TLS not available",
        ),
        (
            &["220 x\r\n", "250 x\r\n", "502 what?\r\n"],
            "upstream refuses STARTTLS: 502 what?",
        ),
        // A reply too many: it would answer for the upstream from here on.
        (&["220 x\r\n", "250 x\r\n250 x\r\n"], "upstream refuses STARTTLS: 250 x"),
        (
            &["220 x\r\n", "250 x\r\n", "235 in\r\n"],
            "upstream refuses STARTTLS: 235 in",
        ),
        (
            &["220 x\r\n", "502 what?\r\n"],
            "upstream says 502 what?, waiting for the upstream's answer to EHLO",
        ),
    ] {
        let run = run(oauth(UpstreamSecurity::StartTls), says);
        run.assert_unavailable(detail);
        assert!(
            run.did.iter().all(|write| write == EHLO || write == "STARTTLS\r\n"),
            "{:?}",
            run.did
        );
    }
}

#[test]
fn a_greeting_that_is_none_ends_the_login() {
    let place = "waiting for the upstream's greeting";
    for (greeting, detail) in [
        (
            "554 5.7.1 No service for you\r\n",
            "upstream says 554 5.7.1 No service for you",
        ),
        ("421 4.3.2 Too many\r\n", "upstream says 421 4.3.2 Too many"),
        ("250 x\r\n", "upstream says 250 x"),
        ("220-x\r\n221 y\r\n", "the lines of a reply have different codes"),
    ] {
        for security in ALL {
            let run = run(oauth(*security), &[greeting]);
            run.assert_unavailable(&format!("{detail}, {place}"));
            let said = run.fault().said.as_ref().map(|said| (said.step, said.code.clone()));
            let code = greeting
                .split_once(" No")
                .or(greeting.split_once(" Too"))
                .map(|(code, _)| code.to_owned());
            assert_eq!(said, code.map(|code| (LoginStep::Greeting, Some(code))), "{greeting}");
            assert!(run.did.is_empty());
        }
    }
    let other = run(oauth(UpstreamSecurity::Secured), &["* OK IMAP4 ready\r\n"]);
    assert_eq!(
        other.fault(),
        &Fault::unavailable(format!("this is no reply of SMTP, {place}: * OK IMAP4 ready"))
    );
}

#[test]
fn an_upstream_without_our_mechanism_is_not_blamed_on_the_credential() {
    for (ehlo, offers) in [
        ("250-x\r\n250 AUTH PLAIN\r\n", "AUTH PLAIN"),
        ("250 x\r\n", "no AUTH at all"),
    ] {
        let run = run(oauth(UpstreamSecurity::Secured), &["220 x\r\n", ehlo]);
        run.assert_unavailable(&format!(
            "login needs OAUTHBEARER or XOAUTH2, but the upstream offers {offers}"
        ));
        assert_eq!(run.did.len(), 1, "EHLO alone");
    }
}

#[test]
fn replies_out_of_turn_end_the_login_without_a_further_word() {
    let ehlo = "250-x\r\n250 AUTH XOAUTH2\r\n";
    let long = "e".repeat(600);
    for (says, place) in [
        (["220 x\r\n", ehlo, "250 x\r\n"], "answer to AUTH"),
        (["220 x\r\n", ehlo, "354 x\r\n"], "answer to AUTH"),
        (["220 x\r\n", ehlo, "334 e30=\r\n334 e30=\r\n"], "answer to AUTH"),
    ] {
        let run = run(oauth(UpstreamSecurity::Secured), &says);
        assert!(run.fault().detail.contains(place), "{:?}", run.fault());
        assert_eq!(run.fault().kind, FaultKind::Unavailable);
    }
    // `235` before the credential was sent is nobody's login.
    let early = run(
        with_token(&long, UpstreamSecurity::Secured),
        &["220 x\r\n", ehlo, "235 in\r\n"],
    );
    assert!(
        early.fault().detail.contains("invitation to go on with AUTH"),
        "{early:?}"
    );
    assert!(!format!("{:?}", early.did).contains("ZWVl"));
}

#[test]
fn a_challenge_that_makes_no_sense_is_cancelled() {
    let run = run(
        password(UpstreamSecurity::Secured),
        &[
            "220 x\r\n",
            "250-x\r\n250 AUTH PLAIN\r\n",
            "334 ?\r\n",
            "501 cancelled\r\n",
        ],
    );
    assert_eq!(run.did[2..], ["<challenge ?>", "*\r\n"]);
    assert_eq!(run.fault().kind, FaultKind::Unavailable);
}

#[test]
fn every_state_says_where_the_login_was_when_the_upstream_went_away() {
    let says = [
        "220 x\r\n",
        "250 x\r\n",
        "220 go\r\n",
        "250-x\r\n250 AUTH XOAUTH2\r\n",
        "334 \r\n",
    ];
    let names = [
        "waiting for the upstream's greeting",
        "waiting for the upstream's answer to EHLO",
        "waiting for the upstream's answer to STARTTLS",
        "waiting for the upstream's answer to EHLO",
        "waiting for the upstream's invitation to go on with AUTH",
        "waiting for the upstream's answer to AUTH",
    ];
    for (count, name) in names.iter().enumerate() {
        let dialogue = SmtpUpstream::new(with_token(&"e".repeat(600), UpstreamSecurity::StartTls), "x");
        assert_end_is_told(dialogue, &says[..count], name);
    }
}

#[test]
fn extensions_that_are_not_printable_or_too_long_are_not_learnt() {
    let ehlo = format!(
        "250-x\r\n250-SIZE 1\r\n250-\r\n250-B\x1b\r\n250-{}\r\n250 DSN\r\n",
        "x".repeat(507)
    );
    let run = run(oauth(UpstreamSecurity::Secured), &["220 x\r\n", &ehlo]);
    assert_eq!(run.learned, [(Moment::BeforeLogin, "SIZE 1, DSN".to_owned())]);
}

#[test]
fn an_upstream_that_echoes_the_credential_is_not_repeated() {
    let blob = blob(Mechanism::XOAuth2);
    for echo in [
        format!("500 unknown command AUTH XOAUTH2 {blob}\r\n"),
        format!("535-5.7.8 no\r\n535 {TOKEN} is bad\r\n"),
        format!("250 {blob}\r\n"),
        format!("AUTH {blob}\r\n"),
        format!("334 {blob}\r\n535 no\r\n"),
    ] {
        let ehlo = "250-x\r\n250 AUTH XOAUTH2\r\n";
        let run = run(oauth(UpstreamSecurity::Secured), &["220 x\r\n", ehlo, &echo]);
        let seen = format!("{:?} {:?}", &run.did[2..], run.outcome);
        assert!(
            run.outcome.is_some() && !seen.contains(blob.split_at(20).0) && !seen.contains(TOKEN.split_at(16).0),
            "{seen}"
        );
    }
}

#[test]
fn neither_steps_nor_the_dialogue_print_a_credential() {
    let mut dialogue = SmtpUpstream::new(oauth(UpstreamSecurity::Secured), "x");
    dialogue.handle_bytes(b"220 x\r\n250-x\r\n250 AUTH XOAUTH2\r\n");
    let steps: Vec<UpstreamStep> = std::iter::from_fn(|| dialogue.poll_step()).collect();
    assert_eq!(
        format!("{dialogue:?} {steps:?}"),
        "SmtpUpstream { state: \"waiting for the upstream's answer to AUTH\", .. } \
         [Send(18 bytes), Learned(Said { moment: BeforeLogin, lines: [\"AUTH XOAUTH2\"] }), Send(107 bytes)]"
    );
}

#[test]
fn endless_talk_is_ended() {
    let line = format!("250-{}\r\n", "x".repeat(2000));
    let talk: Vec<&str> = std::iter::once("220 x\r\n")
        .chain(std::iter::repeat_n(line.as_str(), 60))
        .collect();
    let talkative = run(oauth(UpstreamSecurity::Secured), &talk);
    assert!(
        talkative.fault().detail.contains("more than 65536 bytes"),
        "{talkative:?}"
    );
    let long = "x".repeat(9000);
    let endless = run(oauth(UpstreamSecurity::Secured), &["220 x\r\n", &long]);
    assert!(endless.fault().detail.contains("longer than 8192 bytes"), "{endless:?}");
}

/// What an upstream may say in one turn, real and hostile.
const FRAGMENTS: [&str; 18] = [
    "220 x\r\n",
    "250-x\r\n250 AUTH XOAUTH2 PLAIN\r\n",
    "250-x\r\n250 AUTH LOGIN OAUTHBEARER\r\n",
    "250 x\r\n",
    "250-x\r\n",
    "220 go\r\n",
    "334 \r\n",
    "334 e30=\r\n",
    "235 in\r\n",
    "235-in\r\n",
    "535 5.7.8 no\r\n",
    "454 4.7.0 later\r\n",
    "421 bye\r\n",
    "535\n",
    "\r",
    "2",
    "x",
    "220-x\r\n",
];

/// A conversation that goes well up to some turn, then anything.
fn conversations() -> impl Strategy<Value = Vec<&'static str>> {
    let good = ["220 x\r\n", "250-x\r\n250 AUTH XOAUTH2 PLAIN\r\n", "220 go\r\n"];
    let anything = proptest::collection::vec(proptest::sample::select(&FRAGMENTS[..]), 0..12);
    (0..=good.len(), anything).prop_map(move |(count, rest)| [&good[..count], &rest].concat())
}

proptest! {
    #[test]
    fn every_split_comes_to_the_same(
        ready in readies(WITHOUT_STARTTLS),
        says in conversations(),
        piece in 1usize..50,
    ) {
        check_split(run_in_pieces, ready, &says, piece)?;
    }

    #[test]
    fn an_interactive_login_is_the_same_in_any_pieces(
        ready in readies(ALL),
        says in conversations(),
        piece in 1usize..50,
    ) {
        check_interactive_split(run_in_pieces, ready, &says, piece)?;
    }

    #[test]
    fn a_login_ends_with_one_last_step_and_never_shows_the_credential(
        ready in readies(ALL),
        says in conversations(),
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        check_last_step(SmtpUpstream::new(ready, "proxy.example.com"), &says, &bytes)?;
    }
}

#[test]
fn a_client_that_was_promised_chunking_is_not_let_through_to_an_upstream_without() {
    let dial = DialSmtp {
        hostname: "proxy.example.com".into(),
        promised: Arc::new(["CHUNKING".to_owned()]),
    };
    for (ehlo, logs_in) in [
        (&b"220 hi\r\n250-up\r\n250-CHUNKING\r\n250 AUTH XOAUTH2\r\n"[..], true),
        (b"220 hi\r\n250-up\r\n250 AUTH XOAUTH2\r\n", false),
    ] {
        let mut dialogue = dial.dialogue(oauth(UpstreamSecurity::Secured), None);
        dialogue.handle_bytes(ehlo);
        let steps: Vec<String> = std::iter::from_fn(|| dialogue.poll_step())
            .map(|step| format!("{step:?}"))
            .collect();
        assert!(steps.iter().any(|step| step.starts_with("Learned")), "{steps:?}");
        let has_failed = steps.iter().any(|step| step.contains("promised CHUNKING"));
        assert_eq!(has_failed, !logs_in, "{steps:?}");
        // Behind the failure nothing goes out, so that the credential stays here.
        assert_eq!(steps.last().unwrap().starts_with("Send"), logs_in, "{steps:?}");
    }
}

#[test]
fn an_upstream_that_takes_xclient_is_told_of_the_client_and_begins_anew() {
    let told = |remote: &str| UpstreamReady {
        forwarded: Some(forwarded_client(remote)),
        ..oauth(UpstreamSecurity::Secured)
    };
    let login = format!("AUTH XOAUTH2 {}\r\n", blob(Mechanism::XOAuth2));
    let postfix = "250-x\r\n250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n250 AUTH XOAUTH2\r\n";
    let dovecot = "250-x\r\n250-XCLIENT ADDR PORT SESSION TTL\r\n250 AUTH XOAUTH2\r\n";
    let plain = "250-x\r\n250 AUTH XOAUTH2\r\n";
    for (remote, ehlo, expected) in [
        (
            "192.0.2.7:40001",
            postfix,
            "XCLIENT ADDR=192.0.2.7 PORT=40001 NAME=[UNAVAILABLE] DESTADDR=127.0.0.1 DESTPORT=993\r\n",
        ),
        (
            "[2001:db8::7]:1",
            dovecot,
            "XCLIENT ADDR=IPV6:2001:db8::7 PORT=1 SESSION=17\r\n",
        ),
        (
            "[::ffff:192.0.2.7]:1",
            "250-x\r\n250-XCLIENT ADDR\r\n250 AUTH XOAUTH2\r\n",
            "XCLIENT ADDR=192.0.2.7\r\n",
        ),
    ] {
        let says = ["220 x\r\n", ehlo, "220 x\r\n", ehlo, "235 in\r\n"];
        let run = run(told(remote), &says);
        let sent: Vec<&str> = run
            .did
            .iter()
            .map(String::as_str)
            .filter(|did| !did.starts_with('<'))
            .collect();
        let [hello, xclient, again, auth] = sent[..] else {
            panic!("{sent:?}");
        };
        assert_eq!((xclient, again, auth), (expected, hello, login.as_str()));
        run.for_client();
    }
    // Where it is refused the login goes on; where it is not offered, or the client is not to be told of, nobody asks.
    for (ready, says) in [
        (
            told("192.0.2.7:1"),
            &["220 x\r\n", postfix, "550 5.7.0 no\r\n", "235 in\r\n"][..],
        ),
        (told("192.0.2.7:1"), &["220 x\r\n", plain, "235 in\r\n"]),
        (
            told("192.0.2.7:1"),
            &[
                "220 x\r\n",
                "250-x\r\n250-XCLIENT PORT\r\n250 AUTH XOAUTH2\r\n",
                "235 in\r\n",
            ],
        ),
        (oauth(UpstreamSecurity::Secured), &["220 x\r\n", postfix, "235 in\r\n"]),
    ] {
        let run = run(ready, says);
        assert_eq!(run.did.last(), Some(&login), "{:?}", run.did);
        run.for_client();
    }
    let closing = run(told("192.0.2.7:1"), &["220 x\r\n", postfix, "421 4.3.2 bye\r\n"]);
    closing.assert_unavailable("upstream says 421 4.3.2 bye, waiting for the upstream's answer to XCLIENT");
}
