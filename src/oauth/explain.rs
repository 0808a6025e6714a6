//! What a token endpoint's error means in words: its cause, and what to do about it. Pure.
//!
//! Whose trouble a code is, and so what becomes of the account, is `super::classify`'s; the two know the same numbers. Of
//! Microsoft's numbers only those stand here whose meaning its reference gives
//! (learn.microsoft.com/entra/identity-platform/reference-error-codes) or its own error pages; of Google's codes those of its
//! OAuth 2.0 guides and account help. What is not known is left to the provider's own words.

//!
//! A remedy fits the way the token is had and the step that failed: nobody can authorize an app's own grant again, and while a
//! code is exchanged there is no refresh token yet.

mod table;

use std::fmt;
use std::time::Duration;

use super::classify::{self, Trouble};
use super::error::{AnsweredBy, Step, TokenError, TokenErrorKind};
use super::vendor::Vendor;
use crate::clock::Timestamp;

use table::{
    AADSTS, AADSTS_CONSENT_MISSING, BESIDE, CODES, GOOGLE_GONE, GOOGLE_TESTING, GOOGLE_TESTING_OR_GONE, PHRASES,
    VENDORS,
};

/// A known trouble in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// What is wrong: a phrase in lower case, without an end.
    pub cause: &'static str,
    /// What to do about it: a sentence without its full stop.
    pub remedy: &'static str,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.cause, self.remedy)
    }
}

/// What is known of the grant that an endpoint refuses.
#[derive(Debug, Clone, Copy)]
pub struct GrantLife {
    /// When its owner consented, where that was seen.
    pub consented: Option<Timestamp>,
    /// Since when it is held here, at the latest.
    pub held_since: Timestamp,
    /// When it last gave an access token.
    pub last_good: Option<Timestamp>,
}

/// A trouble in words, which may be others at some steps.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    cause: &'static str,
    remedy: Remedy,
    at: &'static [(Step, Explanation)],
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// The same, whatever was presented.
    Anybodys(&'static str),
    /// A new consent of the mailbox's owner, where what was presented is the owner's.
    Owners(&'static str),
}

impl Known {
    /// With other words for some steps.
    const fn at(self, at: &'static [(Step, Explanation)]) -> Self {
        Self { at, ..self }
    }

    /// The words for what failed in `step`.
    fn in_step(&self, step: Option<Step>) -> Explanation {
        let particular = self.at.iter().find(|(at, _)| Some(*at) == step);
        if let Some((_, particular)) = particular {
            return *particular;
        }
        let remedy = match (self.remedy, step) {
            (Remedy::Owners(_), Some(Step::ClientCredentials)) => CHECK_APP,
            (Remedy::Owners(_), Some(Step::ServiceAccount)) => CHECK_SERVICE_ACCOUNT,
            (Remedy::Owners(_), Some(Step::Password)) => GIVE_PASSWORD,
            (Remedy::Owners(_), Some(Step::External)) => ASK_KEEPER,
            (Remedy::Anybodys(remedy) | Remedy::Owners(remedy), _) => remedy,
        };
        let cause = self.cause;
        Explanation { cause, remedy }
    }
}

/// What `error` means, which ends a grant of this `life` at the moment `now`; `None` where its words are all that is known.
pub fn of_token_error(error: &TokenError, life: GrantLife, now: Timestamp) -> Option<Explanation> {
    let facts = error.facts;
    if let AnsweredBy::Obstacle(obstacle) = facts.answered_by {
        return Some(table::of_obstacle(obstacle));
    }
    let code = error.code.to_ascii_lowercase();
    if facts.step == Some(Step::External) {
        let known = table::of_external(error.kind, &code);
        return known.or_else(|| of_code(error, &code).map(|known| known.in_step(facts.step)));
    }
    if code == "invalid_grant" && is_google_gone(error) {
        return Some(of_google_gone(life, now));
    }
    let in_general = facts.number.filter(|number| classify::is_general(*number));
    let known = of_both(error, &code)
        .or_else(|| of_scopes(error))
        .or_else(|| in_general.and_then(|_| of_phrase(error)))
        .or_else(|| of_number(error, &code))
        .or_else(|| of_phrase(error))
        .or_else(|| of_code(error, &code));
    let known = known.map(|known| known.in_step(facts.step));
    // Answers without a code that is known.
    known.or_else(|| facts.status.and_then(table::of_status))
}

/// The remedy with which `text` ends, for somebody who has such a text and wants its remedy.
pub fn remedy_at_end_of(text: &str) -> Option<&'static str> {
    all().map(|known| known.remedy).find(|remedy| text.ends_with(remedy))
}

/// All that can be explained.
fn all() -> impl Iterator<Item = Explanation> {
    let numbers = AADSTS.iter().map(|(_, known)| known);
    let beside = BESIDE.iter().map(|(_, _, known)| known);
    let phrases = PHRASES.iter().map(|(_, _, known)| known);
    let codes = CODES.iter().map(|(_, known)| known);
    let vendors = VENDORS.iter().map(|(_, _, known)| known);
    let known = numbers.chain(beside).chain(phrases).chain(codes).chain(vendors);
    let in_steps = known.flat_map(|known| STEPS.iter().map(|step| known.in_step(*step)));
    let google = [GOOGLE_TESTING, GOOGLE_GONE, GOOGLE_TESTING_OR_GONE];
    in_steps.chain(google).chain(table::without_code())
}

/// What the vendor's number means beside just this code.
fn of_both(error: &TokenError, code: &str) -> Option<&'static Known> {
    let number = error.facts.number?;
    let row = BESIDE.iter().find(|(one, beside, _)| *one == number && *beside == code);
    row.map(|(_, _, known)| known)
}

