//! An upstream that says anything: the login ends with one last step, the credential is never shown, and the pieces that the
//! stream comes in do not matter.
//!
//! The first byte chooses the leg and the credential, the second the size of the pieces, the rest is the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::proto::dialogue::{UpstreamDialogue, UpstreamStep};
use portreeve::proto::session::{UpstreamReady, UpstreamSecurity};
use portreeve::proto::smtp::upstream::SmtpUpstream;
use portreeve::proto::{Credential, CredentialSecret, Mechanism};

const SECRET: &str = "fuzzed-secret-of-the-mailbox";

/// The last step as text, and all bytes that are the relay's.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    last: Option<String>,
    learned: Option<Vec<String>>,
    surplus: Vec<u8>,
}

fn ready(choice: u8) -> UpstreamReady {
    // The long one does not fit the AUTH line.
    let secret = if choice & 4 == 0 {
        SECRET.to_owned()
    } else {
        SECRET.repeat(20)
    }
    .into();
    UpstreamReady {
        forwarded: None,
        credential: Credential {
            user: "ada@example.com".to_owned(),
            secret: match choice & 8 {
                0 => CredentialSecret::OAuth {
                    token: secret,
                    generation: 1,
                },
                _ => CredentialSecret::Password(secret),
            },
        },
        mechanisms: vec![Mechanism::OAuthBearer, Mechanism::XOAuth2],
        host: "smtp.example.com".to_owned(),
        port: 465,
        // With STARTTLS the pieces do matter: what is behind its 220 in the same piece is an injection.
        security: match choice & 3 {
            0 | 1 => UpstreamSecurity::Secured,
            2 => UpstreamSecurity::Clear,
            _ => UpstreamSecurity::StartTls,
        },
    }
}

fn run(choice: u8, stream: &[u8], piece: usize) -> Outcome {
    let mut dialogue = SmtpUpstream::new(ready(choice), "proxy.example.com");
    let mut outcome = Outcome::default();
    for bytes in stream.chunks(piece) {
        if outcome.last.is_some() {
            outcome.surplus.extend_from_slice(bytes);
            continue;
        }
        dialogue.handle_bytes(bytes);
        take_steps(&mut dialogue, &mut outcome);
    }
    if outcome.last.is_none() {
        dialogue.handle_eof();
        take_steps(&mut dialogue, &mut outcome);
    }
    assert!(outcome.last.is_some());
    outcome
}

fn take_steps(dialogue: &mut SmtpUpstream, outcome: &mut Outcome) {
    while let Some(step) = dialogue.poll_step() {
        assert!(outcome.last.is_none(), "a step behind the last one");
        assert!(!format!("{step:?}").contains(SECRET));
        match step {
            UpstreamStep::Secure => dialogue.handle_secured(),
            UpstreamStep::LoggedIn(greeted) => {
                outcome.last = Some("logged in".to_owned());
                assert!(greeted.for_client.is_empty());
                outcome.surplus = greeted.surplus.to_vec();
            }
            UpstreamStep::Failed(fault) => outcome.last = Some(fault.to_string()),
            UpstreamStep::Learned(said) => {
                let extensions = said.lines;
                assert!(
                    extensions
                        .iter()
                        .all(|it| it.bytes().all(|byte| matches!(byte, b' '..=b'~')))
                );
                assert!(outcome.learned.replace(extensions).is_none(), "learnt twice");
            }
            UpstreamStep::Send(_) | UpstreamStep::Challenged(_) => {}
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [choice, piece, stream @ ..] = data else { return };
    // An upstream that knows the secret before it was told shows nothing.
    if stream.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()) {
        return;
    }
    let whole = run(*choice, stream, usize::MAX);
    let split = run(*choice, stream, usize::from(*piece).max(1));
    if choice & 3 != 3 && whole.last.as_deref() == Some("logged in") {
        assert_eq!(whole, split);
    }
});
