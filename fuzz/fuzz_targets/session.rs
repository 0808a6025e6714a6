//! Any sequence of session events, those that break the driving contract among them. What must hold:
//! an input that cannot come changes nothing; nothing follows the last action; each attempt ends with exactly one report;
//! memory is bounded while the contract's backpressure is kept; no secret is in debug output; clients get whole lines.

#![no_main]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use portreeve::fault::{Fault, FaultKind, UpstreamRefusal};
use portreeve::limits::PIPELINED_BYTES_MAX;
use portreeve::proto::dialogue::{ClientIdentity, DialUpstream, UpstreamDialogue, UpstreamGreeted, UpstreamStep};
use portreeve::proto::session::{
    Action, Admission, ClientSecurity, Goodbye, Input, LoginRequest, Phase, Report, Session, SessionContext,
    SessionLimits, Transition, UpstreamReady, UpstreamSecurity,
};
use portreeve::proto::{Credential, CredentialSecret, Dialogues, Mechanism, Protocol, dialogues};
use portreeve::secret::ExposeSecret;

fuzz_target!(|data: &[u8]| {
    let Some((&flags, events)) = data.split_first() else {
        return;
    };
    let mut run = Run::new(flags, token_for(data));
    let mut events = events.iter().copied();
    while let Some(event) = events.next() {
        run.event(event, &mut events);
    }
});

/// An OAuth token that no input can hold, because it depends on all of the input: what is found in debug output has leaked.
fn token_for(data: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    format!("ya29.{:016x}-of-the-provider", hasher.finish())
}

struct Run {
    session: Session,
    oauth_token: String,
    now: Instant,
    /// A login was asked to be checked and has no report yet.
    attempt_is_open: bool,
    has_ended: bool,
    /// The last action was given.
    is_over: bool,
}

impl Run {
    fn new(flags: u8, oauth_token: String) -> Self {
        let now = Instant::now();
        let context = SessionContext {
            protocol: match flags >> 1 & 3 {
                1 => Protocol::Smtp,
                2 => Protocol::Pop3,
                _ => Protocol::Imap,
            },
            remote_address: [127, 0, 0, 1].into(),
            hostname: "proxy.example".into(),
            security: match flags >> 4 & 3 {
                0 => ClientSecurity::Secured,
                1 => ClientSecurity::StartTls,
                _ => ClientSecurity::Clear,
            },
            plaintext_login: flags & 1 == 0,
            promised: Default::default(),
            limits: SessionLimits {
                pre_auth_timeout: Duration::from_secs(60),
                login_timeout: Duration::from_secs(30),
                command_line_bytes_max: 256,
                literal_bytes_max: 64,
                bad_commands_max: 10,
                pre_auth_commands_max: 100,
                auth_failures_max: 3,
            },
        };
        let dialogues = Dialogues {
            upstream: Box::new(Script),
            ..dialogues(&context)
        };
        Self {
            session: Session::with_dialogues(&context, dialogues, now),
            oauth_token,
            now,
            attempt_is_open: false,
            has_ended: false,
            is_over: false,
        }
    }

    fn event(&mut self, event: u8, rest: &mut impl Iterator<Item = u8>) {
        let take = |rest: &mut dyn Iterator<Item = u8>| {
            let count = usize::from(rest.next().unwrap_or(0));
            rest.take(count).collect::<Vec<u8>>()
        };
        let fault = || Err(Fault::new(FaultKind::UnknownCredentials));
        match event % 17 {
            0..=3 => {
                let bytes = take(rest);
                // The contract's backpressure, before the phases in which the bytes are the relay's.
                if self.session.wants_client_bytes() || matches!(self.session.phase(), Phase::Relay | Phase::Closed) {
                    self.feed(Input::ClientBytes(&bytes));
                }
            }
            4 => self.feed(Input::Opened),
            5 => self.feed(Input::ClientEof),
            6 => self.feed(Input::LoginChecked(Ok(Admission {
                account: "example".to_owned(),
            }))),
            7 => self.feed(Input::LoginChecked(fault())),
            8 => self.feed(Input::UpstreamConnected(Ok(self.ready(UpstreamSecurity::Secured)))),
            9 => self.feed(Input::UpstreamConnected(Ok(self.ready(UpstreamSecurity::StartTls)))),
            10 => self.feed(Input::UpstreamConnected(Err(Fault::unavailable("no route")))),
            11 => {
                let bytes = take(rest);
                self.feed(Input::UpstreamBytes(&bytes));
            }
            12 => self.feed(Input::UpstreamEof),
            13 => self.feed(Input::UpstreamSecured(if rest.next() == Some(0) {
                Err(Fault::unavailable("certificate"))
            } else {
                Ok(())
            })),
            14 => {
                self.now += Duration::from_secs(u64::from(rest.next().unwrap_or(0)));
                self.feed(Input::DeadlinePassed);
            }
            15 => self.feed(Input::ClientSecured),
            _ => self.feed(Input::Goodbye(Goodbye::TokenDeleted)),
        }
    }

