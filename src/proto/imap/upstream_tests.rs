//! Whole logins as tables: what the upstream says, piece by piece, and what comes of it.

use proptest::prelude::*;

use super::*;
use crate::fault::{FaultKind, LoginStep};
use crate::proto::testing::login::{
    self, ALL, Run, TOKEN, WITHOUT_STARTTLS, assert_end_is_told, blob, check_interactive_split, check_last_step,
    check_split, oauth, password, readies,
};
use crate::proto::{CredentialSecret, Mechanism};

fn run_in_pieces(ready: UpstreamReady, says: &[&str], piece: usize) -> Run {
    login::run_in_pieces(ImapUpstream::new(ready, None), says, piece)
}

fn run(ready: UpstreamReady, says: &[&str]) -> Run {
    run_in_pieces(ready, says, usize::MAX)
}

const OUR_ID: &str = concat!(
    "P1 ID (\"name\" \"portreeve\" \"version\" \"",
    env!("CARGO_PKG_VERSION"),
    "\")\r\n"
);

const GMAIL: &str = "IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 XYZZY SASL-IR AUTH=XOAUTH2 \
                     AUTH=PLAIN AUTH=PLAIN-CLIENTTOKEN AUTH=OAUTHBEARER";

const EXCHANGE: &str =
    "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+";

/// What Google says to a bad token.
const GMAIL_CHALLENGE: &str =
    "+ eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJodHRwczovL21haWwuZ29vZ2xlLmNvbS8ifQ==\r\n";

#[test]
fn gmail_asks_for_capabilities_and_lists_them_before_its_ok() {
    let before = format!("* CAPABILITY {GMAIL}\r\nP1 OK Thats all she wrote! ab1\r\n");
    let run = run(
        oauth(UpstreamSecurity::Secured),
        &[
            "* OK Gimap ready for requests from 192.0.2.1 ab1\r\n",
            &before,
            "* ID (\"name\" \"GImap\" \"vendor\" \"Google, Inc.\")\r\nP2 OK Success ab1\r\n",
            "* CAPABILITY IMAP4rev1 IDLE MOVE\r\nP3 OK ada@example.com authenticated (Success)\r\n* OK later\r\n",
        ],
    );
    let id = OUR_ID.replace("P1", "P2");
    assert_eq!(
        run.did,
        [
            "P1 CAPABILITY\r\n".to_owned(),
            format!("{id}P3 AUTHENTICATE OAUTHBEARER {}\r\n", blob(Mechanism::OAuthBearer))
        ]
    );
    assert_eq!(run.for_client(), "* CAPABILITY IMAP4rev1 IDLE MOVE\r\n");
    assert_eq!(run.surplus(), "* OK later\r\n");
    let before = (Moment::BeforeLogin, "IDLE, NAMESPACE, UNSELECT, CHILDREN".to_owned());
    assert_eq!(run.learned, [before, (Moment::AfterLogin, "IDLE, MOVE".to_owned())]);
}

#[test]
fn gmails_challenge_to_a_bad_token_is_answered_and_reported() {
    for (offered, answer, mechanism) in [
        (GMAIL.to_owned(), "AQ==\r\n", Mechanism::OAuthBearer),
        (GMAIL.replace("AUTH=OAUTHBEARER", ""), "\r\n", Mechanism::XOAuth2),
    ] {
        let greeting = format!("* OK [CAPABILITY {offered}] Gimap\r\n");
        let run = run(
            oauth(UpstreamSecurity::Secured),
            &[
                &greeting,
                "* ID NIL\r\nP1 OK Success\r\n",
                "* CAPABILITY IMAP4rev1\r\n",
                GMAIL_CHALLENGE,
                "P2 NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)\r\n",
            ],
        );
        assert_eq!(
            run.did,
            [
                format!("{OUR_ID}P2 AUTHENTICATE {} {}\r\n", mechanism.name(), blob(mechanism)),
                r#"<challenge {"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}>"#.to_owned(),
                answer.to_owned(),
            ]
        );
        assert_eq!(
            run.refusal(),
            (Some("AUTHENTICATIONFAILED"), "Invalid credentials (Failure)", true)
        );
    }
}

