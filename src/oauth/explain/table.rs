//! The rows of [`super`]: which text means what.

mod microsoft;

use super::{ASK_KEEPER, Explanation, Known, Remedy};
use crate::oauth::error::{Obstacle, Step, TokenErrorKind};
use crate::oauth::vendor::Vendor;

pub(super) use microsoft::{AADSTS, BESIDE, CONSENT_MISSING as AADSTS_CONSENT_MISSING};

/// A phrase, in lower case, in the provider's words, the step that they are of (none: any), and what it means where no number
/// tells; the first that fits counts.
pub(super) static PHRASES: &[(&str, Option<Step>, Known)] = &[
    (
        // Google Workspace's session control (support.google.com/a/answer/9368756).
        "invalid_rapt",
        None,
        consent(
            "the organization's Google session control has ended the grant",
            "Authorize the account again; an administrator can lengthen the reauthentication time, or exempt the app as trusted",
        ),
    ),
    (
        "client is unauthorized to retrieve access tokens using this method",
        None,
        row(
            "the service account may not act for this mailbox: domain-wide delegation lacks its client id or this scope",
            "Have the Workspace administrator add both (Admin console, Security, API controls, Domain-wide delegation), and wait \
             some minutes",
        ),
    ),
    (
        "requested client not authorized",
        SERVICE_ACCOUNT,
        row(
            "the service account may not act for this mailbox: domain-wide delegation lacks its client id",
            "Have the Workspace administrator add it (Admin console, Security, API controls, Domain-wide delegation)",
        ),
    ),
    ("invalid email or user id", None, row(NO_MAILBOX, CHECK_ADDRESS)),
    ("not a valid email or user id", None, row(NO_MAILBOX, CHECK_ADDRESS)),
    (
        "invalid jwt signature",
        SERVICE_ACCOUNT,
        row(
            "the key in the service account's file is not one that Google knows: it was deleted there, or is another account's",
            "Make a new key (Google Cloud console, IAM & Admin, Service Accounts, Keys) and put it where service_account_file points",
        ),
    ),
    (
        "short-lived token",
        SERVICE_ACCOUNT,
        row(
            "the assertion is not within its time, so that this machine's clock is wrong",
            "Set this machine's clock (timedatectl, chronyc), and keep it right by NTP",
        ),
    ),
    (
        "account not found",
        SERVICE_ACCOUNT,
        row(
            "the service account does not exist (any more)",
            "Restore it, or make another with domain-wide delegation, and put its key where service_account_file points",
        ),
    ),
    (
        "robot is disabled",
        SERVICE_ACCOUNT,
        row(
            "the service account is disabled",
            "Have its owner enable it (Google Cloud console, IAM & Admin, Service Accounts)",
        ),
    ),
    (
        "account has been deleted",
        None,
        row(
            "the mailbox's Google account has been deleted",
            "Remove the account, or have the deletion undone",
        ),
    ),
    (
        "not enabled for consumers",
        None,
        row(
            "the app is not there for personal accounts, or its client id is mistyped",
            "Correct the provider's client_id, or register the app for personal accounts; for work accounts alone, set tenant to \
             \"organizations\"",
        ),
    ),
    ("consent_required", None, consent(CONSENT_MISSING, CONSENT_REMEDY)),
];

