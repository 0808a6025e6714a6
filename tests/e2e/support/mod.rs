//! What the end-to-end tests stand on: child processes that end with their test, free ports, a
//! private certificate authority, the OAuth2 provider, Dovecot, Postfix, haproxy, Thunderbird,
//! Chromium, and small clients of the three protocols.
//!
//! Everything here panics on trouble, with the log of the process concerned: in a test a fault of
//! the bed must be as loud as a fault of the proxy. Nothing here knows the proxy's own types.

pub mod bed;
pub mod browser;
pub mod certs;
pub mod desk;
pub mod dovecot;
pub mod emailproxy;
pub mod haproxy;
pub mod host;
pub mod imap;
pub mod mailbox;
pub mod orders;
pub mod pop3;
pub mod portreeve;
pub mod ports;
pub mod postfix;
pub mod process;
pub mod programs;
pub mod protocol;
pub mod provider;
pub mod provider_options;
pub mod recorded;
pub mod shell;
pub mod smtp;
pub mod template;
pub mod thunderbird;
pub mod transcript;
pub mod upstream;
pub mod visitor;
pub mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the bed waits for anything: far longer than a loaded two-core machine needs, so that
/// running into it means a fault and never a slow day.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A file of the project, by its path from the project's root.
pub fn project_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Fails the test unless `path`, which `tests/testbed/install` puts in place, is there.
pub fn require_installed(path: &Path) {
    assert!(
        path.exists(),
        "the testbed is not installed ({} is missing): run tests/run, or tests/testbed/install",
        path.display()
    );
}

/// A temporary directory that other users may pass through, because Dovecot, when root starts it,
/// reads mail as an unprivileged user.
pub fn open_directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix("portreeve-e2e-")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a temporary directory can be made")
}
