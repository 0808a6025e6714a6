//! Whole sessions on a virtual clock, as transcripts.
//!
//! `C:` the client sends a line, `S:` the proxy answers one; `<` a fact that the driver tells, `>` an action that it is given.
//! What stands behind an input is all that follows from it.

mod pop3;
mod smtp;

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::fault::{FaultKind, UpstreamRefusal};
use crate::limits::PIPELINED_BYTES_MAX;
use crate::proto::testing::{OAUTH_TOKEN, context, imap_session, pop3_session, proptest_config, ready, smtp_session};
use crate::secret::ExposeSecret;

/// Plays a transcript against a session and compares.
fn play(context: &SessionContext, transcript: &str) {
    let mut now = Instant::now();
    let mut session = match context.protocol {
        Protocol::Imap => imap_session(context, now),
        Protocol::Smtp => smtp_session(context, now),
        // With the protocol's own upstream leg.
        Protocol::Pop3 => Session::new(context, now),
    };
    let mut played = String::new();
    for line in transcript.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "C:" => {
                let bytes = rest.replace("⏎", "\r\n") + if rest.ends_with('…') { "" } else { "\r\n" };
                session.handle(Input::ClientBytes(bytes.replace('…', "").as_bytes()), now);
            }
            "<" => tell(&mut session, rest, &mut now),
            _ => continue,
        }
        played += &format!("{line}\n");
        while let Some(action) = session.poll_action() {
            played += &shown(&action);
        }
    }
    let expected: String = transcript
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(played, expected, "\n--- played:\n{played}");
}

fn tell(session: &mut Session, fact: &str, now: &mut Instant) {
    let fault = Fault::new;
    let input = match fact {
        "opened" => Input::Opened,
        "eof" => Input::ClientEof,
        "admitted" => Input::LoginChecked(Ok(Admission {
            account: "example".to_owned(),
        })),
        "unknown" => Input::LoginChecked(Err(fault(FaultKind::UnknownCredentials))),
        "store is down" => Input::LoginChecked(Err(fault(FaultKind::Unavailable))),
        "connected" => Input::UpstreamConnected(Ok(ready(7, UpstreamSecurity::Secured))),
        "connected again" => Input::UpstreamConnected(Ok(ready(8, UpstreamSecurity::Secured))),
        "connected, starttls" => Input::UpstreamConnected(Ok(ready(7, UpstreamSecurity::StartTls))),
        "unavailable" => Input::UpstreamConnected(Err(fault(FaultKind::Unavailable))),
        "grant is gone" => Input::UpstreamConnected(Err(fault(FaultKind::AuthorizationGone))),
        "no other token" => Input::UpstreamConnected(Err(fault(FaultKind::UpstreamRefused(UpstreamRefusal {
            code: None,
            text: "No other".to_owned(),
            blames_credential: true,
        })))),
        "client secured" => Input::ClientSecured,
        "secured" => Input::UpstreamSecured(Ok(())),
        "upstream eof" => Input::UpstreamEof,
        "shutting down" => Input::Goodbye(Goodbye::ShuttingDown),
        other => match other.split_once(' ') {
            Some(("upstream", said)) => {
                let bytes = said.replace('⏎', "\r\n");
                session.handle(Input::UpstreamBytes(bytes.as_bytes()), *now);
                return;
            }
            Some(("wait", seconds)) => {
                *now += Duration::from_secs(seconds.parse().unwrap());
                Input::DeadlinePassed
            }
            _ => panic!("unknown fact: {fact}"),
        },
    };
    session.handle(input, *now);
}

fn shown(action: &Action) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).replace("\r\n", "⏎");
    match action {
        Action::SendClient(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            assert!(text.ends_with("\r\n"), "{text:?}");
            text.split_terminator("\r\n")
                .map(|line| format!("S: {line}").trim_end().to_owned() + "\n")
                .collect()
        }
        Action::CheckLogin(request) => format!(
            "> check {} {} {}\n",
            request.user.as_deref().unwrap_or("-"),
            request.secret.expose_secret(),
            request.mechanism.map_or("command", Mechanism::name)
        ),
        Action::ConnectUpstream { refused } => format!("> connect {refused:?}\n"),
        Action::SendUpstream(bytes) => format!("> upstream {}\n", text(bytes)),
        Action::BeginRelay { to_client, to_upstream } => {
            format!("> relay client<{}> upstream<{}>\n", text(to_client), text(to_upstream))
        }
        Action::Report(Report::LoginRefused { user, fault }) => {
            format!("> refused {} {fault}\n", user.as_deref().unwrap_or("-"))
        }
        Action::Report(Report::Ended(fault)) => format!("> ended {fault}\n"),
        Action::Report(Report::UpstreamSaid(said)) => {
            format!("> said {:?} [{}]\n", said.moment, said.lines.join(", "))
        }
        Action::Report(report) => format!("> {report:?}\n"),
        action => format!("> {action:?}\n"),
    }
}