/// An `error` member, in lower case, and what it means where nothing else tells (RFC 6749 §4.1.2.1 and §5.2, RFC 8628 §3.5,
/// RFC 8707 §2, OpenID Connect Core §3.1.2.6, Google's own; last the codes of ours).
pub(super) static CODES: &[(&str, Known)] = &[
    (
        "invalid_grant",
        consent(
            "the grant is gone: expired, revoked, replaced by a newer one, or given to another app",
            AUTHORIZE,
        )
        .at(INVALID_GRANT),
    ),
    ("invalid_refresh_token", consent(REFRESH_TOKEN_GONE, AUTHORIZE)),
    ("expired_refresh_token", consent(REFRESH_TOKEN_GONE, AUTHORIZE)),
    ("refresh_token_expired", consent(REFRESH_TOKEN_GONE, AUTHORIZE)),
    ("refresh_token_revoked", consent(REFRESH_TOKEN_GONE, AUTHORIZE)),
    (
        "bad_verification_code",
        consent("the device code is not known (any more) to the provider", IN_TIME),
    ),
    (
        "interaction_required",
        consent(
            "the provider wants the user to sign in again, by a policy or for a second factor",
            AUTHORIZE,
        ),
    ),
    (
        "login_required",
        consent("the provider wants the user to sign in again", AUTHORIZE),
    ),
    (
        "account_selection_required",
        consent("the provider wants the user to choose an account", AUTHORIZE),
    ),
    ("consent_required", consent(CONSENT_MISSING, CONSENT_REMEDY)),
    (
        "access_denied",
        consent(
            "the consent was declined, or the provider does not let this user give it (in Google's Testing status only test users \
             may)",
            "Authorize the account again and accept; for a Google app in Testing, add the user to its test users first",
        ),
    ),
    (
        "expired_token",
        consent(
            "the device code has expired",
            IN_TIME,
        ),
    ),
    (
        "admin_policy_enforced",
        consent(
            "the organization's Google administrator does not allow this app, or not these scopes",
            "Have the Workspace administrator trust the app (Admin console, Security, API controls, App access control), then \
             authorize the account again",
        ),
    ),
    (
        "org_internal",
        row(
            "the Google app is for the users of its own organization only",
            "Use an account of that organization, or make the app External (Google Auth Platform, Audience)",
        ),
    ),
    (
        "disabled_client",
        row(
            "the provider has disabled the app",
            "See the app's console for the reason, or set the provider's client_id to another app",
        ),
    ),
    (
        "deleted_client",
        consent(
            "the app has been deleted at the provider",
            "Restore it there, or set the provider's client_id to another app and authorize its accounts again",
        )
        .at(&[(
            Step::ClientCredentials,
            explanation(
                "the app has been deleted at the provider",
                "Restore it there, or set the provider's client_id to another app",
            ),
        )]),
    ),
    (
        "redirect_uri_mismatch",
        row(
            "the redirect URI is not registered for the app",
            "Register it at the provider exactly as it is sent; for a loopback one, make the app's type \"Desktop app\"",
        ),
    ),
    (
        "invalid_client",
        row(
            "the provider does not accept the app's client id or secret",
            "Correct client_id, client_secret and client_auth of the provider, then send SIGHUP",
        ),
    ),
    (
        "unauthorized_client",
        row(
            "the app may not use this grant, or not for this user",
            "Check the app's registration at the provider, and the provider's client_id and grant",
        ),
    ),
    (
        "invalid_scope",
        consent(
            SCOPE_UNKNOWN,
            "Correct the provider's scopes and send SIGHUP, or authorize the account again for all of them",
        )
        .at(&[
            (
                Step::ClientCredentials,
                explanation(SCOPE_UNKNOWN, "Correct the provider's scopes, then send SIGHUP"),
            ),
            (
                Step::ServiceAccount,
                explanation(
                    SCOPE_UNKNOWN,
                    "Correct the provider's scopes, then send SIGHUP; its domain-wide delegation must list them, too",
                ),
            ),
            (
                Step::Password,
                explanation(SCOPE_UNKNOWN, "Correct the provider's scopes, then send SIGHUP"),
            ),
        ]),
    ),
    (
        "invalid_client_secret",
        row(
            "the app's secret is wrong",
            "Correct client_secret of the provider, then send SIGHUP",
        ),
    ),
    (
        "invalid_redirect_uri",
        row(
            "the redirect URI is not registered for the app",
            "Register it at the provider exactly as it is sent",
        ),
    ),
    (
        "invalid_resource",
        row(
            "the provider does not know the resource that is asked for, or not in this tenant",
            "Correct the provider's scopes and tenant, then send SIGHUP",
        ),
    ),
    (
        "invalid_target",
        row(
            "the provider does not know the resource that is asked for",
            "Correct the provider's scopes, then send SIGHUP",
        ),
    ),
    (
        "invalid_request",
        row(
            "the provider finds the request incomplete or malformed",
            "Check the provider's token_url, client_id, client_secret and client_auth",
        ),
    ),
    (
        "unsupported_grant_type",
        row(
            "the provider does not give tokens in this way",
            "Check the provider's token_url and grant",
        ),
    ),
    (
        "temporarily_unavailable",
        row("the provider is overloaded or under maintenance", WAIT),
    ),
    ("server_error", row("the provider has trouble of its own", WAIT)),
    ("internal_failure", row("the provider has trouble of its own", WAIT)),
    ("slow_down", row("the provider is asked too often", WAIT)),
    ("rate_limit_exceeded", row("the provider is asked too often", WAIT)),
    (
        "timeout",
        row(
            "the provider's token endpoint did not answer in time",
            "It is tried again by itself; if it goes on, check the network and any proxy or firewall towards it",
        )
        .at(&[(
            Step::External,
            explanation(
                "the token source did not answer in time",
                "It is tried again by itself; if it goes on, run the token command as the daemon's user and see what it waits for",
            ),
        )]),
    ),
    (
        "connect",
        row(
            "there is no connection to the provider's token endpoint",
            "It is tried again by itself; if it goes on, check token_url or issuer, DNS, HTTPS_PROXY and the firewall, and for a \
             private authority the provider's ca_file",
        )
        .at(&[(
            Step::External,
            explanation(
                "there is no connection to the token source",
                "It is tried again by itself; if it goes on, check token_url_external, and that the program at it runs",
            ),
        )]),
    ),
    (
        "network",
        row(
            "the connection to the provider's token endpoint broke",
            "It is tried again by itself; if it goes on, check what stands between: a proxy, a firewall",
        ),
    ),
    (
        "trust",
        row(
            "the provider's ca_file cannot be used",
            "Correct the file or its name, then send SIGHUP",
        ),
    ),
];

