//! What the tests of this room are made of.

use std::sync::Arc;

use super::Consent;
use crate::config::{Web, test_support};

/// The consent for an account, as the flow `number`.
pub(super) fn consent(account: &str, number: u64) -> Consent {
    let app = test_support::app();
    Consent {
        account: account.to_owned(),
        provider: Arc::new(test_support::provider("example", Some(app))),
        created: None,
        link: None,
        number,
    }
}

/// A public side at `https://mail.example.com`.
pub(super) fn web() -> Web {
    Web {
        listen: Some(([127, 0, 0, 1], 8443).into()),
        public_url: "https://mail.example.com".parse().ok(),
        ..Web::default()
    }
}
