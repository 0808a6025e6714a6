//! SMTP sessions, towards the scripted upstream.

use super::*;

fn context() -> SessionContext {
    SessionContext {
        protocol: Protocol::Smtp,
        ..super::context()
    }
}

/// The begin that most transcripts share.
const GREETED: &str = "
    < opened
    S: 220 proxy.example ESMTP Portreeve ready
    C: EHLO c.example
    S: 250-proxy.example greets [127.0.0.1]
    S: 250 AUTH PLAIN LOGIN
";

#[track_caller]
fn play_greeted(transcript: &str) {
    play(&context(), &format!("{GREETED}{transcript}"));
}

#[test]
fn a_login_is_handed_over_with_what_was_pipelined_behind_it() {
    play_greeted(
        "C: AUTH PLAIN AGpvZQB0b2s=⏎MAIL FROM:<joe@example.com>⏎RCPT TO:<ada@example.com>⏎DATA
         > check joe tok PLAIN
         < admitted
         > connect None
         C: RSET
         < connected
         > upstream login joe@example.com id 0⏎
         < upstream OK
         S: 235 2.7.0 example authenticated
         > LoggedIn
         > relay client<> upstream<MAIL FROM:<joe@example.com>⏎RCPT TO:<ada@example.com>⏎DATA⏎RSET⏎>",
    );
}

#[test]
fn a_login_follows_starttls_and_what_was_said_in_clear_is_forgotten() {
    let mut context = context();
    (context.security, context.plaintext_login) = (ClientSecurity::StartTls, false);
    context.promised = Arc::new(["SIZE 1000".to_owned(), "8BITMIME".to_owned()]);
    play(
        &context,
        "< opened
         S: 220 proxy.example ESMTP Portreeve ready
         C: EHLO c.example
         S: 250-proxy.example greets [127.0.0.1]
         S: 250-SIZE 1000
         S: 250-8BITMIME
         S: 250 STARTTLS
         C: STARTTLS now
         S: 501 5.5.4 STARTTLS takes no parameters
         C: STARTTLS
         S: 220 2.0.0 Ready to start TLS
         > SecureClient
         < client secured
         C: EHLO c.example
         S: 250-proxy.example greets [127.0.0.1]
         S: 250-SIZE 1000
         S: 250-8BITMIME
         S: 250 AUTH PLAIN LOGIN
         C: STARTTLS
         S: 503 5.5.1 TLS has begun already
         C: AUTH PLAIN AGpvZQB0b2s=
         > check joe tok PLAIN",
    );
}

#[test]
fn bytes_in_clear_behind_starttls_end_the_session() {
    let mut context = context();
    context.security = ClientSecurity::StartTls;
    for pipelined in ["EHLO c.example", "AUTH PLAIN AGpvZQB0b2s=", "x…"] {
        play(
            &context,
            &format!(
                "< opened
                 S: 220 proxy.example ESMTP Portreeve ready
                 C: STARTTLS⏎{pipelined}
                 S: 421 4.7.0 Nothing may follow STARTTLS in clear
                 > ended starttls injection
                 > Close"
            ),
        );
    }
}

#[test]
fn commands_before_login_are_answered_in_order() {
    let mut context = context();
    context.limits.bad_commands_max = 20;
    play(
        &context,
        "< opened
         S: 220 proxy.example ESMTP Portreeve ready
         C: helo c.example⏎NOOP x⏎RSET⏎HELP⏎VRFY joe⏎STARTTLS⏎EXPN all⏎XYZZY⏎⏎EHLO⏎QUIT⏎NOOP
         S: 250 proxy.example
         S: 250 2.0.0 OK
         S: 250 2.0.0 OK
         S: 214 2.0.0 Log in with AUTH before sending mail
         S: 252 2.5.0 Cannot verify before a login
         S: 502 5.5.1 STARTTLS is not offered
         S: 502 5.5.1 Command not implemented
         S: 500 5.5.1 Unknown command
         S: 500 5.5.2 A line begins with a command's name
         S: 501 5.5.4 EHLO takes the name of the client
         S: 221 2.0.0 Bye
         > ended client gone: QUIT before a login
         > Close",
    );
}

#[test]
fn an_envelope_before_the_login_is_refused_command_by_command() {
    play_greeted(
        "C: MAIL FROM:<joe@example.com>⏎RCPT TO:<ada@example.com>⏎DATA
         S: 530 5.7.0 Authentication required
         S: 530 5.7.0 Authentication required
         S: 530 5.7.0 Authentication required
         C: AUTH PLAIN AGpvZQB0b2s=
         > check joe tok PLAIN",
    );
}