#[test]
fn exchange_refuses_without_challenge_and_lists_nothing_unasked() {
    let greeting = "* OK The Microsoft Exchange IMAP4 service is ready. [TABPAA==]\r\n";
    let before = format!("* CAPABILITY {EXCHANGE}\r\nP1 OK CAPABILITY completed.\r\n");
    let refused = run(
        oauth(UpstreamSecurity::Secured),
        &[
            greeting,
            &before,
            "* ID (\"name\" \"x\")\r\nP2 OK ID completed\r\nP3 NO AUTHENTICATE failed.\r\n",
        ],
    );
    assert_eq!(refused.refusal(), (None, "AUTHENTICATE failed.", true));

    let accepted = run(
        oauth(UpstreamSecurity::Secured),
        &[
            greeting,
            &before,
            "* ID NIL\r\nP2 OK ID completed\r\nP3 OK AUTHENTICATE completed.\r\n",
            "* CAPABILITY IMAP4 IMAP4rev1 MOVE\r\nP4 OK CAPABILITY completed.\r\n",
        ],
    );
    assert_eq!(accepted.did.last().map(String::as_str), Some("P4 CAPABILITY\r\n"));
    assert_eq!(accepted.for_client(), "* CAPABILITY IMAP4 IMAP4rev1 MOVE\r\n");

    let throttled = run(
        oauth(UpstreamSecurity::Secured),
        &[
            greeting,
            &before,
            "P2 OK\r\nP3 BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds\r\n",
        ],
    );
    assert_eq!(throttled.fault().kind, FaultKind::Unavailable);
    assert!(throttled.fault().detail.contains("299961"), "{:?}", throttled.fault());
}

#[test]
fn an_exchange_that_is_not_connected_to_its_mailbox_is_still_handed_over() {
    let greeting = format!("* OK [CAPABILITY {EXCHANGE}] ready\r\n");
    let run = run(
        oauth(UpstreamSecurity::Secured),
        &[
            &greeting,
            "P1 OK\r\nP2 OK AUTHENTICATE completed.\r\n",
            "P3 BAD User is authenticated but not connected.\r\n",
        ],
    );
    assert_eq!((run.for_client(), run.surplus()), ("", ""));
}

#[test]
fn dovecot_gives_its_list_in_the_code_and_what_it_sends_behind_is_kept() {
    let run = run(
        oauth(UpstreamSecurity::Secured),
        &[
            "* OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=OAUTHBEARER \
             AUTH=XOAUTH2] Dovecot (Debian) ready.\r\n",
            "* ID (\"name\" \"Dovecot\")\r\nP1 OK ID completed.\r\n* OK Waiting for authentication process to \
             respond..\r\nP2 OK [CAPABILITY IMAP4rev1 IDLE QUOTA] Logged in\r\n* 1 FETCH (BODY[] {3}\r\nP2 ",
        ],
    );
    assert_eq!(
        run.for_client(),
        "* OK Waiting for authentication process to respond..\r\n* CAPABILITY IMAP4rev1 IDLE QUOTA\r\n"
    );
    assert_eq!(run.surplus(), "* 1 FETCH (BODY[] {3}\r\nP2 ");
    assert_eq!(run.state, "logged in to the upstream");
}

#[test]
fn yandex_invites_with_a_bare_plus() {
    let run = run(
        oauth(UpstreamSecurity::Secured),
        &[
            "* OK Yandex IMAP4rev1 at iva1.mail.yandex.net\r\n",
            "* CAPABILITY IMAP4rev1 CHILDREN AUTH=PLAIN AUTH=XOAUTH2 ID\r\nP1 OK CAPABILITY Completed.\r\n",
            "P2 OK ID Completed.\r\n",
            "+\r\n",
            "P3 OK AUTHENTICATE Completed.\r\n",
            "* CAPABILITY IMAP4rev1 MOVE\r\nP4 OK CAPABILITY Completed.\r\n",
        ],
    );
    assert_eq!(
        run.did[1..],
        [
            format!("{}P3 AUTHENTICATE XOAUTH2\r\n", OUR_ID.replace("P1", "P2")),
            format!("{}\r\n", blob(Mechanism::XOAuth2)),
            "P4 CAPABILITY\r\n".to_owned()
        ]
    );
    assert_eq!(run.for_client(), "* CAPABILITY IMAP4rev1 MOVE\r\n");
}