/// What it means that the scopes are refused, and not what is presented.
fn of_scopes(error: &TokenError) -> Option<&'static Known> {
    let is_meant = error.facts.is_about_scopes && error.kind == TokenErrorKind::Grant;
    of_aadsts(AADSTS_CONSENT_MISSING).filter(|_| is_meant)
}

/// What the vendor's number means, where it agrees with whose trouble it is.
fn of_number(error: &TokenError, code: &str) -> Option<&'static Known> {
    // Of an owner who declines, Microsoft's number may be that of a refresh token which is not valid.
    let number = error
        .facts
        .number
        .filter(|number| code != "access_denied" || *number != TOKEN_INVALID)?;
    let agrees = agrees(error, classify::of_aadsts(number)?);
    of_aadsts(number).filter(|_| agrees)
}

/// What the provider's words mean.
fn of_phrase(error: &TokenError) -> Option<&'static Known> {
    let words = error.message.to_ascii_lowercase();
    let is_of_step = |step: &Option<Step>| step.is_none() || *step == error.facts.step;
    let row = PHRASES
        .iter()
        .find(|(phrase, step, _)| is_of_step(step) && words.contains(phrase));
    row.map(|(_, _, known)| known)
}

/// What an `error` member means by itself, in lower case, where it agrees with whose trouble it is.
fn of_code(error: &TokenError, code: &str) -> Option<&'static Known> {
    let vendor = error.facts.vendor;
    if classify::of_code(vendor, code).is_some_and(|trouble| !agrees(error, trouble)) {
        return None;
    }
    let of_vendor = VENDORS
        .iter()
        .find(|(whose, known, _)| *whose == vendor && *known == code);
    let of_all = || CODES.iter().find(|(known, _)| *known == code).map(|(_, known)| known);
    of_vendor.map(|(_, _, known)| known).or_else(of_all)
}

/// Whether `error` is that `trouble`: a status may say that all of it passes, and a step that it is nobody's but the app's.
fn agrees(error: &TokenError, trouble: Trouble) -> bool {
    let trouble = error
        .facts
        .step
        .map_or(trouble, |step| classify::at_step(step, trouble));
    matches!(
        (error.kind, trouble),
        (TokenErrorKind::Grant, Trouble::Grant)
            | (TokenErrorKind::App, Trouble::App)
            | (TokenErrorKind::Temporary { .. }, Trouble::Passing)
    )
}

/// What a Microsoft Entra error number means.
fn of_aadsts(number: u64) -> Option<&'static Known> {
    let row = AADSTS.iter().find(|(numbers, _)| numbers.contains(&number));
    row.map(|(_, known)| known)
}

/// Whether these are Google's words for a refresh token that is gone, or that it does not know any more. The latter are anybody's
/// words; the former are nobody else's, so that they count wherever the endpoint is.
fn is_google_gone(error: &TokenError) -> bool {
    let words = error.message.to_ascii_lowercase();
    let is_google = match error.facts.vendor {
        Vendor::Google => GOOGLE_GONE_WORDS.contains(&words.as_str()),
        Vendor::Other => GOOGLE_GONE_WORDS.first() == Some(&words.as_str()),
        _ => false,
    };
    is_google && matches!(error.facts.step, None | Some(Step::Refresh))
}

/// Google says the same of every grant that is gone. But the grants of an app whose publishing status is Testing end after
/// seven days whatever is done (developers.google.com/identity/protocols/oauth2#expiration), which shows in their life.
fn of_google_gone(life: GrantLife, now: Timestamp) -> Explanation {
    // A grant that was given by hand is older than that.
    let since = life.consented.unwrap_or(life.held_since);
    let has_outlived = life
        .last_good
        .is_some_and(|last_good| last_good.since(since) >= TESTING_LIFE + TESTING_SLACK);
    match life.consented {
        _ if has_outlived => GOOGLE_GONE,
        None => GOOGLE_TESTING_OR_GONE,
        Some(consented) if now.since(consented) < TESTING_LIFE.saturating_sub(TESTING_SLACK) => GOOGLE_GONE,
        Some(_) => GOOGLE_TESTING,
    }
}

/// The steps in which something may be other words.
const STEPS: [Option<Step>; 9] = [
    None,
    Some(Step::Exchange),
    Some(Step::DeviceCode),
    Some(Step::DevicePoll),
    Some(Step::Refresh),
    Some(Step::ClientCredentials),
    Some(Step::ServiceAccount),
    Some(Step::Password),
    Some(Step::External),
];

// In place of a new consent, where nobody can give one.
const CHECK_APP: &str = "Check the app at the provider: its secret or certificate, its application permissions, and an \
                         administrator's consent to them";
const CHECK_SERVICE_ACCOUNT: &str = "Check the service account at the provider: its key, its domain-wide delegation for the scopes, \
                                     and the account's address";
const GIVE_PASSWORD: &str = "Give the account the mailbox's password again; if it is right, the provider does not take it from \
                             programs, and another grant is needed";
const ASK_KEEPER: &str =
    "Have the mailbox authorized again where the token command or token_url_external keeps its grants";

/// AADSTS70000: the refresh token, or what else was presented, is not valid.
const TOKEN_INVALID: u64 = 70000;

/// How long a grant lives that an app in Testing was given.
const TESTING_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far off its end may be seen: an access token that was had before lives another hour, and clocks differ.
const TESTING_SLACK: Duration = Duration::from_secs(2 * 3600);

/// Google's descriptions of a grant that is gone, in lower case; the second is that of one which it does not know any more.
const GOOGLE_GONE_WORDS: [&str; 2] = ["token has been expired or revoked.", "bad request"];

#[cfg(test)]
mod tests;
