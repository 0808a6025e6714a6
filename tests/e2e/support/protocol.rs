//! The three protocols, by the words that the proxy's configuration and tokens have for them.

/// A protocol that clients speak to the proxy, and the proxy to upstreams; `name` is the word of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Reading, and the default of every bed.
    Imap,
    /// Submission.
    Smtp,
    /// Reading.
    Pop3,
}

impl Protocol {
    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Imap => "imap",
            Protocol::Smtp => "smtp",
            Protocol::Pop3 => "pop3",
        }
    }

    /// The scope that an access token needs for it.
    pub fn scope(self) -> &'static str {
        match self {
            Protocol::Imap => "imap-proxy",
            Protocol::Smtp => "smtp",
            Protocol::Pop3 => "pop3",
        }
    }

    /// The protocol of that name.
    pub fn by_name(name: &str) -> Option<Protocol> {
        [Protocol::Imap, Protocol::Smtp, Protocol::Pop3]
            .into_iter()
            .find(|protocol| protocol.name() == name)
    }
}