#[test]
fn the_capability_list_after_login_reaches_the_client_exactly_once() {
    let greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] hi\r\n";
    for after in [
        &["P1 OK [CAPABILITY NEW] in\r\n"][..],
        &["* CAPABILITY NEW\r\nP1 OK in\r\n"],
        &["* OK [CAPABILITY NEW] x\r\nP1 OK in\r\n"],
        &["* CAPABILITY LESS\r\n* CAPABILITY NEW\r\nP1 OK in\r\n"],
        &["* CAPABILITY LESS\r\nP1 OK [CAPABILITY NEW] in\r\n"],
    ] {
        let says: Vec<&str> = std::iter::once(greeting).chain(after.iter().copied()).collect();
        assert_eq!(
            run(oauth(UpstreamSecurity::Secured), &says).for_client(),
            "* CAPABILITY NEW\r\n",
            "{after:?}"
        );
    }
    let plain = "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] hi\r\n";
    for asked in [
        "* CAPABILITY NEW\r\nP2 OK\r\n",
        "* CAPABILITY NEW\r\n* CAPABILITY NEW\r\nP2 OK [CAPABILITY NEW]\r\n",
        "P2 OK [CAPABILITY NEW] done\r\n",
    ] {
        // The list before the invitation is one from before the login.
        let says = [plain, "* CAPABILITY IMAP4rev1 OLD\r\n+ \r\n", "P1 OK in\r\n", asked];
        let run = run(oauth(UpstreamSecurity::Secured), &says);
        assert_eq!(run.for_client(), "* CAPABILITY NEW\r\n", "{asked:?}");
    }
}

#[test]
fn alerts_and_data_from_inside_tls_reach_the_client_whole() {
    let says = [
        "* OK [ALERT] down at noon\r\n",
        "* CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2 ID\r\n* BAD [ALERT] hm\nP1 OK\r\n",
        "* ID (\"a\" {4}\r\n\r\nP3 \"b\" NIL)\r\nP2 OK\r\n* X-NOTE {6}\r\n* BYE\r {2}\r\n\r\n.\r\n",
        "P3 OK [ALERT] quota\r\n",
        "* NO full\r\n* CAPABILITY IMAP4rev1\r\nP4 OK\r\n",
    ];
    let secured = run(oauth(UpstreamSecurity::Secured), &says);
    assert_eq!(
        secured.for_client(),
        "* OK [ALERT] down at noon\r\n* BAD [ALERT] hm\r\n* X-NOTE {6}\r\n* BYE\r {2}\r\n\r\n.\r\n* OK [ALERT] quota\r\n\
         * NO full\r\n* CAPABILITY IMAP4rev1\r\n"
    );
    let clear = run(oauth(UpstreamSecurity::Clear), &says);
    assert_eq!(clear.for_client(), "* NO full\r\n* CAPABILITY IMAP4rev1\r\n");
}

#[test]
fn what_is_said_for_the_owner_goes_with_whatever_the_login_fails_for() {
    let link = "NO [WEBALERT https://accounts.example/signin?x=1] Web login required.";
    let blob = blob(Mechanism::XOAuth2);
    let says = |end: &str| {
        let login = format!(
            "* {link}\r\n* CAPABILITY IMAP4rev1\r\n* LIST () \"/\" x\r\n* BAD hm\r\n* OK [ALERT] caf\u{e9} {blob}\r\n\
             * OK [ALERT] closed \x07 at noon\r\n{end}"
        );
        let greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] hi\r\n".to_owned();
        [greeting, login]
    };
    for end in [
        "P1 NO [ALERT] Please log in (Failure)\r\n",
        "P1 NO hm\r\n",
        "* BYE bye\r\n",
        "P1 BAD what?\r\n",
    ] {
        let says = says(end);
        let says = [says[0].as_str(), says[1].as_str()];
        let secured = run(oauth(UpstreamSecurity::Secured), &says);
        // The echo of what was sent is left out with its whole response.
        assert_eq!(secured.fault().alerts(), [link, "OK [ALERT] closed   at noon"], "{end}");
        let clear = run(oauth(UpstreamSecurity::Clear), &says);
        assert_eq!(clear.fault().alerts(), [""; 0], "in clear it may be anybody's word");
    }
    let many = "* OK [ALERT] again\r\n".repeat(100);
    let says = [
        "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] hi\r\n",
        &many,
        "P1 NO no\r\n",
    ];
    let flooded = run(oauth(UpstreamSecurity::Secured), &says);
    assert_eq!(flooded.fault().alerts().len(), crate::limits::UPSTREAM_ALERTS_MAX);
}

