//! Wire conversations with the built proxy through real sockets, each readable as the text file of
//! its name under `transcripts/`. The format is described in `support/transcript.rs`.

use std::collections::BTreeSet;

use crate::support::project_file;
use crate::support::protocol::Protocol;
use crate::support::transcript;

/// Makes a test of each transcript, and the list of them all.
macro_rules! transcripts {
    ($protocol:ident: $($name:ident)*) => {
        mod $protocol {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let text = include_str!(concat!(
                        "transcripts/", stringify!($protocol), "/", stringify!($name), ".txt"
                    ));
                    super::play(stringify!($protocol), stringify!($name), text).await;
                }
            )*

            #[test]
            fn every_transcript_is_played() {
                let named = [$(stringify!($name)),*].map(str::to_owned);
                super::assert_played(stringify!($protocol), named.into());
            }
        }
    };
}

transcripts! { imap:
    account_disabled_or_without_imap
    account_limit
    address_not_allowed
    alerts_before_a_refusal
    around_the_upstreams_login
    bad_commands
    before_login
    capabilities_learned
    capability_once
    client_address_forwarded
    client_gone_without_reading
    client_speaks_first
    end_of_stream
    goodbye
    goodbye_at_a_boundary
    goodbye_when_idle
    goodbye_when_stopping
    grant_gone
    limits_before_login
    login_by_email
    login_forms
    login_in_clear_refused
    login_timeout
    main_job
    oauth_app_refused
    one_byte_at_a_time
    pipelining
    pre_auth_timeout
    provider_trouble
    proxy_limit
    sasl_login
    sasl_oauthbearer
    sasl_plain
    sasl_xoauth2
    scope_missing
    starttls
    third_failure
    throttled
    token_expired
    token_of_another_account
    unknown_credentials
    upstream_in_clear
    upstream_password_by_login
    upstream_refuses_the_password
    upstream_refuses_the_token
    upstream_starttls
    upstream_trouble
    upstream_unreachable
    upstream_without_sasl_ir
    user_is_not_connected
}

transcripts! { smtp:
    account_disabled_or_without_smtp
    account_limit
    address_limit
    address_not_allowed
    bad_commands
    before_login
    client_address_forwarded
    client_gone_without_reading
    client_speaks_first
    ehlo_learning
    end_of_stream
    goodbye
    goodbye_at_a_boundary
    goodbye_when_idle
    goodbye_when_stopping
    grant_gone
    limits_before_login
    login_by_email
    login_forms
    login_in_clear_refused
    login_timeout
    main_job
    oauth_app_refused
    one_byte_at_a_time
    own_user
    pipelining
    pre_auth_timeout
    provider_trouble
    proxy_limit
    sasl_login
    sasl_oauthbearer
    sasl_plain
    sasl_xoauth2
    scope_missing
    starttls
    submissions_limit
    third_failure
    token_expired
    token_of_another_account
    unknown_credentials
    upstream_auth_steps
    upstream_refuses_the_password
    upstream_refuses_the_token
    upstream_starttls
    upstream_trouble
    upstream_unreachable
}

transcripts! { pop3:
    account_disabled_or_without_pop3
    account_limit
    address_limit
    address_not_allowed
    bad_commands
    before_login
    client_address_forwarded
    client_gone_without_reading
    client_speaks_first
    end_of_stream
    goodbye
    goodbye_when_idle
    goodbye_when_stopping
    grant_gone
    limits_before_login
    login_by_email
    login_forms
    login_in_clear_refused
    login_timeout
    main_job
    oauth_app_refused
    one_byte_at_a_time
    pipelining
    pre_auth_timeout
    provider_trouble
    proxy_limit
    sasl_login
    sasl_oauthbearer
    sasl_plain
    sasl_xoauth2
    scope_missing
    starttls
    third_failure
    token_expired
    token_of_another_account
    unknown_credentials
    upstream_auth_steps
    upstream_refuses_the_password
    upstream_refuses_the_token
    upstream_starttls
    upstream_trouble
    upstream_unreachable
}

async fn play(protocol: &str, name: &str, text: &str) {
    let protocol = Protocol::by_name(protocol).expect("a folder's name is a protocol's");
    transcript::play(protocol, name, text).await;
}

/// Fails if a file of `protocol` is not among the names of those played.
fn assert_played(protocol: &str, named: BTreeSet<String>) {
    let folder = project_file("tests/e2e/transcripts").join(protocol);
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("the transcripts are there")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    assert_eq!(files, named);
}
