//! Whole POP3 sessions, both dialogues being the real ones.

use super::*;

/// The default limits on a POP3 listener.
fn pop3(security: ClientSecurity, plaintext_login: bool) -> SessionContext {
    SessionContext {
        protocol: Protocol::Pop3,
        security,
        plaintext_login,
        ..context()
    }
}

#[track_caller]
fn play_greeted(context: &SessionContext, transcript: &str) {
    play(
        context,
        &format!("< opened\nS: +OK Portreeve POP3 proxy ready\n{transcript}"),
    );
}

#[track_caller]
fn play_clear(transcript: &str) {
    play_greeted(&pop3(ClientSecurity::Clear, true), transcript);
}

#[test]
fn a_login_is_handed_over_and_what_is_pipelined_is_carried() {
    play_clear(
        "C: USER joe⏎PASS 5ecret⏎STAT⏎LI…
         S: +OK Now the password
         > check joe 5ecret command
         < admitted
         > connect None
         < connected
         < upstream +OK Gpop ready⏎
         > upstream CAPA⏎
         C: ST
         < upstream +OK⏎USER⏎UIDL⏎SASL PLAIN XOAUTH2⏎.⏎
         > said BeforeLogin [UIDL]
         > upstream AUTH XOAUTH2⏎
         < upstream + ⏎
         > upstream dXNlcj1qb2VAZXhhbXBsZS5jb20BYXV0aD1CZWFyZXIgeWEyOS4wYXV0aAEB⏎
         < upstream +OK Welcome.⏎+OK 2 3…
         S: +OK example authenticated
         > LoggedIn
         > relay client<+OK 2 3…> upstream<STAT⏎LIST⏎>",
    );
}

#[test]
fn commands_before_login_are_answered_in_order() {
    play_clear(
        "C: CAPA⏎noop⏎AUTH⏎USER joe⏎CAPA x⏎PASS⏎⏎STAT⏎APOP joe c4c9⏎STLS⏎PASS⏎AUTH KERBEROS_V4⏎QUIT⏎NOOP
         S: +OK Capabilities follow
         S: USER
         S: SASL PLAIN LOGIN
         S: RESP-CODES
         S: AUTH-RESP-CODE
         S: IMPLEMENTATION portreeve
         S: .
         S: +OK
         S: +OK Mechanisms follow
         S: PLAIN
         S: LOGIN
         S: .
         S: +OK Now the password
         S: -ERR CAPA takes no arguments
         S: -ERR PASS takes a password
         S: -ERR A command begins with a keyword
         S: -ERR Log in first
         S: -ERR APOP is not offered
         S: -ERR STLS is not offered
         S: -ERR PASS takes a password
         S: -ERR Unsupported authentication mechanism
         S: +OK Bye
         > ended client gone: QUIT before a login
         > Close",
    );
}

#[test]
fn a_password_needs_a_name_and_may_hold_spaces() {
    play_clear(
        "C: PASS tok
         S: -ERR Give USER first
         C: USER joe⏎NOOP⏎USER team inbox⏎PASS  a b
         S: +OK Now the password
         S: +OK
         S: +OK Now the password
         > check team inbox  a b command
         < unknown
         > refused team inbox unknown credentials
         S: -ERR [AUTH] Access denied, failed to authenticate user
         C: PASS tok
         S: -ERR Give USER first
         C: USER joe⏎AUTH PLAIN AGFubgB0b2s=
         S: +OK Now the password
         > check ann tok PLAIN
         < unknown
         > refused ann unknown credentials
         S: -ERR [AUTH] Access denied, failed to authenticate user
         C: PASS tok⏎USER j\u{1}oe⏎PASS tok⏎NOOP
         S: -ERR Give USER first
         S: +OK Now the password
         > refused - unknown credentials: the login name is empty or has control characters
         S: -ERR [AUTH] Access denied, failed to authenticate user
         > ended too many failures
         > Close",
    );
}