#[test]
fn a_server_that_turns_us_away_is_known_by_how_far_we_came() {
    for (security, says, step, code) in [
        (
            UpstreamSecurity::Secured,
            &["* BYE [UNAVAILABLE] no\r\n"][..],
            LoginStep::Greeting,
            Some("UNAVAILABLE"),
        ),
        (UpstreamSecurity::Secured, &["* NO no\r\n"], LoginStep::Greeting, None),
        (
            UpstreamSecurity::StartTls,
            &["* OK hi\r\n", "P1 NO no\r\n"],
            LoginStep::StartTls,
            None,
        ),
        (
            UpstreamSecurity::Secured,
            &["* OK hi\r\n", "P1 BAD no\r\n"],
            LoginStep::Capabilities,
            None,
        ),
        (
            UpstreamSecurity::Secured,
            &[
                "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] hi\r\n",
                "P1 NO no\r\n",
            ],
            LoginStep::Login,
            None,
        ),
    ] {
        let run = run(oauth(security), says);
        let said = run.fault().said.as_ref().unwrap();
        assert_eq!(
            (said.step, said.code.as_deref(), said.text.as_str()),
            (step, code, "no"),
            "{says:?}"
        );
    }
    let unheard = run(oauth(UpstreamSecurity::Secured), &["HTTP/1.1 400 Bad Request\r\n"]);
    assert_eq!(unheard.fault().said, None, "no words of this protocol");
}

#[test]
fn behind_a_starttls_that_is_over_capabilities_come_first_and_no_greeting_is_awaited() {
    let run = run(
        oauth(UpstreamSecurity::Upgraded),
        &[
            "* CAPABILITY IMAP4rev1 AUTH=OAUTHBEARER\r\nP2 OK done\r\n",
            "+ \r\n",
            "* 1 EXISTS\r\nP3 OK [CAPABILITY IMAP4rev1] in\r\n",
        ],
    );
    assert_eq!(
        run.did,
        [
            "P2 CAPABILITY\r\n".to_owned(),
            "P3 AUTHENTICATE OAUTHBEARER\r\n".to_owned(),
            format!("{}\r\n", blob(Mechanism::OAuthBearer)),
        ]
    );
    assert_eq!(run.for_client(), "* 1 EXISTS\r\n* CAPABILITY IMAP4rev1\r\n");
}

#[test]
fn what_was_said_before_starttls_is_forgotten() {
    let run = run(
        oauth(UpstreamSecurity::StartTls),
        &[
            "* OK [CAPABILITY IMAP4rev1 STARTTLS SASL-IR AUTH=PLAIN AUTH=XOAUTH2] ready\r\n",
            "* OK [ALERT] visit evil.example\r\n* CAPABILITY SASL-IR AUTH=PLAIN\r\n* LIST () \"/\" x\r\nP1 OK go\r\n",
            "* CAPABILITY IMAP4rev1 AUTH=OAUTHBEARER\r\nP2 OK done\r\n",
            "+ \r\n",
            "* 1 EXISTS\r\nP3 OK [CAPABILITY IMAP4rev1] in\r\n",
        ],
    );
    assert_eq!(
        run.did,
        [
            "P1 STARTTLS\r\n".to_owned(),
            "<TLS>".to_owned(),
            "P2 CAPABILITY\r\n".to_owned(),
            "P3 AUTHENTICATE OAUTHBEARER\r\n".to_owned(),
            format!("{}\r\n", blob(Mechanism::OAuthBearer)),
        ]
    );
    assert_eq!(run.for_client(), "* 1 EXISTS\r\n* CAPABILITY IMAP4rev1\r\n");
}

