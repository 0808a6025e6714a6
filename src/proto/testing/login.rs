//! Whole upstream logins, driven as a session drives them: what the tests of every protocol's upstream side share.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::fault::{Fault, FaultKind};
use crate::proto::dialogue::{UpstreamDialogue, UpstreamStep};
use crate::proto::promise::Moment;
use crate::proto::sasl::upstream::message;
use crate::proto::session::{ForwardedClient, UpstreamReady, UpstreamSecurity};
use crate::proto::{Credential, CredentialSecret, Mechanism};

/// What became of a login.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// What was written, each write a string, with `<TLS>` for a handshake and `<challenge …>` for a reported one.
    pub(crate) did: Vec<String>,
    /// What the upstream said it can do, before its login and after it.
    pub(crate) learned: Vec<(Moment, String)>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) state: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    LoggedIn { for_client: String, surplus: String },
    Failed(Fault),
}

impl Run {
    pub(crate) fn for_client(&self) -> &str {
        match &self.outcome {
            Some(Outcome::LoggedIn { for_client, .. }) => for_client,
            other => panic!("not logged in: {other:?}"),
        }
    }

    pub(crate) fn surplus(&self) -> &str {
        match &self.outcome {
            Some(Outcome::LoggedIn { surplus, .. }) => surplus,
            other => panic!("not logged in: {other:?}"),
        }
    }

    pub(crate) fn fault(&self) -> &Fault {
        match &self.outcome {
            Some(Outcome::Failed(fault)) => fault,
            other => panic!("not failed: {other:?}"),
        }
    }

    /// That the login failed for a passing trouble, and what the log says of it.
    pub(crate) fn assert_unavailable(&self, detail: &str) {
        let fault = self.fault();
        assert_eq!((&fault.kind, fault.detail.as_str()), (&FaultKind::Unavailable, detail));
    }