/// A code, in lower case, that means this with one vendor only.
pub(super) static VENDORS: &[(Vendor, &str, Known)] = &[
    (Vendor::Yahoo, "token_expired", consent(REFRESH_TOKEN_GONE, AUTHORIZE)),
    (Vendor::Yahoo, "expired_token", consent(REFRESH_TOKEN_GONE, AUTHORIZE)),
    (Vendor::Yahoo, "invalid_token", consent(REFRESH_TOKEN_GONE, AUTHORIZE)),
    (
        Vendor::Yahoo,
        "account_not_authorized",
        consent(
            "the mailbox's owner has not authorized this app, or has withdrawn it",
            AUTHORIZE,
        ),
    ),
    (
        Vendor::Yahoo,
        "invalid_authorization_code",
        consent("the authorization code is not valid: used before, or expired", IN_TIME),
    ),
    (
        Vendor::Yahoo,
        "underage_user",
        consent(
            "the mailbox's owner is a minor, who may not authorize apps",
            "Use an app password where the account may make one; it cannot be authorized",
        ),
    ),
    (Vendor::Yahoo, "invalid_consumer_key", row(YAHOO_CLIENT, CHECK_CLIENT)),
    (Vendor::Yahoo, "deleted_consumer_key", row(YAHOO_CLIENT, CHECK_CLIENT)),
    (Vendor::Yahoo, "disabled_consumer_key", row(YAHOO_CLIENT, CHECK_CLIENT)),
    (Vendor::Yahoo, "invalid_callback", row(YAHOO_REDIRECT, REGISTER)),
    (Vendor::Yahoo, "invalid_callback_url", row(YAHOO_REDIRECT, REGISTER)),
    (Vendor::Yahoo, "bad_redirect_uri", row(YAHOO_REDIRECT, REGISTER)),
    (Vendor::Yahoo, "unsupported_redirect_uri", row(YAHOO_REDIRECT, REGISTER)),
    (Vendor::Yahoo, "internal_error", row(TROUBLE, WAIT)),
    (Vendor::Yahoo, "error_handling_request", row(TROUBLE, WAIT)),
    (
        Vendor::Yandex,
        "unauthorized_client",
        row(
            "Yandex has not approved the app yet, or has rejected it",
            "See the app's state at https://oauth.yandex.com, or set the provider's client_id to another app",
        ),
    ),
    (
        Vendor::Yandex,
        "invalid_scope",
        consent(
            "the app's permissions were changed at Yandex since the consent",
            "Give the app its mail permissions at https://oauth.yandex.com again, then authorize the account again",
        ),
    ),
    (
        Vendor::Yandex,
        "basic auth required",
        row(
            "Yandex wants the app's id and secret in a header",
            "Set the provider's client_auth to \"basic\", then send SIGHUP",
        ),
    ),
    (
        Vendor::MailRu,
        "token not found",
        consent(REFRESH_TOKEN_GONE, AUTHORIZE),
    ),
    (Vendor::Zoho, "invalid_code", consent(REFRESH_TOKEN_GONE, AUTHORIZE)),
    (
        Vendor::Zoho,
        "access denied",
        row("the provider is asked too often", WAIT),
    ),
];