#[test]
fn data_in_clear_behind_the_ok_of_starttls_is_an_injection() {
    for injected in ["P2 OK [CAPABILITY AUTH=XOAUTH2] x\r\n", "* ", "\r\n", "\x16\x03\x03"] {
        let answer = format!("P1 OK go\r\n{injected}");
        let run = run(oauth(UpstreamSecurity::StartTls), &["* OK hi\r\n", &answer]);
        assert_eq!(run.did, ["P1 STARTTLS\r\n"], "no handshake: {injected:?}");
        assert_eq!(run.fault(), &injected_fault());
    }
    // In a piece of its own, before the handshake was done.
    let mut dialogue = ImapUpstream::new(oauth(UpstreamSecurity::StartTls), None);
    dialogue.handle_bytes(b"* OK hi\r\nP1 OK go\r\n");
    assert!(matches!(dialogue.poll_step(), Some(UpstreamStep::Send(_))));
    assert!(matches!(dialogue.poll_step(), Some(UpstreamStep::Secure)));
    dialogue.handle_bytes(b"*");
    assert!(matches!(dialogue.poll_step(), Some(UpstreamStep::Failed(fault)) if fault == injected_fault()));
    dialogue.handle_secured();
    assert!(dialogue.poll_step().is_none());
}

fn injected_fault() -> Fault {
    super::injected()
}

#[test]
fn starttls_that_is_refused_or_avoided_ends_the_login_before_the_credential() {
    for (says, detail) in [
        (
            &["* OK hi\r\n", "P1 NO not now\r\n"][..],
            "upstream refuses STARTTLS: not now",
        ),
        (&["* OK hi\r\n", "P1 BAD what?\r\n"], "upstream refuses STARTTLS: what?"),
        (&["* PREAUTH hi\r\n"], "PREAUTH"),
        (
            &["* OK hi\r\n", "* BYE sorry\r\n"],
            "BYE, waiting for the upstream's answer to STARTTLS: sorry",
        ),
        (&["* OK hi\r\n", "P2 OK go\r\n"], "unexpected response"),
        (&["* OK hi\r\n", "+ go\r\n"], "unexpected response"),
    ] {
        let run = run(oauth(UpstreamSecurity::StartTls), says);
        assert_eq!(run.fault().kind, FaultKind::Unavailable);
        assert!(run.fault().detail.contains(detail), "{:?}", run.fault());
        assert!(run.did.iter().all(|write| write == "P1 STARTTLS\r\n"));
    }
}

#[test]
fn a_greeting_that_is_none_ends_the_login() {
    for (greeting, detail) in [
        (
            "* PREAUTH welcome\r\n",
            "upstream greets with PREAUTH, which is refused",
        ),
        (
            "* BYE [UNAVAILABLE] Too many connections\r\n",
            "upstream says BYE, waiting for the upstream's greeting: Too many connections",
        ),
        (
            "HTTP/1.1 400 Bad Request\r\n",
            "upstream sent an unexpected response, waiting for the upstream's greeting: HTTP/1.1 400 Bad Request",
        ),
        (
            "+OK POP3\r\n",
            "upstream sent an unexpected response, waiting for the upstream's greeting: +OK POP3",
        ),
        (
            "* 1 EXISTS\r\n",
            "upstream sent an unexpected response, waiting for the upstream's greeting: * 1 EXISTS",
        ),
    ] {
        for security in [
            UpstreamSecurity::Secured,
            UpstreamSecurity::Clear,
            UpstreamSecurity::StartTls,
        ] {
            let run = run(oauth(security), &[greeting]);
            run.assert_unavailable(detail);
            assert!(run.did.is_empty());
        }
    }
}