#[test]
fn the_octets_behind_a_refused_bdat_are_no_commands() {
    play_greeted(
        "C: BDAT 12⏎QUIT⏎QUIT⏎BDAT 0 LAST⏎NOOP
         S: 530 5.7.0 Authentication required
         S: 530 5.7.0 Authentication required
         S: 250 2.0.0 OK
         C: BDAT 18446744073709551616
         S: 530 5.7.0 Authentication required
         C: QUIT
         < wait 60
         S: 421 4.4.2 Disconnected for inactivity during login
         > ended pre auth timeout: pre_auth_timeout passed while waiting for the rest of a refused BDAT
         > Close",
    );
}

#[test]
fn bad_commands_are_counted_and_the_last_is_followed_by_421() {
    let mut context = context();
    context.limits.bad_commands_max = 3;
    play(
        &context,
        &format!(
            "{GREETED}
             C: MAIL FROM:<>⏎AUTH CRAM-MD5⏎NOOP⏎RCPT TO:<a@b>⏎NOOP
             S: 530 5.7.0 Authentication required
             S: 504 5.5.4 Unsupported authentication mechanism
             S: 250 2.0.0 OK
             S: 530 5.7.0 Authentication required
             S: 421 4.7.0 Too many bad commands
             > ended too many bad commands
             > Close
             C: NOOP"
        ),
    );
}

#[test]
fn authenticate_with_and_without_initial_response() {
    play_greeted(
        "C: auth plain
         S: 334
         C: AGpvZQB0b2s=
         > check joe tok PLAIN
         < unknown
         > refused joe unknown credentials
         S: 535 5.7.8 Access denied, failed to authenticate user
         C: AUTH LOGIN
         S: 334 VXNlcm5hbWU6
         C: am9l
         S: 334 UGFzc3dvcmQ6
         C: *
         S: 501 5.7.0 Authentication cancelled
         C: AUTH LOGIN am9l
         S: 334 UGFzc3dvcmQ6
         C: not base64
         S: 501 5.5.2 The response is not base64
         C: AUTH PLAIN =
         S: 501 5.5.2 The response is not one of PLAIN
         C: AUTH PLAIN a b
         S: 501 5.5.4 AUTH takes a mechanism and an initial response
         C: AUTH LOGIN =⏎am9l⏎dG9r
         S: 334 VXNlcm5hbWU6
         S: 334 UGFzc3dvcmQ6
         > check joe tok LOGIN",
    );
}

#[test]
fn a_refused_bearer_gets_its_challenge_and_then_its_failure() {
    play_greeted(
        "C: AUTH OAUTHBEARER biwsAWF1dGg9QmVhcmVyIHRvawEB
         > check - tok OAUTHBEARER
         < unknown
         > refused - unknown credentials
         S: 334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=
         C: AQ==⏎NOOP
         S: 535 5.7.8 Access denied, failed to authenticate user
         S: 250 2.0.0 OK
         C: AUTH XOAUTH2
         S: 334
         C: dXNlcj1qb2UBYXV0aD1CZWFyZXIgdG9rAQE=
         > check joe tok XOAUTH2
         < store is down
         > refused joe unavailable
         S: 454 4.7.0 The mailbox cannot be reached for now, try again later
         C: AUTH XOAUTH2 dXNlcj1qb2UBYXV0aD1CZWFyZXIgdG9rAQE=
         > check joe tok XOAUTH2
         < unknown
         > refused joe unknown credentials
         S: 334 eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJtYWlsIn0=
         < eof
         S: 535 5.7.8 Access denied, failed to authenticate user
         S: 421 4.7.0 Too many failed logins
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
         S: 220 proxy.example ESMTP Portreeve ready
         C: EHLO c.example
         S: 250 proxy.example greets [127.0.0.1]
         C: AUTH PLAIN AGpvZQB0b2s=
         > refused - plaintext refused
         S: 538 5.7.11 Logging in without TLS is not allowed here
         C: AUTH LOGIN
         > refused - plaintext refused
         S: 538 5.7.11 Logging in without TLS is not allowed here
         C: AUTH
         > refused - plaintext refused
         S: 538 5.7.11 Logging in without TLS is not allowed here
         S: 421 4.7.0 Too many failed logins
         > ended too many failures
         > Close",
    );
}