/// The begin that most transcripts share.
const GREETED: &str = "
    < opened
    S: * OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN] Portreeve IMAP proxy ready for requests from 127.0.0.1
";

#[track_caller]
fn play_greeted(transcript: &str) {
    play(&context(), &format!("{GREETED}{transcript}"));
}

#[test]
fn a_login_is_handed_over() {
    play_greeted(
        "C: A LOGIN joe 5ecret
         > check joe 5ecret command
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎
         < upstream OK
         S: * CAPABILITY IMAP4rev1 IDLE
         S: A OK example authenticated
         > LoggedIn
         > relay client<* 1 EXISTS⏎> upstream<>",
    );
}

#[test]
fn a_login_follows_starttls_and_what_was_said_in_clear_is_forgotten() {
    let mut context = context();
    (context.security, context.plaintext_login) = (ClientSecurity::StartTls, false);
    play(
        &context,
        "< opened
         S: * OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID STARTTLS LOGINDISABLED] Portreeve IMAP proxy ready for requests from 127.0.0.1
         C: A ID (\"name\" \"clear\")
         S: * ID (\"name\" \"portreeve\" \"version\" \"0.1.0\")
         S: A OK ID completed
         > ClientIdentified(\"name=clear\")
         C: B STARTTLS
         S: B OK Begin TLS now
         > SecureClient
         < client secured
         C: C CAPABILITY
         S: * CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN
         S: C OK CAPABILITY completed
         C: D STARTTLS
         S: D BAD STARTTLS is not offered
         C: E LOGIN joe 5ecret
         > check joe 5ecret command
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎",
    );
}

#[test]
fn bytes_in_clear_behind_starttls_end_the_session() {
    let mut context = context();
    context.security = ClientSecurity::StartTls;
    play(
        &context,
        "< opened
         S: * OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN] Portreeve IMAP proxy ready for requests from 127.0.0.1
         C: A STARTTLS⏎B CAPABILITY
         S: * BYE Nothing may follow STARTTLS in clear
         > ended starttls injection
         > Close",
    );
}

#[test]
fn a_handshake_with_the_client_ends_silently() {
    let mut context = context();
    context.security = ClientSecurity::StartTls;
    for (ending, expected) in [
        ("shutting down", "> Close"),
        (
            "wait 60",
            "> ended pre auth timeout: pre_auth_timeout passed while waiting for the TLS handshake with the client
             > Close",
        ),
    ] {
        play(
            &context,
            &format!(
                "< opened
                 S: * OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN] Portreeve IMAP proxy ready for requests from 127.0.0.1
                 C: A STARTTLS
                 S: A OK Begin TLS now
                 > SecureClient
                 < {ending}
                 {expected}"
            ),
        );
    }
}

#[test]
fn commands_before_login_are_answered_in_order() {
    play_greeted(
        r#"C: a CAPABILITY⏎b NOOP⏎c ID ("name" "Mutt" "os" NIL)⏎d XYZZY⏎⏎e SELECT INBOX⏎f STARTTLS⏎g LOGOUT⏎h NOOP
         S: * CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN
         S: a OK CAPABILITY completed
         S: b OK NOOP completed
         S: * ID ("name" "portreeve" "version" "0.1.0")
         S: c OK ID completed
         > ClientIdentified("name=Mutt")
         S: d BAD Unknown command
         S: * BAD A command begins with a tag
         S: e BAD Log in first
         S: f BAD STARTTLS is not offered
         S: * BYE Logging out
         S: g OK LOGOUT completed
         > ended client gone: LOGOUT before a login
         > Close"#,
    );
}