#[test]
fn every_state_says_where_the_login_was_when_the_upstream_went_away() {
    let says = [
        "* OK hi\r\n",
        "P1 OK\r\n",
        "* CAPABILITY AUTH=XOAUTH2\r\nP2 OK\r\n",
        "+\r\n",
        "P3 OK\r\n",
    ];
    let names = [
        "waiting for the upstream's greeting",
        "waiting for the upstream's answer to STARTTLS",
        "waiting for the upstream's answer to CAPABILITY",
        "waiting for the upstream's invitation to go on with AUTHENTICATE",
        "waiting for the upstream's answer to AUTHENTICATE",
        "waiting for the upstream's capabilities after login",
    ];
    for (count, name) in names.iter().enumerate() {
        let dialogue = ImapUpstream::new(oauth(UpstreamSecurity::StartTls), None);
        assert_end_is_told(dialogue, &says[..count], name);
    }
}

#[test]
fn a_password_logs_in_by_plain_or_by_login() {
    let plain = run(
        password(UpstreamSecurity::Secured),
        &[
            "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hi\r\n",
            "P1 OK [CAPABILITY X] in\r\n",
        ],
    );
    assert_eq!(
        plain.did,
        ["P1 AUTHENTICATE PLAIN AGFkYUBleGFtcGxlLmNvbQBjb3JyZWN0IGhvcnNlIGJhdHRlcnk=\r\n"]
    );
    assert_eq!(plain.for_client(), "* CAPABILITY X\r\n");

    let login = run(
        password(UpstreamSecurity::Secured),
        &[
            "* OK [CAPABILITY IMAP4rev1 ID] hi\r\n",
            "P1 OK\r\nP2 NO [AUTHENTICATIONFAILED] wrong\r\n",
        ],
    );
    assert_eq!(
        login.did,
        [format!(
            "{OUR_ID}P2 LOGIN \"ada@example.com\" \"correct horse battery\"\r\n"
        )]
    );
    assert_eq!(login.refusal(), (Some("AUTHENTICATIONFAILED"), "wrong", true));
}

#[test]
fn literals_of_login_wait_for_their_invitations() {
    let mut ready = password(UpstreamSecurity::Secured);
    ready.credential.user = "ädä".to_owned();
    ready.credential.secret = CredentialSecret::Password("pässwörd".to_owned().into());
    let greeting = "* OK [CAPABILITY IMAP4rev1] hi\r\n";
    let accepted = run(ready, &[greeting, "+ go\r\n", "+\r\n", "P1 OK [CAPABILITY X] in\r\n"]);
    assert_eq!(accepted.did, ["P1 LOGIN {5}\r\n", "ädä {10}\r\n", "pässwörd\r\n"]);
    assert_eq!(accepted.for_client(), "* CAPABILITY X\r\n");
}

#[test]
fn a_challenge_that_makes_no_sense_is_cancelled_and_a_second_one_is_the_end() {
    let greeting = "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hi\r\n";
    let cancelled = run(
        password(UpstreamSecurity::Secured),
        &[greeting, "+ ?\r\n", "P1 BAD cancelled\r\n"],
    );
    assert_eq!(cancelled.did[1..], ["<challenge ?>", "*\r\n"]);
    assert_eq!(cancelled.fault().kind, FaultKind::Unavailable);

    let endless = run(
        oauth(UpstreamSecurity::Secured),
        &[
            "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR] hi\r\n",
            "+ e30=\r\n",
            "+ e30=\r\n",
        ],
    );
    assert_eq!(endless.did[1..], ["<challenge {}>", "\r\n"]);
    assert!(
        endless.fault().detail.contains("unexpected response"),
        "{:?}",
        endless.fault()
    );
}

#[test]
fn an_upstream_that_echoes_the_credential_is_not_repeated() {
    let greeting = "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR] hi\r\n";
    let blob = blob(Mechanism::XOAuth2);
    for echo in [
        format!("P1 BAD unknown command AUTHENTICATE XOAUTH2 {blob}\r\n"),
        format!("P1 NO {TOKEN} is bad\r\n"),
        format!("* BYE {blob}\r\n"),
        format!("AUTHENTICATE {blob}\r\n"),
        format!("+ {blob}\r\nP1 NO no\r\n"),
        format!("* OK {blob}\r\nP1 OK [CAPABILITY X] in\r\n"),
    ] {
        let run = run(oauth(UpstreamSecurity::Secured), &[greeting, &echo]);
        let seen = format!("{:?} {:?}", &run.did[1..], run.outcome);
        assert!(
            run.outcome.is_some() && !seen.contains(blob.split_at(20).0) && !seen.contains(TOKEN.split_at(16).0),
            "{seen}"
        );
    }
}