#[test]
fn names_that_no_account_can_have_are_refused_at_once() {
    // NUL joe CR NUL tok
    play_greeted(
        "C: AUTH PLAIN AGpvZQ0AdG9r
         > refused - unknown credentials: the login name is empty or has control characters
         S: 535 5.7.8 Access denied, failed to authenticate user",
    );
}

#[test]
fn a_refused_oauth_token_is_replaced_once_and_trouble_is_told() {
    play_greeted(
        "C: AUTH PLAIN AGpvZQB0b2s=
         > check joe tok PLAIN
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎
         < upstream NO
         > RetryingWithFreshToken(\"upstream refused: [-] Not you\")
         > connect Some(7)
         < connected again
         > upstream login joe@example.com id 0⏎
         < upstream NO
         > AbandonLogin
         > refused joe upstream refused: [-] Not you
         S: 535 5.7.8 Not you
         C: AUTH PLAIN AGpvZQB0b2s=
         > check joe tok PLAIN
         < admitted
         > connect None
         < grant is gone
         > AbandonLogin
         > refused joe needs authorization
         S: 535 5.7.8 Mailbox authorization has expired, authorize the account again
         C: AUTH PLAIN AGpvZQB0b2s=
         > check joe tok PLAIN
         < admitted
         > connect None
         < connected
         > upstream login joe@example.com id 0⏎
         < wait 30
         > AbandonLogin
         > refused joe unavailable: login_timeout passed while waiting for the upstream's answer to AUTHENTICATE
         S: 454 4.7.0 The mailbox cannot be reached for now, try again later
         S: 421 4.7.0 Too many failed logins
         > ended too many failures
         > Close",
    );
}

#[test]
fn lines_over_the_limit_end_the_session() {
    let long = "x".repeat(8193);
    for (command, first) in [
        (format!("NOOP {long}"), None),
        (format!("{long}…"), None),
        (format!("AUTH PLAIN⏎{long}"), Some("S: 334\n")),
    ] {
        play_greeted(&format!(
            "C: {command}
             {}S: 500 5.5.2 The command line is too long
             S: 421 4.7.0 The command line is too long
             > ended line too long
             > Close",
            first.unwrap_or_default()
        ));
    }
    // As long as is allowed.
    let longest = "x".repeat(8192 - "NOOP ".len());
    play_greeted(&format!("C: NOOP {longest}\nS: 250 2.0.0 OK"));
}

#[test]
fn end_of_stream_before_login_ends_the_session_after_its_replies() {
    play_greeted(
        "C: NOOP⏎AUTH PLAIN AGpvZQB0b2s=⏎NOOP⏎NO…
         S: 250 2.0.0 OK
         > check joe tok PLAIN
         < eof
         < unknown
         > refused joe unknown credentials
         S: 535 5.7.8 Access denied, failed to authenticate user
         S: 250 2.0.0 OK
         > ended client gone: end of the client's stream before its login
         > Close",
    );
}

#[test]
fn a_goodbye_is_heard_before_the_relay() {
    play_greeted(
        "< shutting down
         S: 421 4.3.2 The proxy is shutting down
         > Close",
    );
    play_greeted(
        "C: AUTH PLAIN AGpvZQB0b2s=
         > check joe tok PLAIN
         < shutting down
         > refused joe unavailable: the session was ended during its login: shutting down
         S: 421 4.3.2 The proxy is shutting down
         > Close",
    );
}

#[test]
fn debug_output_holds_no_secret() {
    let now = Instant::now();
    let session = smtp_session(&context(), now);
    // NUL joe NUL 5ecret
    let inputs = [
        Input::Opened,
        Input::ClientBytes(b"EHLO c\r\nAUTH PLAIN AGpvZQA1ZWNyZXQ=\r\n5ecret"),
        Input::LoginChecked(Ok(Admission {
            account: "example".to_owned(),
        })),
        Input::UpstreamConnected(Ok(ready(1, UpstreamSecurity::Secured))),
        Input::UpstreamBytes(b"OK"),
    ];
    let output = debug_output(session, inputs, now);
    for secret in ["5ecret", "AGpvZQA1ZWNyZXQ", OAUTH_TOKEN] {
        assert!(!output.contains(secret), "{output}");
    }
}

fn tell_story(context: &SessionContext, pieces: &[&[u8]]) -> Story {
    let now = Instant::now();
    tell_story_of(smtp_session(context, now), pieces, now)
}

/// Streams that are made of what clients send, so that most of them reach deep.
fn client_stream() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        "EHLO c.example\r\n",
        "HELO c\n",
        "NOOP\r\n",
        "AUTH PLAIN\r\n",
        "AGpvZQBiYWQ=\r\n",
        "AGpvZQBnb29k\r\n",
        "AUTH PLAIN AGpvZQBnb29k\r\n",
        "AUTH LOGIN am9l\r\n",
        "YmFk\r\n",
        "*\r\n",
        "AUTH OAUTHBEARER biwsAWF1dGg9QmVhcmVyIGJhZAEB\r\n",
        "AUTH XOAUTH2\r\n",
        "MAIL FROM:<joe@example.com>\r\n",
        "DATA\r\n",
        "BDAT 9\r\n",
        "BDAT 3 LAST\r\n",
        "STARTTLS\r\n",
        "QUIT\r\n",
        "\r\n",
        "XYZZY ",
        "\0",
        " ",
    ]);
    prop::collection::vec(token, 0..16).prop_map(|tokens| tokens.concat().into_bytes())
}

