//! Any bytes as a line: parsed or refused, without a secret in debug output, and known as a login before its arguments are
//! looked at.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::proto::pop3::command::{self, Command};

fuzz_target!(|line: &[u8]| {
    let login = command::is_login(line);
    let Ok(command) = command::parse(line) else { return };
    let shown = format!("{command:?}");
    match &command {
        Command::User(name) => {
            assert!(!name.is_empty() && !name.starts_with(b" ") && !name.ends_with(b" "));
            assert_eq!(shown, "User");
        }
        // All behind the first space.
        Command::Pass(password) => {
            assert_eq!(Some(password.as_slice()), line.get("PASS ".len()..));
            assert_eq!(shown, "Pass");
        }
        Command::Auth { mechanism, .. } => assert_eq!(shown, format!("Auth({mechanism:?})")),
        _ => {}
    }
    let logs_in = matches!(command, Command::User(_) | Command::Pass(_) | Command::Auth { .. });
    assert_eq!(login, logs_in);
});