#[test]
fn neither_steps_nor_the_dialogue_print_a_credential() {
    let mut dialogue = ImapUpstream::new(oauth(UpstreamSecurity::Secured), None);
    dialogue.handle_bytes(b"* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR] hi\r\n");
    let steps: Vec<_> = std::iter::from_fn(|| dialogue.poll_step()).collect();
    let seen = format!("{dialogue:?} {steps:?}");
    assert_eq!(
        seen,
        "ImapUpstream { state: \"waiting for the upstream's answer to AUTHENTICATE\", .. } \
         [Learned(Said { moment: BeforeLogin, lines: [] }), Send(118 bytes)]"
    );
}

#[test]
fn an_upstream_without_our_mechanism_is_not_blamed_on_the_credential() {
    let run = run(
        oauth(UpstreamSecurity::Secured),
        &["* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n"],
    );
    run.assert_unavailable("login needs OAUTHBEARER or XOAUTH2, but the upstream offers AUTH=PLAIN");
    assert!(run.did.is_empty());
}

#[test]
fn endless_talk_is_ended() {
    let line = format!("* OK {}\r\n", "x".repeat(1000));
    let talk: Vec<&str> = std::iter::once("* OK hi\r\n")
        .chain(std::iter::repeat_n(line.as_str(), 100))
        .collect();
    let talkative = run(oauth(UpstreamSecurity::Secured), &talk);
    assert!(
        talkative.fault().detail.contains("more than 65536 bytes"),
        "{:?}",
        talkative.fault()
    );

    let long = "x".repeat(9000);
    let endless = run(oauth(UpstreamSecurity::Secured), &["* OK hi\r\n", &long]);
    assert!(
        endless.fault().detail.contains("longer than 8192 bytes"),
        "{:?}",
        endless.fault()
    );
}

#[test]
fn a_late_answer_to_id_does_not_reach_the_client() {
    let run = run(
        oauth(UpstreamSecurity::Secured),
        &[
            "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR ID] hi\r\n",
            "P2 OK [CAPABILITY X] in\r\n",
            "* ID NIL\r\nP1 OK\r\n* 1 EXISTS\r\n",
        ],
    );
    assert_eq!(
        (run.for_client(), run.surplus()),
        ("* CAPABILITY X\r\n", "* 1 EXISTS\r\n")
    );
}

/// What an upstream may say in one turn, real and hostile.
const FRAGMENTS: [&str; 22] = [
    "* OK hi\r\n",
    "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=PLAIN ID] hi\r\n",
    "* OK [ALERT] alert\n",
    "* CAPABILITY IMAP4rev1 AUTH=OAUTHBEARER\r\n",
    "* CAPABILITY IMAP4rev1 ID\r\n",
    "* ID (\"a\" {3}\r\nb\r\n)\r\n",
    "* LIST {12}\r\nP1 OK x\r\n\r\n.\r\n",
    "* BYE\r\n",
    "* PREAUTH x\r\n",
    "+\r\n",
    "+ e30=\r\n",
    "P1 OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] x\r\n",
    "P1 OK\r\n",
    "P2 OK x\r\n",
    "P2 NO [LIMIT] x\r\n",
    "P3 OK [CAPABILITY X] x\r\n",
    "P3 NO x\r\n",
    "P4 OK x\r\n",
    "{3}\r\n",
    "\r",
    "* 1 EXISTS {2}\r\n",
    "x",
];

proptest! {
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
        check_interactive_split(run_in_pieces, ready, &says, piece)?;
    }

    #[test]
    fn a_login_ends_with_one_last_step_and_never_shows_the_credential(
        ready in readies(ALL),
        says in proptest::collection::vec(proptest::sample::select(&FRAGMENTS[..]), 0..20),
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        check_last_step(ImapUpstream::new(ready, None), &says, &bytes)?;
    }
}