#[test]
fn what_is_pipelined_behind_a_login_waits_for_its_outcome() {
    // Refused: answered by the proxy. Accepted: the upstream's, byte for byte.
    play_greeted(
        "C: A LOGIN joe wrong⏎B CAPABILITY⏎C LOGIN joe right⏎D CAPABILITY⏎E LIST \"\" {1}⏎*⏎F…
         > check joe wrong command
         < unknown
         > refused joe unknown credentials
         S: A NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user
         S: * CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN
         S: B OK CAPABILITY completed
         > check joe right command
         < admitted
         > connect None
         C: G NOOP
         < connected
         > upstream login joe@example.com id 0⏎
         < upstream OK
         S: * CAPABILITY IMAP4rev1 IDLE
         S: C OK example authenticated
         > LoggedIn
         > relay client<* 1 EXISTS⏎> upstream<D CAPABILITY⏎E LIST \"\" {1}⏎*⏎FG NOOP⏎>",
    );
}

#[test]
fn a_client_may_speak_before_the_greeting_and_close_behind_its_login() {
    play(
        &context(),
        "C: A LOGIN joe tok⏎B LOGOUT
         < eof
         < opened
         S: * OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN] Portreeve IMAP proxy ready for requests from 127.0.0.1
         > check joe tok command
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎
         < upstream OK
         S: * CAPABILITY IMAP4rev1 IDLE
         S: A OK example authenticated
         > LoggedIn
         > relay client<* 1 EXISTS⏎> upstream<B LOGOUT⏎>",
    );
}

#[test]
fn end_of_stream_before_login_ends_the_session_after_its_replies() {
    play_greeted(
        "C: A NOOP⏎B LOGIN joe bad⏎C NOOP⏎D NO…
         S: A OK NOOP completed
         > check joe bad command
         < eof
         < unknown
         > refused joe unknown credentials
         S: B NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user
         S: C OK NOOP completed
         > ended client gone: end of the client's stream before its login
         > Close",
    );
}

#[test]
fn literals_are_continued_and_the_third_refusal_says_bye() {
    play_greeted(
        "C: A LOGIN {3}
         S: + OK
         C: joe {5}
         S: + OK
         C: to\"kx
         > check joe to\"kx command
         < unknown
         > refused joe unknown credentials
         S: A NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user
         C: B LOGIN {3+}⏎joe {3+}⏎tok
         > check joe tok command
         < unknown
         > refused joe unknown credentials
         S: B NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user
         C: C LOGIN {1+}⏎\x01 tok⏎D NOOP
         > refused - unknown credentials: the login name is empty or has control characters
         S: C NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user
         S: * BYE Too many failed logins
         > ended too many failures
         > Close
         C: E NOOP",
    );
}

#[test]
fn literals_and_lines_over_the_limit() {
    play_greeted(
        "C: A LOGIN joe {4097}
         S: A NO [TOOBIG] The literal is too large
         C: B LOGIN joe {4294967296}
         S: B NO [TOOBIG] The literal is too large
         C: C NOOP
         S: C OK NOOP completed
         C: D LOGIN joe {4097+}⏎E NOOP
         S: D NO [TOOBIG] The literal is too large
         S: * BYE The literal is too large
         > ended literal too long
         > Close",
    );
    let long = "x".repeat(8192);
    play_greeted(&format!(
        "C: A {long}
         S: A BAD The command line is too long
         S: * BYE The command line is too long
         > ended line too long
         > Close"
    ));
    play_greeted(&format!(
        "C: x{long}…
         S: * BAD The command line is too long
         S: * BYE The command line is too long
         > ended line too long
         > Close"
    ));
}

#[test]
fn bad_commands_are_counted() {
    let mut context = context();
    context.limits.bad_commands_max = 2;
    play(
        &context,
        &format!(
            "{GREETED}
             C: A
             S: A BAD A command is missing behind the tag
             C: B NOOP⏎C AUTHENTICATE CRAM-MD5⏎D NOOP
             S: B OK NOOP completed
             S: C NO [CANNOT] Unsupported authentication mechanism
             S: * BYE Too many bad commands
             > ended too many bad commands
             > Close"
        ),
    );
}

