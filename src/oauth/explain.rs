//! What a token endpoint's error means in words: its cause, and what to do about it. Pure.
//!
//! Whose trouble a code is, and so what becomes of the account, is `super::classify`'s; the two know the same numbers. Of
//! Microsoft's numbers only those stand here whose meaning its reference gives
//! (learn.microsoft.com/entra/identity-platform/reference-error-codes) or its own error pages; of Google's codes those of its
//! OAuth 2.0 guides and account help. What is not known is left to the provider's own words.

mod table;

use std::fmt;
use std::time::Duration;

use super::classify;
use super::error::TokenError;
use crate::clock::Timestamp;

use table::{AADSTS, CODES, GOOGLE_GONE, GOOGLE_TESTING, GOOGLE_TESTING_OR_GONE, PHRASES};

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

/// What `error` means, which ends a grant of this `life` at the moment `now`; `None` where its words are all that is known.
pub fn of_token_error(error: &TokenError, life: GrantLife, now: Timestamp) -> Option<&'static Explanation> {
    // Of an owner who declines, Microsoft's number may be that of a refresh token which is not valid.
    let is_declined = error.code == "access_denied";
    let mut numbers =
        classify::aadsts_numbers(&error.message).filter(|number| !is_declined || *number != TOKEN_INVALID);
    if let Some(known) = numbers.find_map(of_aadsts) {
        return Some(known);
    }
    let (code, message) = (error.code.to_ascii_lowercase(), error.message.to_ascii_lowercase());
    if code.as_str() == "invalid_grant" && GOOGLE_GONE_WORDS.contains(&message.as_str()) {
        return Some(of_google_gone(life, now));
    }
    let mut phrases = PHRASES.iter().filter(|(phrase, _)| message.contains(phrase));
    let by_phrase = phrases.next().map(|(_, known)| known);
    by_phrase.or_else(|| of_code(&code))
}

/// What the numbers, phrases and codes of this table mean, for somebody who has such a text and wants its remedy: the one
/// whose words `text` ends with.
pub fn at_end_of(text: &str) -> Option<&'static Explanation> {
    all().find(|known| text.ends_with(&known.to_string()))
}

/// All that can be explained.
fn all() -> impl Iterator<Item = &'static Explanation> {
    let numbers = AADSTS.iter().map(|(_, known)| known);
    let phrases = PHRASES.iter().map(|(_, known)| known);
    let codes = CODES.iter().map(|(_, known)| known);
    let google = [&GOOGLE_TESTING, &GOOGLE_GONE, &GOOGLE_TESTING_OR_GONE];
    numbers.chain(phrases).chain(codes).chain(google)
}

/// What a Microsoft Entra error number means.
fn of_aadsts(number: u64) -> Option<&'static Explanation> {
    let row = AADSTS.iter().find(|(numbers, _)| numbers.contains(&number));
    row.map(|(_, known)| known)
}

/// What an `error` member means by itself, in lower case.
fn of_code(code: &str) -> Option<&'static Explanation> {
    let row = CODES.iter().find(|(known, _)| *known == code);
    row.map(|(_, known)| known)
}

/// Google says the same of every grant that is gone. But the grants of an app whose publishing status is Testing end after
/// seven days whatever is done (developers.google.com/identity/protocols/oauth2#expiration), which shows in their life.
fn of_google_gone(life: GrantLife, now: Timestamp) -> &'static Explanation {
    // A grant that was given by hand is older than that.
    let since = life.consented.unwrap_or(life.held_since);
    let has_outlived = life
        .last_good
        .is_some_and(|last_good| last_good.since(since) >= TESTING_LIFE + TESTING_SLACK);
    match life.consented {
        _ if has_outlived => &GOOGLE_GONE,
        None => &GOOGLE_TESTING_OR_GONE,
        Some(consented) if now.since(consented) < TESTING_LIFE.saturating_sub(TESTING_SLACK) => &GOOGLE_GONE,
        Some(_) => &GOOGLE_TESTING,
    }
}

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
