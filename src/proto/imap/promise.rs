//! What an IMAP client may be told before its login, beside what the proxy itself does; see [`crate::proto::promise`].

/// The capabilities that may be promised, in the order in which they are told.
///
/// Each is of use after the login only, where the client speaks with its upstream itself. Left out with a reason: what the
/// proxy answers for before the login (`LITERAL+`, `SASL-IR`, `ID`, `STARTTLS`, every `AUTH=`), what changes how the stream
/// is read (`ENABLE` and what it turns on, `COMPRESS=`, `UTF8=`), and revisions of the protocol, which the client hears from
/// the upstream.
pub(in crate::proto) const NAMES: [&str; 7] = [
    // RFC 2177, RFC 2342, RFC 4315, RFC 6851, RFC 3691, RFC 3348, RFC 6154.
    "IDLE",
    "NAMESPACE",
    "UIDPLUS",
    "MOVE",
    "UNSELECT",
    "CHILDREN",
    "SPECIAL-USE",
];