    /// The refusal's code and text, and whether it is the credential's fault.
    pub(crate) fn refusal(&self) -> (Option<&str>, &str, bool) {
        match &self.fault().kind {
            FaultKind::UpstreamRefused(refusal) => (refusal.code.as_deref(), &refusal.text, refusal.blames_credential),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// For a protocol whose upstream has nothing to say to the client around a login.
    pub(crate) fn assert_client_hears_nothing(&self) {
        if let Some(Outcome::LoggedIn { for_client, .. }) = &self.outcome {
            assert_eq!(for_client, "");
        }
    }

    fn take_steps(&mut self, dialogue: &mut impl UpstreamDialogue) {
        while let Some(step) = dialogue.poll_step() {
            assert_eq!(self.outcome, None, "a step behind the last one");
            match step {
                UpstreamStep::Send(bytes) => self.did.push(String::from_utf8(bytes.to_vec()).unwrap()),
                UpstreamStep::Secure => {
                    self.did.push("<TLS>".to_owned());
                    dialogue.handle_secured();
                }
                UpstreamStep::Challenged(text) => self.did.push(format!("<challenge {text}>")),
                UpstreamStep::Learned(said) => self.learned.push((said.moment, said.lines.join(", "))),
                UpstreamStep::LoggedIn(greeted) => {
                    self.outcome = Some(Outcome::LoggedIn {
                        for_client: String::from_utf8(greeted.for_client.to_vec()).unwrap(),
                        surplus: String::from_utf8(greeted.surplus.to_vec()).unwrap(),
                    });
                }
                UpstreamStep::Failed(fault) => self.outcome = Some(Outcome::Failed(fault)),
            }
        }
    }
}

/// Feeds each of `says` in pieces of `piece` bytes, as an upstream would that waits for our writes in between. What comes in
/// pieces behind the last step is the relay's, and is counted to the surplus here.
pub(crate) fn run_in_pieces(mut dialogue: impl UpstreamDialogue, says: &[&str], piece: usize) -> Run {
    let mut run = Run::default();
    for bytes in says.iter().flat_map(|said| said.as_bytes().chunks(piece)) {
        if let Some(Outcome::LoggedIn { surplus, .. }) = &mut run.outcome {
            surplus.push_str(std::str::from_utf8(bytes).unwrap());
            continue;
        }
        dialogue.handle_bytes(bytes);
        run.take_steps(&mut dialogue);
    }
    run.state = dialogue.state_name();
    run
}

/// That an upstream which goes away after `says` finds the login in the state `name`, and that the fault tells it.
pub(crate) fn assert_end_is_told(mut dialogue: impl UpstreamDialogue, says: &[&str], name: &str) {
    let mut run = Run::default();
    for said in says {
        dialogue.handle_bytes(said.as_bytes());
        run.take_steps(&mut dialogue);
    }
    assert_eq!(dialogue.state_name(), name);
    dialogue.handle_eof();
    run.take_steps(&mut dialogue);
    let expected = Fault::unavailable(format!("upstream closed the connection, {name}"));
    assert_eq!(run.fault(), &expected);
}

/// That all of `says` at once comes to the same outcome as in pieces of `piece` bytes.
pub(crate) fn check_split(
    run_in_pieces: impl Fn(UpstreamReady, &[&str], usize) -> Run,
    ready: UpstreamReady,
    says: &[&str],
    piece: usize,
) -> TestCaseResult {
    let says = says.concat();
    let whole = run_in_pieces(ready_again(&ready), &[&says], usize::MAX);
    let split = run_in_pieces(ready, &[&says], piece);
    prop_assert_eq!(whole.outcome, split.outcome);
    prop_assert_eq!(whole.state, split.state);
    Ok(())
}

/// That a login goes the same way whether each of `says` comes whole or in pieces of `piece` bytes.
pub(crate) fn check_interactive_split(
    run_in_pieces: impl Fn(UpstreamReady, &[&str], usize) -> Run,
    ready: UpstreamReady,
    says: &[&str],
    piece: usize,
) -> TestCaseResult {
    let whole = run_in_pieces(ready_again(&ready), says, usize::MAX);
    prop_assert_eq!(whole, run_in_pieces(ready, says, piece));
    Ok(())
}

/// That a login in which the upstream says `says`, then `bytes`, then goes away, has one last step and nothing behind it,
/// tells at most once for each moment what it learnt, and prints no credential.
pub(crate) fn check_last_step(mut dialogue: impl UpstreamDialogue, says: &[&str], bytes: &[u8]) -> TestCaseResult {
    let (mut last, mut learned) = (0, 0);
    for said in says.iter().map(|said| said.as_bytes()).chain(std::iter::once(bytes)) {
        dialogue.handle_bytes(said);
        while let Some(step) = dialogue.poll_step() {
            let shown = format!("{step:?}");
            prop_assert!(!shown.contains(TOKEN) && !shown.contains(PASSWORD));
            prop_assert_eq!(last, 0);
            match step {
                UpstreamStep::Secure => dialogue.handle_secured(),
                UpstreamStep::LoggedIn(_) | UpstreamStep::Failed(_) => last += 1,
                UpstreamStep::Learned(_) => learned += 1,
                UpstreamStep::Send(_) | UpstreamStep::Challenged(_) => {}
            }
        }
    }
    dialogue.handle_eof();
    while dialogue.poll_step().is_some() {
        last += 1;
    }
    prop_assert_eq!(last, 1);
    prop_assert!(learned <= 2);
    Ok(())
}

/// The token of [`oauth`].
pub(crate) const TOKEN: &str = "ya29.a0AfH6SMBx-token-of-the-test";

/// The password of [`password`].
const PASSWORD: &str = "correct horse battery";

/// A leg with that token.
pub(crate) fn with_token(token: &str, security: UpstreamSecurity) -> UpstreamReady {
    with_secret(token_secret(token), security)
}

/// A leg with [`TOKEN`].
pub(crate) fn oauth(security: UpstreamSecurity) -> UpstreamReady {
    with_token(TOKEN, security)
}

/// A leg with [`PASSWORD`].
pub(crate) fn password(security: UpstreamSecurity) -> UpstreamReady {
    with_secret(password_secret(PASSWORD), security)
}

fn with_secret(secret: CredentialSecret, security: UpstreamSecurity) -> UpstreamReady {
    UpstreamReady {
        security,
        ..ready("ada@example.com", secret, &[Mechanism::OAuthBearer, Mechanism::XOAuth2])
    }
}

/// A leg inside TLS, for `user` with `secret` at a provider with those mechanisms.
pub(crate) fn ready(user: &str, secret: CredentialSecret, mechanisms: &[Mechanism]) -> UpstreamReady {
    UpstreamReady {
        forwarded: None,
        credential: Credential {
            user: user.to_owned(),
            secret,
        },
        mechanisms: mechanisms.to_vec(),
        host: "mail.example.com".to_owned(),
        port: 993,
        security: UpstreamSecurity::Secured,
    }
}

/// An OAuth token.
pub(crate) fn token_secret(token: &str) -> CredentialSecret {
    CredentialSecret::OAuth {
        token: token.to_owned().into(),
        generation: 7,
    }
}

/// A password.
pub(crate) fn password_secret(password: &str) -> CredentialSecret {
    CredentialSecret::Password(password.to_owned().into())
}

fn ready_again(ready: &UpstreamReady) -> UpstreamReady {
    UpstreamReady {
        credential: ready.credential.clone(),
        mechanisms: ready.mechanisms.clone(),
        host: ready.host.clone(),
        forwarded: ready.forwarded.clone(),
        ..*ready
    }
}

/// What `mechanism` says with [`TOKEN`].
pub(crate) fn blob(mechanism: Mechanism) -> String {
    let blob = message(mechanism, &oauth(UpstreamSecurity::Secured)).unwrap();
    blob.to_string()
}

/// Legs with a token, with one too long for a line of SMTP, and with a password.
pub(crate) fn readies(securities: &'static [UpstreamSecurity]) -> impl Strategy<Value = UpstreamReady> {
    let security = proptest::sample::select(securities);
    (0..3, security).prop_map(|(secret, security)| match secret {
        0 => oauth(security),
        1 => with_token(&TOKEN.repeat(20), security),
        _ => password(security),
    })
}

/// On these, what came in clear and what came in TLS cannot be told by the pieces it came in.
pub(crate) const WITHOUT_STARTTLS: &[UpstreamSecurity] = &[UpstreamSecurity::Secured, UpstreamSecurity::Clear];

pub(crate) const ALL: &[UpstreamSecurity] = &[
    UpstreamSecurity::Secured,
    UpstreamSecurity::Clear,
    UpstreamSecurity::StartTls,
];

/// A client that an upstream is told of.
pub(crate) fn forwarded_client(remote: &str) -> ForwardedClient {
    ForwardedClient {
        remote: remote.parse().unwrap(),
        local: "[::ffff:127.0.0.1]:993".parse().unwrap(),
        session: "17".to_owned(),
    }
}