#[test]
fn commands_that_bring_no_login_nearer_are_counted() {
    let mut context = context();
    context.limits.pre_auth_commands_max = 3;
    play(
        &context,
        &format!(
            "{GREETED}
             C: A NOOP⏎B XYZZY⏎C ID NIL⏎D CAPABILITY⏎E NOOP
             S: A OK NOOP completed
             S: B BAD Unknown command
             S: * ID (\"name\" \"portreeve\" \"version\" \"0.1.0\")
             S: C OK ID completed
             S: * CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN
             S: D OK CAPABILITY completed
             S: * BYE Too many commands before a login
             > ended too many commands
             > Close"
        ),
    );
}

#[test]
fn a_long_identity_passes_and_nothing_else_that_long_does() {
    let pair = |number: usize| format!("{{30+}}⏎{:030} {{1024+}}⏎{}", number, "v".repeat(1024));
    let long = (0..30).map(pair).collect::<Vec<_>>().join(" ");
    let quoted = format!("\"{}\" \"{}\" ", "f".repeat(30), "v".repeat(1024)).repeat(30);
    let session = |line: &str| {
        let now = Instant::now();
        let mut session = imap_session(&context(), now);
        session.handle(Input::Opened, now);
        while session.poll_action().is_some() {}
        session.handle(
            Input::ClientBytes(format!("{line}\r\n").replace('⏎', "\r\n").as_bytes()),
            now,
        );
        std::iter::from_fn(|| session.poll_action())
            .map(|action| shown(&action))
            .collect::<String>()
    };
    for line in [format!("A ID ({long})"), format!("A ID ({quoted})")] {
        let said = session(&line);
        assert!(
            said.contains("S: * ID (\"name\" \"portreeve\"") && said.contains("S: A OK ID completed\n"),
            "{said}"
        );
    }
    for line in [
        format!("A ID ({long} {long})"),
        format!("A ID (\"k\" \"{}\")", "v".repeat(40_000)),
        format!("A LOGIN ({long})"),
        format!("A LOGIN {quoted}"),
        format!("A NOOP {quoted}"),
    ] {
        let said = session(&line);
        assert!(said.contains("S: * BYE "), "{said}");
    }
}

#[test]
fn authenticate_with_and_without_initial_response() {
    play_greeted(
        "C: A AUTHENTICATE PLAIN AGpvZQB0b2s=
         > check joe tok PLAIN
         < unknown
         > refused joe unknown credentials
         S: A NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user
         C: B authenticate plain
         S: +
         C: AGpvZQB0b2s=⏎C CAPABILITY
         > check joe tok PLAIN
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎
         < upstream OK
         S: * CAPABILITY IMAP4rev1 IDLE
         S: B OK example authenticated
         > LoggedIn
         > relay client<* 1 EXISTS⏎> upstream<C CAPABILITY⏎>",
    );
    play_greeted(
        "C: A AUTHENTICATE LOGIN
         S: + VXNlcm5hbWU6
         C: am9l
         S: + UGFzc3dvcmQ6
         C: *
         S: A BAD Authentication cancelled
         C: B AUTHENTICATE LOGIN am9l
         S: + UGFzc3dvcmQ6
         C: not base64
         S: B BAD The response is not base64
         C: C AUTHENTICATE PLAIN =
         S: C BAD The response is not one of PLAIN
         C: D AUTHENTICATE LOGIN am9l⏎dG9r
         S: + UGFzc3dvcmQ6
         > check joe tok LOGIN",
    );
}

#[test]
fn a_refused_bearer_gets_its_challenge_and_then_its_failure() {
    play_greeted(
        "C: A AUTHENTICATE OAUTHBEARER biwsAWF1dGg9QmVhcmVyIHRvawEB
         > check - tok OAUTHBEARER
         < unknown
         > refused - unknown credentials
         S: + eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=
         C: AQ==⏎B NOOP
         S: A NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user
         S: B OK NOOP completed
         C: C AUTHENTICATE XOAUTH2
         S: +
         C: dXNlcj1qb2UBYXV0aD1CZWFyZXIgdG9rAQE=
         > check joe tok XOAUTH2
         < store is down
         > refused joe unavailable
         S: C NO [UNAVAILABLE] The mailbox cannot be reached for now, try again later
         C: D AUTHENTICATE XOAUTH2 dXNlcj1qb2UBYXV0aD1CZWFyZXIgdG9rAQE=
         > check joe tok XOAUTH2
         < unknown
         > refused joe unknown credentials
         S: + eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJtYWlsIn0=
         < eof
         S: D NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user
         S: * BYE Too many failed logins
         > ended too many failures
         > Close",
    );
}

#[test]
fn a_login_in_clear_is_refused_without_being_heard() {
    let mut context = context();
    context.plaintext_login = false;
    play(
        &context,
        "< opened
         S: * OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID LOGINDISABLED] Portreeve IMAP proxy ready for requests from 127.0.0.1
         C: A LOGIN {3}
         > refused - plaintext refused
         S: A NO [PRIVACYREQUIRED] Logging in without TLS is not allowed here
         C: B AUTHENTICATE PLAIN
         > refused - plaintext refused
         S: B NO [PRIVACYREQUIRED] Logging in without TLS is not allowed here
         C: C ID {1}
         S: + OK
         C: x
         S: C BAD ID takes NIL or a list of fields and values
         C: D LOGIN joe {3+}⏎tok
         > refused - plaintext refused
         S: D NO [PRIVACYREQUIRED] Logging in without TLS is not allowed here
         S: * BYE Too many failed logins
         > ended too many failures
         > Close",
    );
}

