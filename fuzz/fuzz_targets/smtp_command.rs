//! Any bytes as a client's stream: each line is parsed or refused without a secret in debug output; and a dialogue that is fed
//! them, cut as the first byte says, answers in whole lines of replies and asks for nothing behind its end.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portreeve::fault::{Fault, FaultKind};
use portreeve::proto::Protocol;
use portreeve::proto::dialogue::{ClientDialogue, ClientStep};
use portreeve::proto::session::{ClientSecurity, SessionContext, SessionLimits};
use portreeve::proto::smtp::client::SmtpClient;
use portreeve::proto::smtp::command::{self, BadCommand, Command};

fuzz_target!(|data: &[u8]| {
    let Some((&flags, stream)) = data.split_first() else {
        return;
    };
    for line in stream.split(|&byte| byte == b'\n') {
        check_command(line);
    }
    let mut client = SmtpClient::new(&context(flags));
    client.handle_opened();
    let mut is_over = false;
    answer(&mut client, &mut is_over);
    for piece in stream.chunks(usize::from(flags >> 3) + 1) {
        client.handle_bytes(piece);
        answer(&mut client, &mut is_over);
        assert!(is_over || client.buffered() <= LINE_BYTES_MAX + piece.len());
    }
    client.handle_eof();
    answer(&mut client, &mut is_over);
    assert!(is_over, "the end of the stream is the end");
});

fn check_command(line: &[u8]) {
    let parsed = command::parse(line);
    // Whatever logs in is known as such before its arguments are looked at.
    match &parsed {
        Ok(Command::Auth { mechanism, initial }) => {
            assert!(command::is_auth(line) && mechanism.is_ascii());
            // Debug output must not depend on the response. Looking for the response in it would not do: it may be a part of
            // what the output always says.
            if let Some(initial) = initial {
                let other = format!("AUTH {mechanism} {}", "A".repeat(initial.len().max(1)));
                assert_eq!(format!("{parsed:?}"), format!("{:?}", command::parse(other.as_bytes())));
            }
        }
        Err(BadCommand::Arguments(_)) => {}
        _ => assert!(!command::is_auth(line)),
    }
}

/// Takes every step, with all logins refused, and notes the end.
fn answer(client: &mut SmtpClient, is_over: &mut bool) {
    while let Some(step) = client.poll_step() {
        assert!(!*is_over, "nothing follows the end");
        match step {
            ClientStep::Send(bytes) => {
                let text = std::str::from_utf8(&bytes).expect("replies are text");
                assert!(text.ends_with("\r\n"));
                for line in text.split_terminator("\r\n") {
                    assert!(
                        line.starts_with(['2', '3', '4', '5']) && !line.contains(['\r', '\n']),
                        "{line}"
                    );
                }
            }
            ClientStep::Secure => client.handle_secured(),
            ClientStep::Login(_) => client.handle_refused(&Fault::new(FaultKind::UnknownCredentials)),
            ClientStep::LoginRefused { .. } | ClientStep::Identified(_) => {}
            ClientStep::End(_) => *is_over = true,
        }
    }
}

fn context(flags: u8) -> SessionContext {
    SessionContext {
        protocol: Protocol::Smtp,
        remote_address: [127, 0, 0, 1].into(),
        hostname: "proxy.example".into(),
        security: match flags & 3 {
            0 => ClientSecurity::Secured,
            1 => ClientSecurity::StartTls,
            _ => ClientSecurity::Clear,
        },
        plaintext_login: flags & 4 == 0,
        promised: Arc::new(["8BITMIME".to_owned()]),
        limits: SessionLimits {
            pre_auth_timeout: Duration::from_secs(60),
            login_timeout: Duration::from_secs(30),
            command_line_bytes_max: LINE_BYTES_MAX,
            literal_bytes_max: 0,
            bad_commands_max: 10,
            pre_auth_commands_max: 100,
            auth_failures_max: 3,
        },
    }
}

const LINE_BYTES_MAX: usize = 512;
