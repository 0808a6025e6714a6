//! Reads the URL that a provider sends an owner's browser back to (RFC 6749 §4.1.2): a code or a refusal, for one state.
//!
//! Whoever may open a page in that browser may have made the URL, so it is read strictly and believed nothing until its state
//! was found among the flows in progress.

use std::borrow::Cow;

use url::Url;

use super::answer::{clean_code, is_token};
use super::text::clean;
use crate::limits::REDIRECT_BYTES_MAX;
use crate::secret::SecretString;

/// Where a browser is told to come back to: a URL, and the very text that it was given as. Providers compare texts, and parsing
/// adds a slash to a bare host, which Microsoft's registered `http://localhost` has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectUri {
    text: String,
    url: Url,
}

impl RedirectUri {
    /// Reads a redirect URI.
    ///
    /// # Errors
    /// If it is no URL.
    pub fn parse(text: &str) -> Result<Self, url::ParseError> {
        Ok(Self {
            url: Url::parse(text)?,
            text: text.to_owned(),
        })
    }

    /// As it was given, which is how providers are told of it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it means.
    pub fn url(&self) -> &Url {
        &self.url
    }
}

impl From<Url> for RedirectUri {
    fn from(url: Url) -> Self {
        Self {
            text: url.to_string(),
            url,
        }
    }
}

/// What a browser brought back.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// Which flow it belongs to.
    pub state: String,
    /// The issuer that it names (RFC 9207).
    pub issuer: Option<String>,
    /// What the provider decided.
    pub outcome: Outcome,
}

/// What a provider decided, or its owner.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A code, which is exchanged for tokens once.
    Code(SecretString),
    /// No (RFC 6749 §4.1.2.1). Both texts are clean.
    Refused {
        /// The code of the error.
        code: String,
        /// What the provider says of it; may be empty.
        description: String,
    },
}

/// Why a URL is none that a provider sends browsers back to. No text repeats anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// It is too long.
    #[error("the URL is longer than {REDIRECT_BYTES_MAX} bytes")]
    TooLong,
    /// Something is there twice (RFC 6749 §3.1).
    #[error("the URL holds a parameter more than once")]
    Repeated,
    /// A parameter holds what it cannot.
    #[error("the URL's {0} cannot be one")]
    Malformed(&'static str),
    /// It belongs to no flow.
    #[error("the URL has no state; copy the whole of it from the browser's address bar")]
    NoState,
    /// It says yes and no.
    #[error("the URL has both a code and an error")]
    Both,
    /// It says neither.
    #[error("the URL has neither a code nor an error; copy the whole of it from the browser's address bar")]
    Neither,
}

