//! Sessions as transcripts, and as stories that every split of their bytes must tell alike.
//!
//! `C:` the client sends a line, `S:` the proxy answers one; `<` a fact that the driver tells, `>` an action that it is given.
//! What stands behind an input is all that follows from it. `⏎` is a line's end; a line that ends in `…` has none.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ready;
use crate::fault::{Fault, FaultKind, UpstreamRefusal};
use crate::proto::Mechanism;
use crate::proto::session::{Action, Admission, Goodbye, Input, Phase, Report, Session, UpstreamSecurity};
use crate::secret::ExposeSecret;

/// All that a session comes to, whose driver answers at once: tokens that begin with `g` are good.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Story {
    pub(crate) to_client: String,
    pub(crate) to_upstream: Vec<u8>,
    pub(crate) reports: Vec<Report>,
    pub(crate) is_closed: bool,
}

/// Plays a transcript against a session that begins at `now`, and compares.
#[track_caller]
pub(crate) fn play(mut session: Session, mut now: Instant, transcript: &str) {
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

impl Story {
    /// What comes of a client that sends these pieces and ends its stream where no relay has begun.
    pub(crate) fn of(mut session: Session, now: Instant, pieces: &[&[u8]]) -> Self {
        let mut story = Self::default();
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
            Some(("upstream", said)) => Input::UpstreamBytes(said.as_bytes()),
            Some(("wait", seconds)) => {
                *now += Duration::from_secs(seconds.parse().unwrap());
                Input::DeadlinePassed
            }
            _ => panic!("unknown fact: {fact}"),
        },
    };
    session.handle(input, *now);
}

/// An action in a transcript's notation.
pub(crate) fn shown(action: &Action) -> String {
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
        Action::Report(report) => format!("> {report:?}\n"),
        action => format!("> {action:?}\n"),
    }
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