proptest! {
    #![proptest_config(proptest_config("proptest-regressions/smtp_client.txt"))]

    #[test]
    fn every_split_of_a_session_tells_the_same_story(
        stream in client_stream(),
        splits in prop::collection::vec(0..400_usize, 0..6),
        may_log_in: bool,
    ) {
        let context = SessionContext { plaintext_login: may_log_in, ..context() };
        let mut places: Vec<usize> = splits.into_iter().map(|place| place.min(stream.len())).collect();
        places.extend([0, stream.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        let whole = tell_story(&context, &[&stream]);
        prop_assert!(whole.is_closed || whole.to_client.ends_with("235 2.7.0 example authenticated\r\n"));
        prop_assert!(whole.to_client.lines().all(|line| line.starts_with(['2', '3', '4', '5'])));
        prop_assert_eq!(&tell_story(&context, &pieces), &whole);
        prop_assert_eq!(&tell_story(&context, &stream.chunks(1).collect::<Vec<_>>()), &whole);
    }

    #[test]
    fn no_bytes_make_a_session_panic(stream in prop::collection::vec(any::<u8>(), 0..400), piece in 1..40_usize) {
        let story = tell_story(&context(), &stream.chunks(piece).collect::<Vec<_>>());
        prop_assert!(story.to_client.starts_with("220 proxy.example ESMTP Portreeve ready\r\n"));
    }
}

#[test]
fn a_login_needs_no_ehlo() {
    for before in [
        "",
        "C: EHLO
         S: 501 5.5.4 EHLO takes the name of the client
         ",
        "C: HELO\u{20}
         S: 501 5.5.4 HELO takes the name of the client
         ",
    ] {
        play(
            &context(),
            &format!(
                "< opened
                 S: 220 proxy.example ESMTP Portreeve ready
                 {before}C: AUTH PLAIN AGpvZQB0b2s=
                 > check joe tok PLAIN"
            ),
        );
    }
    let mut context = context();
    (context.security, context.plaintext_login) = (ClientSecurity::StartTls, false);
    play(
        &context,
        "< opened
         S: 220 proxy.example ESMTP Portreeve ready
         C: STARTTLS
         S: 220 2.0.0 Ready to start TLS
         > SecureClient
         < client secured
         C: AUTH PLAIN AGpvZQB0b2s=
         > check joe tok PLAIN",
    );
}

#[test]
fn commands_that_bring_no_login_nearer_are_counted() {
    let mut context = context();
    context.limits.pre_auth_commands_max = 6;
    play(
        &context,
        "< opened
         S: 220 proxy.example ESMTP Portreeve ready
         C: EHLO c.example
         S: 250-proxy.example greets [127.0.0.1]
         S: 250 AUTH PLAIN LOGIN
         C: XYZZY
         S: 500 5.5.1 Unknown command
         C: HELO c.example⏎NOOP⏎RSET⏎HELP⏎VRFY joe⏎NOOP
         S: 250 proxy.example
         S: 250 2.0.0 OK
         S: 250 2.0.0 OK
         S: 214 2.0.0 Log in with AUTH before sending mail
         S: 252 2.5.0 Cannot verify before a login
         S: 421 4.7.0 Too many commands before a login
         > ended too many commands
         > Close",
    );
}