    fn feed(&mut self, input: Input<'_>) {
        let phase = self.session.phase();
        let state = self.session.state_name();
        self.no_secret_in(&format!("{input:?}"));
        let transition = self.session.handle(input, self.now);
        let mut acted = false;
        while let Some(action) = self.session.poll_action() {
            acted = true;
            self.check(&action);
        }
        if transition != Transition::Taken {
            assert!(!acted && self.session.phase() == phase && self.session.state_name() == state);
        }
        assert_eq!(
            self.session.deadline().is_none(),
            matches!(self.session.phase(), Phase::Relay | Phase::Closed)
        );
        // One read is at most 255 bytes here, and a command with all its literals fits well within the bound.
        assert!(self.session.buffered() <= PIPELINED_BYTES_MAX + 255);
        self.no_secret_in(&format!("{:?}", self.session));
    }

    fn check(&mut self, action: &Action) {
        assert!(!self.is_over, "{action:?} follows the last action");
        self.no_secret_in(&format!("{action:?}"));
        match action {
            Action::CheckLogin(request) => {
                assert!(!std::mem::replace(&mut self.attempt_is_open, true));
                // Debug output must not depend on the secret. Looking for the secret in it would not do: it may be a part of
                // what the output always says.
                let other = Action::CheckLogin(LoginRequest {
                    user: request.user.clone(),
                    secret: "another".to_owned().into(),
                    mechanism: request.mechanism,
                });
                assert_eq!(format!("{action:?}"), format!("{other:?}"));
            }
            Action::Report(Report::LoginRefused { .. }) => self.attempt_is_open = false,
            Action::Report(Report::LoggedIn) => assert!(std::mem::replace(&mut self.attempt_is_open, false)),
            Action::Report(Report::Ended(_)) => assert!(!std::mem::replace(&mut self.has_ended, true)),
            Action::SendClient(bytes) => assert!(bytes.ends_with(b"\r\n")),
            Action::BeginRelay { .. } | Action::Close => {
                assert!(!self.attempt_is_open);
                self.is_over = true;
            }
            _ => {}
        }
    }

    fn no_secret_in(&self, text: &str) {
        assert!(!text.contains(&self.oauth_token), "{text}");
    }

    fn ready(&self, security: UpstreamSecurity) -> UpstreamReady {
        UpstreamReady {
            forwarded: None,
            credential: Credential {
                user: "joe@example.com".to_owned(),
                secret: CredentialSecret::OAuth {
                    token: self.oauth_token.clone().into(),
                    generation: 1,
                },
            },
            mechanisms: vec![Mechanism::XOAuth2],
            host: "imap.example.com".to_owned(),
            port: 993,
            security,
        }
    }
}

struct Script;

/// Does what the upstream's first byte says.
struct ScriptedUpstream {
    next: Option<UpstreamStep>,
}

impl DialUpstream for Script {
    fn dialogue(&self, ready: UpstreamReady, _identity: Option<ClientIdentity>) -> Box<dyn UpstreamDialogue> {
        let CredentialSecret::OAuth { token, .. } = &ready.credential.secret else {
            unreachable!("every credential here is OAuth")
        };
        let next = Some(UpstreamStep::Send(token.expose_secret().to_owned().into()));
        Box::new(ScriptedUpstream { next })
    }
}

impl UpstreamDialogue for ScriptedUpstream {
    fn handle_bytes(&mut self, bytes: &[u8]) {
        let refused = |blames_credential| {
            UpstreamStep::Failed(Fault::new(FaultKind::UpstreamRefused(UpstreamRefusal {
                code: None,
                text: String::from_utf8_lossy(bytes).into_owned(),
                blames_credential,
            })))
        };
        self.next = bytes.first().map(|byte| match byte % 5 {
            0 => UpstreamStep::LoggedIn(UpstreamGreeted {
                for_client: Bytes::new(),
                surplus: Bytes::copy_from_slice(bytes),
            }),
            1 => refused(true),
            2 => refused(false),
            3 => UpstreamStep::Secure,
            _ => UpstreamStep::Challenged("{}".to_owned()),
        });
    }

    fn handle_eof(&mut self) {
        self.next = Some(UpstreamStep::Failed(Fault::unavailable("end of stream")));
    }

    fn handle_secured(&mut self) {}

    fn poll_step(&mut self) -> Option<UpstreamStep> {
        self.next.take()
    }

    fn state_name(&self) -> &'static str {
        "waiting for the upstream"
    }
}