impl Redirect {
    /// Reads `url`, of which only the query counts.
    ///
    /// # Errors
    /// [`RedirectError`], if it is none of the two forms that RFC 6749 knows.
    pub fn read(url: &Url) -> Result<Self, RedirectError> {
        if url.as_str().len() > REDIRECT_BYTES_MAX {
            return Err(RedirectError::TooLong);
        }
        let mut parameters: Vec<(Cow<'_, str>, Cow<'_, str>)> = url.query_pairs().collect();
        // What is not known is ignored, but nothing may be there twice: two readers might each take another.
        parameters.sort_by(|(one, _), (other, _)| one.cmp(other));
        if parameters
            .iter()
            .zip(parameters.iter().skip(1))
            .any(|((one, _), (other, _))| one == other)
        {
            return Err(RedirectError::Repeated);
        }
        // A parameter without a value is one that was left out (RFC 6749 §3.1).
        let value = |wanted: &str| {
            let found = parameters.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_ref()).filter(|value| !value.is_empty())
        };
        let usable = |name: &'static str| match value(name) {
            Some(value) if !is_token(value, b'!') => Err(RedirectError::Malformed(name)),
            value => Ok(value),
        };
        let state = usable("state")?.ok_or(RedirectError::NoState)?;
        let issuer = usable("iss")?.map(str::to_owned);
        let outcome = match (usable("code")?, value("error")) {
            (Some(_), Some(_)) => return Err(RedirectError::Both),
            (None, None) => return Err(RedirectError::Neither),
            (Some(code), None) => Outcome::Code(code.to_owned().into()),
            (None, Some(error)) => Outcome::Refused {
                code: clean_code(error, &[state]),
                description: clean(value("error_description").unwrap_or_default(), &[state]),
            },
        };
        Ok(Self {
            state: state.to_owned(),
            issuer,
            outcome,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::ExposeSecret;

    fn read(query: &str) -> Result<Redirect, RedirectError> {
        Redirect::read(&Url::parse(&format!("http://localhost:4711/callback{query}")).unwrap())
    }

    #[test]
    fn a_redirect_uri_is_told_as_it_was_given() {
        for text in [
            "http://localhost:4711",
            "http://localhost:4711/",
            "http://127.0.0.1:80/",
            "https://mail.example.com/oauth/callback",
        ] {
            assert_eq!(RedirectUri::parse(text).unwrap().as_str(), text);
        }
        assert!(RedirectUri::parse("//localhost/").is_err());
    }

    #[test]
    fn a_code_comes_with_its_state_and_perhaps_an_issuer() {
        // The second is Google's, the third Microsoft's form.
        let cases = [
            ("?code=SplxlOBe&state=xyz", "SplxlOBe", None),
            (
                "?state=xyz&iss=https%3A%2F%2Faccounts.google.com&code=4%2F0Ab_c&scope=email%20https%3A%2F%2Fmail.google.com%2F&authuser=0&prompt=consent",
                "4/0Ab_c",
                Some("https://accounts.google.com"),
            ),
            (
                "?code=M.C507_BL2.2.U.d1a8&state=xyz&session_state=1c#",
                "M.C507_BL2.2.U.d1a8",
                None,
            ),
        ];
        for (query, code, issuer) in cases {
            let redirect = read(query).unwrap();
            assert_eq!(redirect.state, "xyz");
            assert_eq!(redirect.issuer.as_deref(), issuer);
            let Outcome::Code(read) = redirect.outcome else {
                panic!("{query}")
            };
            assert_eq!(read.expose_secret(), code);
        }
    }

    #[test]
    fn a_refusal_is_cleaned() {
        let redirect =
            read("?error=access_denied&error_description=The+user%0D%0Asaid+no%1B[2J+xyzw&state=xyzw").unwrap();
        let Outcome::Refused { code, description } = redirect.outcome else {
            panic!("a code")
        };
        assert_eq!(code, "access_denied");
        assert_eq!(description, "The user said no [2J [REDACTED]");
    }

    #[test]
    fn what_is_not_exactly_one_answer_is_refused() {
        let long = format!("?state=x&code={}", "c".repeat(REDIRECT_BYTES_MAX));
        let cases = [
            ("", RedirectError::NoState),
            ("?code=c", RedirectError::NoState),
            ("?code=c&state=", RedirectError::NoState),
            ("?state=x", RedirectError::Neither),
            ("?state=x&code=&error=", RedirectError::Neither),
            ("#state=x&code=c", RedirectError::NoState),
            ("?state=x&code=c&error=access_denied", RedirectError::Both),
            ("?state=x&code=c&code=c", RedirectError::Repeated),
            ("?state=x&code=c&state=y", RedirectError::Repeated),
            ("?state=x&code=c&iss=a&i%73s=b", RedirectError::Repeated),
            ("?state=x&code=c%20d", RedirectError::Malformed("code")),
            ("?state=x%0A&code=c", RedirectError::Malformed("state")),
            ("?state=x&code=c&iss=%C3%A4", RedirectError::Malformed("iss")),
            (&long, RedirectError::TooLong),
        ];
        for (query, expected) in cases {
            assert_eq!(read(query).unwrap_err(), expected, "{query:.60}");
        }
    }

    proptest! {
        #[test]
        fn no_query_breaks_the_reader_or_gets_a_control_character_through(query in "[ -~]{0,60}", error in "\\PC{1,30}") {
            let mut url = Url::parse("https://mail.example.com/oauth/callback").unwrap();
            url.set_query(Some(&query));
            let _ = Redirect::read(&url);
            url.set_query(Some("state=s"));
            url.query_pairs_mut().append_pair("error", &error).append_pair("error_description", &error);
            if let Ok(Redirect { outcome: Outcome::Refused { code, description }, .. }) = Redirect::read(&url) {
                prop_assert!(!code.chars().chain(description.chars()).any(char::is_control));
            }
        }
    }
}