/// What stands where a token endpoint should be.
pub(super) fn of_obstacle(obstacle: Obstacle) -> Explanation {
    match obstacle {
        Obstacle::Login => explanation(
            "a proxy or the network between here and the provider wants a login first",
            "Put a user and a password into HTTPS_PROXY (http://user:password@host:port), log this machine in to its network, or have \
             portreeve let pass to the token endpoint",
        ),
        Obstacle::Proxy => explanation(
            "the proxy that HTTPS_PROXY names makes no connection to the token endpoint",
            "It is tried again by itself; if it goes on, have the proxy let portreeve pass to the endpoint's host, or name that \
             host in NO_PROXY",
        ),
        Obstacle::Redirect => explanation(
            "something answers with a redirect in place of the provider: a web filter, the login page of a network, or a token_url \
             that is not the endpoint's own",
            "Check token_url or issuer, and have the filter or the network let portreeve pass to it",
        ),
        Obstacle::Page => explanation(
            "something answers with a web page in place of the provider: a web filter, the login page of a network, or a token_url \
             that is not the endpoint's own",
            "Check token_url or issuer, and have the filter or the network let portreeve pass to it",
        ),
        Obstacle::Refusal => explanation(
            "something between here and the provider refuses the request: a web filter, a firewall, or the provider's own, which \
             does not like this machine's address",
            "Have it let portreeve pass to the token endpoint; check HTTPS_PROXY and from which address the daemon goes out",
        ),
        Obstacle::Nothing => explanation(
            "there is no token endpoint at this URL",
            "Check the provider's token_url, or its issuer",
        ),
    }
}

/// What a status means by itself, of a server that has trouble.
pub(super) fn of_status(status: u16) -> Option<Explanation> {
    match status {
        429 => Some(explanation("the provider is asked too often", WAIT)),
        408 | 425 | 500.. => Some(explanation(
            "the provider, or a gateway before it, has trouble of its own",
            WAIT,
        )),
        401 => Some(explanation(
            "the token endpoint, or something before it, wants to know who asks",
            "Correct client_id, client_secret and client_auth of the provider, then send SIGHUP",
        )),
        _ => None,
    }
}

/// What is wrong with somebody else's program that keeps the grants, by whose trouble it is and the code.
pub(super) fn of_external(kind: TokenErrorKind, code: &str) -> Option<Explanation> {
    let known = match code {
        _ if kind == TokenErrorKind::Grant => explanation("the token source has no token for this account", ASK_KEEPER),
        "token_command" => explanation(
            "the token command fails",
            "Run it as the daemon's user, and see what it says",
        ),
        "bad_answer" => explanation(
            "what the token source gives is no token",
            "Have it print the token alone on one line, or {\"user\", \"accessToken\", \"expires\"}",
        ),
        "token_expired" => explanation(
            "the token source gives a token that has ended",
            "Have it refresh the token before it gives it, and check this machine's clock",
        ),
        "http_401" => explanation(
            "the token source wants to know who asks",
            "Put what it wants to know into token_url_external",
        ),
        "http_301" | "http_302" | "http_303" | "http_307" | "http_308" => explanation(
            "the token source redirects, which is not followed",
            "Set token_url_external to the URL where it leads",
        ),
        _ => return None,
    };
    Some(known)
}

/// Everything that the three can say.
pub(super) fn without_code() -> impl Iterator<Item = Explanation> {
    let obstacles = [
        Obstacle::Login,
        Obstacle::Proxy,
        Obstacle::Redirect,
        Obstacle::Page,
        Obstacle::Refusal,
        Obstacle::Nothing,
    ];
    let statuses = [401, 429, 503].into_iter().filter_map(of_status);
    let gone = of_external(TokenErrorKind::Grant, "");
    let codes = ["token_command", "bad_answer", "token_expired", "http_401", "http_302"];
    let external = codes
        .into_iter()
        .filter_map(|code| of_external(TokenErrorKind::App, code));
    obstacles
        .into_iter()
        .map(of_obstacle)
        .chain(statuses)
        .chain(gone)
        .chain(external)
}