#[test]
fn a_refused_oauth_token_is_replaced_once() {
    play_greeted(
        "C: A LOGIN joe tok
         > check joe tok command
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎
         < upstream {\"status\":\"401\"}
         > UpstreamChallenge(\"{\\\"status\\\":\\\"401\\\"}\")
         < upstream NO
         > RetryingWithFreshToken(\"upstream refused: [-] Not you\")
         > connect Some(7)
         < connected again
         > upstream login joe@example.com id 0⏎
         < upstream NO
         > AbandonLogin
         > refused joe upstream refused: [-] Not you
         S: A NO [AUTHENTICATIONFAILED] Not you
         C: B LOGIN joe tok
         > check joe tok command
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎
         < upstream BUSY
         > AbandonLogin
         > refused joe upstream refused: [-] Not you
         S: B NO [UNAVAILABLE] Not you",
    );
}

#[test]
fn a_refusal_stands_where_the_token_cannot_be_replaced_and_trouble_in_replacing_it_is_trouble() {
    play_greeted(
        "C: A LOGIN joe tok
         > check joe tok command
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎
         < upstream NO
         > RetryingWithFreshToken(\"upstream refused: [-] Not you\")
         > connect Some(7)
         < no other token
         > AbandonLogin
         > refused joe upstream refused: [-] Not you
         S: A NO [AUTHENTICATIONFAILED] Not you
         C: B LOGIN joe tok
         > check joe tok command
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎
         < upstream NO
         > RetryingWithFreshToken(\"upstream refused: [-] Not you\")
         > connect Some(7)
         < unavailable
         > AbandonLogin
         > refused joe unavailable
         S: B NO [UNAVAILABLE] The mailbox cannot be reached for now, try again later",
    );
}

#[test]
fn trouble_on_the_upstream_leg_is_told_and_the_client_may_try_again() {
    play_greeted(
        "C: A LOGIN joe tok
         > check joe tok command
         < admitted
         > connect None
         < grant is gone
         > AbandonLogin
         > refused joe needs authorization
         S: A NO [CONTACTADMIN] Mailbox authorization has expired, authorize the account again
         C: B LOGIN joe tok
         > check joe tok command
         < admitted
         > connect None
         < connected, starttls
         > upstream STARTTLS⏎
         < upstream TLS
         > SecureUpstream
         < secured
         > upstream login inside TLS⏎
         < upstream eof
         > AbandonLogin
         > refused joe unavailable: the upstream closed
         S: B NO [UNAVAILABLE] The mailbox cannot be reached for now, try again later",
    );
}

#[test]
fn time_outs_name_the_state_and_the_proxys_time_is_not_the_clients() {
    play_greeted(
        "< wait 59
         C: A LOGIN joe tok
         > check joe tok command
         < wait 29
         < wait 1
         > AbandonLogin
         > refused joe unavailable: login_timeout passed while checking the access token
         S: A NO [UNAVAILABLE] The mailbox cannot be reached for now, try again later
         < wait 0
         C: B LOGIN joe tok
         > check joe tok command
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎
         < wait 30
         > AbandonLogin
         > refused joe unavailable: login_timeout passed while waiting for the upstream's answer to AUTHENTICATE
         S: B NO [UNAVAILABLE] The mailbox cannot be reached for now, try again later
         C: C NO…
         < wait 1
         S: * BYE Disconnected for inactivity during login
         > ended pre auth timeout: pre_auth_timeout passed while waiting for the rest of a command
         > Close",
    );
}

#[test]
fn a_refusal_that_is_held_back_costs_the_client_its_own_time() {
    play_greeted(
        "< wait 45
         C: A LOGIN joe tok
         > check joe tok command
         < wait 15
         < unknown
         > refused joe unknown credentials
         S: A NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user
         < wait 0
         S: * BYE Disconnected for inactivity during login
         > ended pre auth timeout: pre_auth_timeout passed while waiting for a command
         > Close",
    );
}

#[test]
fn a_goodbye_is_heard_in_every_phase_before_the_relay() {
    play_greeted(
        "< shutting down
         S: * BYE The proxy is shutting down
         > Close",
    );
    play_greeted(
        "C: A LOGIN joe tok
         > check joe tok command
         < shutting down
         > refused joe unavailable: the session was ended during its login: shutting down
         S: * BYE The proxy is shutting down
         > Close",
    );
}

#[test]
fn a_client_that_pipelines_too_much_is_not_read_from() {
    let now = Instant::now();
    let mut session = imap_session(&context(), now);
    session.handle(Input::Opened, now);
    session.handle(Input::ClientBytes(b"A LOGIN joe tok\r\n"), now);
    while session.poll_action().is_some() {}
    let mut pushed = 0;
    while session.wants_client_bytes() {
        session.handle(Input::ClientBytes(&[b'x'; 1000]), now);
        pushed += 1000;
    }
    assert!((PIPELINED_BYTES_MAX..PIPELINED_BYTES_MAX + 1000).contains(&pushed));
    assert_eq!(session.buffered(), pushed);
}

#[test]
fn a_session_logs_in_on_a_real_upstream_dialogue() {
    let now = Instant::now();
    let mut session = Session::new(&context(), now);
    let mut to_upstream = Vec::new();
    for input in [
        Input::Opened,
        Input::ClientBytes(b"A LOGIN joe tok\r\nB NOOP\r\n"),
        Input::LoginChecked(Ok(Admission {
            account: "example".to_owned(),
        })),
        Input::UpstreamConnected(Ok(ready(1, UpstreamSecurity::Secured))),
        Input::UpstreamBytes(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n"),
    ] {
        assert_eq!(session.handle(input, now), Transition::Taken);
        while let Some(action) = session.poll_action() {
            if let Action::SendUpstream(bytes) = action {
                to_upstream.extend_from_slice(&bytes);
            }
        }
    }
    let sent = String::from_utf8(to_upstream).unwrap();
    let login = sent.lines().find(|line| line.contains("AUTHENTICATE XOAUTH2")).unwrap();
    let tag = login.split(' ').next().unwrap();
    let answer = format!("* CAPABILITY IMAP4rev1 IDLE\r\n{tag} OK done\r\n");
    session.handle(Input::UpstreamBytes(answer.as_bytes()), now);
    let said: String = std::iter::from_fn(|| session.poll_action())
        .map(|action| shown(&action))
        .collect();
    assert_eq!(
        said,
        "> said AfterLogin [IDLE]\nS: * CAPABILITY IMAP4rev1 IDLE\nS: A OK example authenticated\n> LoggedIn\n> relay client<> upstream<B NOOP⏎>\n"
    );
}

/// All that printing shows of a session on its way to the relay: its inputs, its actions, and itself.
fn debug_output<const N: usize>(mut session: Session, inputs: [Input<'_>; N], now: Instant) -> String {
    let mut output = String::new();
    for input in inputs {
        output += &format!("{input:?}\n");
        session.handle(input, now);
        while let Some(action) = session.poll_action() {
            assert!(!matches!(action, Action::Close));
            output += &format!("{action:?}\n{session:?}\n");
        }
    }
    assert_eq!(session.phase(), Phase::Relay);
    output
}

#[test]
fn debug_output_holds_no_secret() {
    let now = Instant::now();
    let session = imap_session(&context(), now);
    let inputs = [
        Input::Opened,
        Input::ClientBytes(b"A LOGIN joe 5ecret\r\n5ecret"),
        Input::LoginChecked(Ok(Admission {
            account: "example".to_owned(),
        })),
        Input::UpstreamConnected(Ok(ready(1, UpstreamSecurity::Secured))),
        Input::UpstreamBytes(b"OK"),
    ];
    let output = debug_output(session, inputs, now);
    assert!(!output.contains("5ecret") && !output.contains(OAUTH_TOKEN), "{output}");
}

/// All that a session comes to, whose driver answers at once: tokens that begin with `g` are good.
#[derive(Debug, Default, PartialEq)]
struct Story {
    to_client: String,
    to_upstream: Vec<u8>,
    reports: Vec<Report>,
    is_closed: bool,
}

fn tell_story(pieces: &[&[u8]]) -> Story {
    let now = Instant::now();
    tell_story_of(imap_session(&context(), now), pieces, now)
}

fn tell_story_of(mut session: Session, pieces: &[&[u8]], now: Instant) -> Story {
    let mut story = Story::default();
    drive(&mut session, Input::Opened, now, &mut story);
    for piece in pieces {
        match session.phase() {
            Phase::Relay => story.to_upstream.extend_from_slice(piece),
            _ => drive(&mut session, Input::ClientBytes(piece), now, &mut story),
        }
    }
    if session.phase() != Phase::Relay {
        drive(&mut session, Input::ClientEof, now, &mut story);
    }
    story
}

fn drive(session: &mut Session, input: Input<'_>, now: Instant, story: &mut Story) {
    session.handle(input, now);
    let mut answer = None;
    while let Some(action) = session.poll_action() {
        match action {
            Action::SecureClient => answer = Some(Input::ClientSecured),
            Action::SendClient(bytes) => story.to_client += std::str::from_utf8(&bytes).unwrap(),
            Action::CheckLogin(request) => {
                answer = Some(Input::LoginChecked(
                    if request.secret.expose_secret().starts_with('g') {
                        Ok(Admission {
                            account: "example".to_owned(),
                        })
                    } else {
                        Err(Fault::new(FaultKind::UnknownCredentials))
                    },
                ));
            }
            Action::ConnectUpstream { .. } => {
                answer = Some(Input::UpstreamConnected(Ok(ready(1, UpstreamSecurity::Secured))));
            }
            Action::SendUpstream(_) => answer = Some(Input::UpstreamBytes(b"OK")),
            Action::BeginRelay { to_upstream, .. } => story.to_upstream.extend_from_slice(&to_upstream),
            Action::Report(report) => story.reports.push(report),
            Action::Close => story.is_closed = true,
            Action::AbandonLogin | Action::SecureUpstream => {}
        }
    }
    if let Some(answer) = answer {
        drive(session, answer, now, story);
    }
}

/// Streams that are made of what clients send, so that most of them reach deep.
fn client_stream() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        "A NOOP\r\n",
        "B CAPABILITY\n",
        "C LOGIN joe good\r\n",
        "D LOGIN joe bad\r\n",
        "E LOGIN {3}\r\n",
        "joe ",
        "{4+}\r\ngood\r\n",
        "F AUTHENTICATE PLAIN\r\n",
        "AGpvZQBiYWQ=\r\n",
        "AGpvZQBnb29k\r\n",
        "*\r\n",
        "G ID NIL\r\n",
        "H AUTHENTICATE OAUTHBEARER biwsAWF1dGg9QmVhcmVyIGJhZAEB\r\n",
        "I AUTHENTICATE XOAUTH2\r\n",
        "\r\n",
        "{5000}\r\n",
        "J LOGIN joe {5000+}\r\n",
        "K LOGOUT\r\n",
        "L SELECT x\r\n",
        "\0",
        "\"",
        "(((((",
        " ",
    ]);
    prop::collection::vec(token, 0..16).prop_map(|tokens| tokens.concat().into_bytes())
}

proptest! {
    #![proptest_config(proptest_config("proptest-regressions/session.txt"))]

    #[test]
    fn every_split_of_a_session_tells_the_same_story(
        stream in client_stream(),
        splits in prop::collection::vec(0..400_usize, 0..6),
    ) {
        let mut places: Vec<usize> = splits.into_iter().map(|place| place.min(stream.len())).collect();
        places.extend([0, stream.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        let whole = tell_story(&[&stream]);
        prop_assert_eq!(&tell_story(&pieces), &whole);
        prop_assert_eq!(&tell_story(&stream.chunks(1).collect::<Vec<_>>()), &whole);
    }
}