#[test]
fn auth_with_and_without_initial_response() {
    play_clear(
        "C: AUTH PLAIN AGpvZQB0b2s=
         > check joe tok PLAIN
         < unknown
         > refused joe unknown credentials
         S: -ERR [AUTH] Access denied, failed to authenticate user
         C: auth plain
         S: +
         C: AGpvZQB0b2s=⏎STAT
         > check joe tok PLAIN
         < admitted
         > connect None
         < connected
         < upstream +OK hi⏎
         > upstream CAPA⏎
         < upstream -ERR Command is not valid in this state.⏎
         > upstream AUTH XOAUTH2⏎
         < upstream +⏎
         > upstream dXNlcj1qb2VAZXhhbXBsZS5jb20BYXV0aD1CZWFyZXIgeWEyOS4wYXV0aAEB⏎
         < upstream +OK⏎
         S: +OK example authenticated
         > LoggedIn
         > relay client<> upstream<STAT⏎>",
    );
    play_clear(
        "C: AUTH LOGIN
         S: + VXNlcm5hbWU6
         C: am9l
         S: + UGFzc3dvcmQ6
         C: *
         S: -ERR Authentication cancelled
         C: AUTH LOGIN am9l
         S: + UGFzc3dvcmQ6
         C: not base64
         S: -ERR The response is not base64
         C: AUTH PLAIN =
         S: -ERR The response is not one of PLAIN
         C: AUTH LOGIN =
         S: + VXNlcm5hbWU6
         C: am9l⏎dG9r
         S: + UGFzc3dvcmQ6
         > check joe tok LOGIN",
    );
}

#[test]
fn a_refused_bearer_gets_its_challenge_and_then_its_failure() {
    play_clear(
        "C: AUTH OAUTHBEARER biwsAWF1dGg9QmVhcmVyIHRvawEB
         > check - tok OAUTHBEARER
         < unknown
         > refused - unknown credentials
         S: + eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=
         C: AQ==⏎NOOP
         S: -ERR [AUTH] Access denied, failed to authenticate user
         S: +OK
         C: AUTH XOAUTH2
         S: +
         C: dXNlcj1qb2UBYXV0aD1CZWFyZXIgdG9rAQE=
         > check joe tok XOAUTH2
         < store is down
         > refused joe unavailable
         S: -ERR [SYS/TEMP] The mailbox cannot be reached for now, try again later
         C: AUTH XOAUTH2 dXNlcj1qb2UBYXV0aD1CZWFyZXIgdG9rAQE=
         > check joe tok XOAUTH2
         < unknown
         > refused joe unknown credentials
         S: + eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJtYWlsIn0=
         < eof
         S: -ERR [AUTH] Access denied, failed to authenticate user
         > ended too many failures
         > Close",
    );
}

#[test]
fn a_login_in_clear_is_refused_before_the_password_is_given() {
    play_greeted(
        &pop3(ClientSecurity::Clear, false),
        "C: CAPA⏎AUTH
         S: +OK Capabilities follow
         S: RESP-CODES
         S: AUTH-RESP-CODE
         S: IMPLEMENTATION portreeve
         S: .
         S: +OK Mechanisms follow
         S: .
         C: USER joe
         > refused - plaintext refused
         S: -ERR [AUTH] Logging in without TLS is not allowed here
         C: AUTH PLAIN AGpvZQB0b2s=
         > refused - plaintext refused
         S: -ERR [AUTH] Logging in without TLS is not allowed here
         C: PASS tok
         > refused - plaintext refused
         S: -ERR [AUTH] Logging in without TLS is not allowed here
         > ended too many failures
         > Close",
    );
}

#[test]
fn a_login_follows_stls_and_what_was_said_in_clear_is_forgotten() {
    play_greeted(
        &pop3(ClientSecurity::StartTls, true),
        "C: CAPA
         S: +OK Capabilities follow
         S: USER
         S: SASL PLAIN LOGIN
         S: STLS
         S: RESP-CODES
         S: AUTH-RESP-CODE
         S: IMPLEMENTATION portreeve
         S: .
         C: USER clear⏎STLS
         S: +OK Now the password
         S: +OK Begin TLS
         > SecureClient
         < client secured
         C: PASS 5ecret
         S: -ERR Give USER first
         C: STLS
         S: -ERR STLS is not offered
         C: USER joe⏎PASS 5ecret
         S: +OK Now the password
         > check joe 5ecret command",
    );
    play_greeted(
        &pop3(ClientSecurity::StartTls, false),
        "C: STLS
         S: +OK Begin TLS
         > SecureClient
         < client secured
         C: CAPA
         S: +OK Capabilities follow
         S: USER
         S: SASL PLAIN LOGIN
         S: RESP-CODES
         S: AUTH-RESP-CODE
         S: IMPLEMENTATION portreeve
         S: .",
    );
}