pub(super) const GOOGLE_TESTING: Explanation = Explanation {
    cause: "the grant ended seven days after its consent, as all grants of a Google app do whose publishing status is Testing",
    remedy: "Publish the app (Google Cloud console, Google Auth Platform, Audience: In production, or Internal in an \
             organization), then authorize the account again",
};

pub(super) const GOOGLE_GONE: Explanation = Explanation {
    cause: "the grant is gone: its owner or an administrator has withdrawn it, the password was changed, it was not used for six \
            months, or more than a hundred newer ones of the same app took its place",
    remedy: "Authorize the account again",
};

pub(super) const GOOGLE_TESTING_OR_GONE: Explanation = Explanation {
    cause: "the grant is gone: its owner or an administrator has withdrawn it, the password was changed, it was not used for six \
            months, or it was an app's whose publishing status is Testing, whose grants end after seven days",
    remedy: "Authorize the account again; if it ends within days again, publish the app in the Google Cloud console first",
};

/// `invalid_grant` where it is not a refresh token's.
const INVALID_GRANT: &[(Step, Explanation)] = &[
    (
        Step::Exchange,
        explanation(
            "the authorization code is not good (any more): used before, expired, or given to another app or redirect URI",
            "Authorize the account again, open the link once only, and finish within some minutes",
        ),
    ),
    (
        Step::DevicePoll,
        explanation(
            "the device code is not good (any more): used before, expired, or another app's",
            IN_TIME,
        ),
    ),
    (
        Step::ClientCredentials,
        explanation(
            "the provider refuses the app's own grant",
            "Check the app at the provider: its secret or certificate, its application permissions, and an administrator's consent to \
             them",
        ),
    ),
    (
        Step::ServiceAccount,
        explanation(
            "the provider refuses the service account's assertion",
            "Check its key file, its domain-wide delegation for the scopes, the mailbox's address, and this machine's clock",
        ),
    ),
    (
        Step::Password,
        explanation(
            "the mailbox's name or password is wrong, or the provider wants more than a password",
            "Give the account the right password; where a second factor is wanted, use another grant",
        ),
    ),
];

const SERVICE_ACCOUNT: Option<Step> = Some(Step::ServiceAccount);

const NO_MAILBOX: &str = "the service account asks for a mailbox that does not exist in its organization";

const CHECK_ADDRESS: &str = "Check the account's address (its user, else its e-mail)";

const REFRESH_TOKEN_GONE: &str = "the refresh token is not good (any more): expired, revoked, or another app's";

const SCOPE_UNKNOWN: &str = "the provider does not know a scope that is asked for, or it was not consented to";

const YAHOO_CLIENT: &str = "Yahoo does not know the app's client id, or has disabled it";

const CHECK_CLIENT: &str =
    "Correct the provider's client_id, or see the app's state at https://developer.yahoo.com/apps";

const YAHOO_REDIRECT: &str =
    "the redirect URI is not the one that is registered for the app, or not one that Yahoo takes";

const REGISTER: &str = "Register it at the provider exactly as it is sent; Yahoo's must be https";

const TROUBLE: &str = "the provider has trouble of its own";

const IN_TIME: &str = "Authorize the account again, and finish within the time that is shown";

const CONSENT_MISSING: &str = "consent is missing for a scope that the refresh asks for";

const CONSENT_REMEDY: &str = "Authorize the account again, for every protocol that the listeners serve; or set the provider's \
                              scopes to what was consented to, send SIGHUP and give the account its refresh token again";

const WAIT: &str = "Wait: it is tried again by itself";

const AUTHORIZE: &str = "Authorize the account again";

const fn row(cause: &'static str, remedy: &'static str) -> Known {
    Known {
        cause,
        remedy: Remedy::Anybodys(remedy),
        at: &[],
    }
}

/// A row whose remedy is a new consent of the mailbox's owner.
const fn consent(cause: &'static str, remedy: &'static str) -> Known {
    Known {
        cause,
        remedy: Remedy::Owners(remedy),
        at: &[],
    }
}

const fn explanation(cause: &'static str, remedy: &'static str) -> Explanation {
    Explanation { cause, remedy }
}
