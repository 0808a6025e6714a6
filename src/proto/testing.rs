//! What the tests of several protocol modules share.

use proptest::test_runner::{Config, FileFailurePersistence};

/// The default configuration, with the seeds of failures kept in `file` below the repository's root, where they are
/// committed together.
pub(crate) fn proptest_config(file: &'static str) -> Config {
    Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..Config::default()
    }
}