#[test]
fn bytes_in_clear_behind_stls_end_the_session() {
    for injected in ["CAPA", "USER joe⏎PASS x", "", "\u{16}\u{3}\u{1}…", "x…"] {
        play_greeted(
            &pop3(ClientSecurity::StartTls, false),
            &format!(
                "C: STLS⏎{injected}
                 S: -ERR Nothing may follow STLS in clear
                 > ended starttls injection
                 > Close"
            ),
        );
    }
}

#[test]
fn the_upstreams_words_reach_the_client_and_a_refused_token_is_replaced_once() {
    let attempt = "
         < upstream +OK hi⏎
         > upstream CAPA⏎
         < upstream +OK⏎SASL XOAUTH2⏎.⏎
         > said BeforeLogin []
         > upstream AUTH XOAUTH2⏎
         < upstream + ⏎
         > upstream dXNlcj1qb2VAZXhhbXBsZS5jb20BYXV0aD1CZWFyZXIgeWEyOS4wYXV0aAEB⏎";
    play_clear(&format!(
        "C: USER joe⏎PASS tok
         S: +OK Now the password
         > check joe tok command
         < admitted
         > connect None
         < connected
         {attempt}
         < upstream + eyJzdGF0dXMiOiI0MDAifQ==⏎
         > UpstreamChallenge(\"{{\\\"status\\\":\\\"400\\\"}}\")
         > upstream ⏎
         < upstream -ERR [AUTH] Username and password not accepted.⏎
         > RetryingWithFreshToken(\"upstream refused: [AUTH] Username and password not accepted. (in answer to AUTH XOAUTH2)\")
         > connect Some(7)
         < connected again
         {attempt}
         < upstream -ERR Logon failure: unknown user name or bad password.⏎
         > AbandonLogin
         > refused joe upstream refused: [-] Logon failure: unknown user name or bad password. (in answer to AUTH XOAUTH2)
         S: -ERR [AUTH] Logon failure: unknown user name or bad password.
         C: USER joe⏎PASS tok
         S: +OK Now the password
         > check joe tok command
         < admitted
         > connect None
         < connected
         {attempt}
         < upstream -ERR [IN-USE] Do you have another POP session running?⏎
         > AbandonLogin
         > refused joe upstream refused: [IN-USE] Do you have another POP session running? (in answer to AUTH XOAUTH2)
         S: -ERR [IN-USE] Do you have another POP session running?"
    ));
}

#[test]
fn trouble_on_the_upstream_leg_is_told_and_the_client_may_try_again() {
    play_clear(
        "C: USER joe⏎PASS tok
         S: +OK Now the password
         > check joe tok command
         < admitted
         > connect None
         < grant is gone
         > AbandonLogin
         > refused joe needs authorization
         S: -ERR [SYS/PERM] Mailbox authorization has expired, authorize the account again
         C: USER joe⏎PASS tok
         S: +OK Now the password
         > check joe tok command
         < admitted
         > connect None
         < connected, starttls
         < upstream +OK hi <1@x>⏎
         > upstream STLS⏎
         < upstream +OK begin⏎
         > SecureUpstream
         < secured
         > upstream CAPA⏎
         < upstream eof
         > AbandonLogin
         > refused joe unavailable: upstream closed the connection, waiting for the upstream's answer to CAPA
         S: -ERR [SYS/TEMP] The mailbox cannot be reached for now, try again later
         C: USER joe⏎PASS tok
         S: +OK Now the password
         > check joe tok command
         < admitted
         > connect None
         < connected, starttls
         < upstream +OK hi⏎
         > upstream STLS⏎
         < upstream +OK begin⏎+OK injected⏎
         > AbandonLogin
         > refused joe unavailable: upstream sent data in clear behind its +OK to STLS: a command injection, refused
         S: -ERR [SYS/TEMP] The mailbox cannot be reached for now, try again later
         > ended too many failures
         > Close",
    );
}

#[test]
fn pop3_has_no_word_for_a_goodbye_or_a_time_out() {
    play_clear("< shutting down\n> Close");
    play_clear(
        "C: USER joe⏎PASS tok
         S: +OK Now the password
         > check joe tok command
         < shutting down
         > refused joe unavailable: the session was ended during its login: shutting down
         > Close",
    );
    play_clear(
        "C: USER joe
         S: +OK Now the password
         < wait 60
         > ended pre auth timeout: pre_auth_timeout passed while waiting for PASS
         > Close",
    );
}

#[test]
fn bad_commands_and_long_lines_end_the_session_behind_their_reply() {
    let bad = "C: XYZZY\nS: -ERR Unknown command\n".repeat(10);
    play_clear(&format!("{bad}> ended too many bad commands\n> Close"));
    let long = "x".repeat(8193);
    play_clear(&format!(
        "C: {long}
         S: -ERR The command line is too long
         > ended line too long
         > Close"
    ));
    play_clear(&format!(
        "C: AUTH PLAIN
         S: +
         C: {long}
         S: -ERR The command line is too long
         > ended line too long
         > Close"
    ));
}

#[test]
fn end_of_stream_before_login_ends_the_session_after_its_replies() {
    play(
        &pop3(ClientSecurity::Clear, true),
        "C: NOOP⏎USER joe⏎PASS bad⏎NOOP⏎QU…
         < eof
         < opened
         S: +OK Portreeve POP3 proxy ready
         S: +OK
         S: +OK Now the password
         > check joe bad command
         < unknown
         > refused joe unknown credentials
         S: -ERR [AUTH] Access denied, failed to authenticate user
         S: +OK
         > ended client gone: end of the client's stream before its login
         > Close",
    );
}

#[test]
fn a_pop3_session_shows_no_secret_in_debug_output() {
    let now = Instant::now();
    let session = Session::new(&pop3(ClientSecurity::Clear, true), now);
    let inputs = [
        Input::Opened,
        Input::ClientBytes(b"USER joe\r\nPASS 5ecret\r\n5ecret"),
        Input::LoginChecked(Ok(Admission {
            account: "example".to_owned(),
        })),
        Input::UpstreamConnected(Ok(ready(1, UpstreamSecurity::Secured))),
        Input::UpstreamBytes(b"+OK\r\n"),
        Input::UpstreamBytes(b"-ERR\r\n"),
        Input::UpstreamBytes(b"+\r\n"),
        Input::UpstreamBytes(b"+OK\r\n"),
    ];
    let output = debug_output(session, inputs, now);
    assert!(!output.contains("5ecret") && !output.contains(OAUTH_TOKEN), "{output}");
}

/// Streams that are made of what clients send, so that most of them reach deep.
fn client_stream() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        "NOOP\r\n",
        "CAPA\n",
        "USER joe\r\n",
        "PASS good\r\n",
        "PASS bad\r\n",
        "AUTH\r\n",
        "AUTH PLAIN\r\n",
        "AGpvZQBiYWQ=\r\n",
        "AGpvZQBnb29k\r\n",
        "*\r\n",
        "AUTH OAUTHBEARER biwsAWF1dGg9QmVhcmVyIGJhZAEB\r\n",
        "AUTH XOAUTH2\r\n",
        "\r\n",
        "APOP joe x\r\n",
        "STLS\r\n",
        "QUIT\r\n",
        "STAT\r\n",
        "PASS ",
        "\0",
        "\r",
        " ",
    ]);
    prop::collection::vec(token, 0..16).prop_map(|tokens| tokens.concat().into_bytes())
}

