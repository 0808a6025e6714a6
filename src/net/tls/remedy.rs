//! What to do where the handshake with an upstream fails, as it stands at the end of a [`super::TlsError`]'s text.

/// A certificate for another name.
pub(super) const NAME: &str = "correct the endpoint's host, or have the upstream show a certificate for it";

/// An authority that nobody here trusts.
pub(super) const ISSUER: &str = "if the authority is a private one, set the provider's ca_file to its certificate; else the \
                                 upstream may not send its intermediate certificates";

/// An authority of a trusted one's name, with another key.
pub(super) const AUTHORITY: &str = "if the authority is a private one and was made anew, set the provider's ca_file to its \
                                    present certificate";

/// Too late, or too early.
pub(super) const TIME: &str = "have the upstream's certificate renewed, or this machine's clock set right";

/// No TLS from the first byte.
pub(super) const BEGINNING: &str = "if this is a port that begins in clear, set the endpoint's tls to \"starttls\"; else \
                                    correct its port";

/// No version or cipher in common.
pub(super) const VERSION: &str = "have the upstream speak TLS 1.2 or 1.3, which is what the proxy speaks";

const ALL: [&str; 6] = [NAME, ISSUER, AUTHORITY, TIME, BEGINNING, VERSION];

/// Parts a text that ends with a TLS error into what is wrong and what to do, where the latter is in it.
pub fn remedy_at_end_of(text: &str) -> Option<(&str, &'static str)> {
    ALL.into_iter().find_map(|remedy| {
        let problem = text.strip_suffix(remedy)?.strip_suffix("; ")?;
        Some((problem, remedy))
    })
}

/// What is `wrong`, and what to do.
pub(super) fn with_remedy(wrong: impl std::fmt::Display, remedy: &str) -> String {
    format!("{wrong}; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_found_again_at_the_end_of_a_text() {
        for remedy in ALL {
            let text = with_remedy("it is wrong; quite", remedy);
            assert_eq!(remedy_at_end_of(&text), Some(("it is wrong; quite", remedy)));
            assert_eq!(remedy_at_end_of(remedy), None);
        }
        assert_eq!(remedy_at_end_of("it is wrong"), None);
    }
}