/// The session that [`tell_story`] tells of, with POP3's client and an upstream that accepts whatever it is told.
fn story_of(pieces: &[&[u8]]) -> Story {
    let context = pop3(ClientSecurity::Clear, true);
    let now = Instant::now();
    tell_story_of(pop3_session(&context, now), pieces, now)
}

proptest! {
    #![proptest_config(proptest_config("proptest-regressions/pop3_session.txt"))]

    #[test]
    fn every_split_of_a_pop3_session_tells_the_same_story(
        stream in client_stream(),
        splits in prop::collection::vec(0..200_usize, 0..6),
    ) {
        let mut places: Vec<usize> = splits.into_iter().map(|place| place.min(stream.len())).collect();
        places.extend([0, stream.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        let whole = story_of(&[&stream]);
        prop_assert_eq!(&story_of(&pieces), &whole);
        prop_assert_eq!(&story_of(&stream.chunks(1).collect::<Vec<_>>()), &whole);
    }
}

#[test]
fn commands_that_bring_no_login_nearer_are_counted() {
    let mut context = context();
    context.protocol = Protocol::Pop3;
    context.limits.pre_auth_commands_max = 3;
    play(
        &context,
        "< opened
         S: +OK Portreeve POP3 proxy ready
         C: NOOP⏎USER joe⏎XYZZY⏎USER joe⏎NOOP
         S: +OK
         S: +OK Now the password
         S: -ERR Unknown command
         S: +OK Now the password
         > ended too many commands
         > Close",
    );
}
