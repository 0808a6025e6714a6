//! The rows of [`super`]: which text means what.

use super::Explanation;

/// Microsoft's numbers, each in one row.
pub(super) static AADSTS: &[(&[u64], Explanation)] = &[
    // The account.
    (
        &[50034, 51004],
        row(
            "the user is not known in this tenant: the name is mistyped, or the provider's tenant is another's",
            "Check the account's address and the provider's tenant, then authorize the account again",
        ),
    ),
    (
        &[50020],
        row(
            "the user who signed in belongs to another tenant, or is a personal account, and this tenant does not know them",
            "Set the provider's tenant to the mailbox's (\"common\" for any, \"consumers\" for personal accounts), or have the \
             tenant's administrator invite the user",
        ),
    ),
    (
        &[500_208],
        row(
            "the account is not of the kind that the provider's tenant is for, such as a personal one where work accounts are \
             expected",
            "Set the provider's tenant: \"consumers\" for personal accounts, \"organizations\" or the tenant's id for work accounts",
        ),
    ),
    (
        &[50057],
        row(
            "the user's account is disabled in the directory",
            "Have the tenant's administrator enable it, then authorize the account again",
        ),
    ),
    (
        &[50126, 50056],
        row(
            "the user name or the password is wrong",
            "Give the account the right password, or authorize it in a browser",
        ),
    ),
    (
        &[50055, 50144],
        row(
            "the user's password has expired",
            "Have the user set a new password, then authorize the account again",
        ),
    ),
    (
        &[50125, 50135],
        row(
            "the user has to change or register a password first",
            "Have the user sign in at office.com and finish what is asked there, then authorize the account again",
        ),
    ),
    (
        &[50132, 50133],
        row(
            "the user's password was changed or has expired since the consent, which ended the grant",
            AUTHORIZE,
        ),
    ),
    (
        &[50173, 50089],
        row(
            "the grant was revoked: by the user, by an administrator, or with a change of the password",
            AUTHORIZE,
        ),
    ),
    (
        &[50053],
        row(
            "the user is locked after too many wrong passwords, or the sign-in came from an address with a bad reputation",
            "Wait until the lock ends, or have the administrator see the sign-in log (error 50053) and unblock the user",
        ),
    ),
    // More than the grant carries.
    (&[50058], row("the provider wants the user to sign in", AUTHORIZE)),
    (
        &[50072, 50079, 53004],
        row(
            "the user has to register for multi-factor authentication first",
            "Have the user sign in in a browser and register (aka.ms/mfasetup), then authorize the account again",
        ),
    ),
    (
        &[50074, 50076],
        row(
            "the organization now wants multi-factor authentication, which the consent was given without",
            "Authorize the account again, and pass the second factor",
        ),
    ),
    (
        &[50078],
        row(
            "the multi-factor authentication of the consent has expired by the organization's policy",
            "Authorize the account again; an administrator can lengthen the sign-in frequency for this app",
        ),
    ),
    (
        &[50097, 50129, 53000, 53001, 700_003],
        row(
            "a policy of the organization admits registered and compliant devices only",
            "Authorize the account in a browser on such a device, or have the administrator exempt this app in Conditional \
             Access",
        ),
    ),
    (
        &[50105],
        row(
            "the user is not assigned to the app, which the tenant demands",
            "Have the administrator assign the user to the app (Enterprise applications, Users and groups)",
        ),
    ),
    (
        &[50131, 53003, 530_032],
        row(
            "a Conditional Access policy of the organization refuses this sign-in, for its place, its device or its kind (device \
             code flow is often blocked)",
            "Have the administrator find the policy in the sign-in log and allow this app; if a device code was used, authorize in \
             a browser instead",
        ),
    ),
    (
        &[53002],
        row(
            "a Conditional Access policy admits approved apps only, and this is none",
            "Have the administrator exempt this app from that policy",
        ),
    ),
    (
        &[53011, 530_034],
        row(
            "the user is blocked because the organization sees a risk in the account",
            "Have the administrator dismiss the risk or unblock the user, then authorize the account again",
        ),
    ),
    (
        &[530_035],
        row(
            "the organization's security defaults refuse this way of signing in",
            "Authorize the account in a browser instead of with a password",
        ),
    ),
    (
        &[50140],
        row(
            "the sign-in was interrupted by the question whether to stay signed in",
            AUTHORIZE,
        ),
    ),
    (
        &[50158],
        row(
            "a second factor of another vendor was not passed",
            "Authorize the account again, and pass that check",
        ),
    ),
    // Consent.
    (
        &[65001],
        row(
            "consent is missing for a scope that is asked for",
            "Authorize the account again, for every protocol that the listeners serve; or set the provider's scopes to what was \
             consented to, send SIGHUP and give the account its refresh token again",
        ),
    ),
    (
        &[65002],
        row(
            "the client id is one of Microsoft's own apps, which may not open this mailbox",
            "Register an app of your own and set the provider's client_id to it",
        ),
    ),
    (
        &[65004],
        row(
            "the user declined the consent",
            "Authorize the account again, and accept",
        ),
    ),
    (
        &[90094, 90095],
        row(
            "the app needs an administrator's consent in this tenant",
            "Have the tenant's administrator grant consent to the app (Enterprise applications, Permissions, Grant admin consent)",
        ),
    ),
    // The code or the refresh token.
    (
        &[54005],
        row(
            "the authorization code was used before",
            "Authorize the account again, and open the link once only",
        ),
    ),
    (
        &[70000],
        row(
            "the refresh token is not valid: revoked, replaced, or another app's",
            "Authorize the account again with this app",
        ),
    ),
    (
        &[70008, 700_082],
        row(
            "the grant has ended because it was not used for too long (90 days, or the time that the tenant has set)",
            "Authorize the account again; a daemon that runs keeps it from ending (keep_alive)",
        ),
    ),
    (
        &[70016],
        row(
            "the user has not entered the device code yet",
            "Wait, or have the user open the link and enter the code",
        ),
    ),
    (
        &[70018],
        row(
            "a wrong device code was entered",
            "Authorize the account again, and type the code as shown",
        ),
    ),
    (
        &[70019],
        row(
            "the device code or the authorization code has expired",
            "Authorize the account again, and finish within the time that is shown",
        ),
    ),
    (
        &[70043],
        row(
            "the organization's sign-in frequency has ended the grant",
            "Authorize the account again; an administrator can exempt this app from that Conditional Access policy",
        ),
    ),
    (
        &[700_084],
        row(
            "the grant is of the kind for single-page apps, which ends after 24 hours whatever is done",
            "Register the redirect URI under \"Mobile and desktop applications\" instead of \"Single-page application\", then \
             authorize the account again",
        ),
    ),
    (
        &[700_005],
        row(
            "the authorization code is of another tenant than the token endpoint",
            "Set the provider's tenant so that both URLs have the same, then authorize the account again",
        ),
    ),
    (
        &[501_481],
        row(
            "the authorization code belongs to another attempt than the one that presents it",
            "Authorize the account again, and finish in the window that was opened last",
        ),
    ),
    // The app and its registration.
    (
        &[50194],
        row(
            "the app is registered for one tenant, but asked for at the endpoint for all (\"common\")",
            "Set the provider's tenant to the app's own, or register the app as multitenant",
        ),
    ),
    (
        &[9_001_023],
        row(
            "this grant is not to be had at the endpoints \"common\" and \"consumers\"",
            "Set the provider's tenant to the tenant's id or domain",
        ),
    ),
    (
        &[9_002_332],
        row(
            "the app is registered for work accounts only, but asked for at \"consumers\"",
            "Set the provider's tenant to the organization's, or register the app for personal accounts too",
        ),
    ),
    (
        &[50059, 50128],
        row(
            "the request does not tell which tenant it is for",
            "Set the provider's tenant to the tenant's id or domain",
        ),
    ),
    (
        &[90002],
        row(
            "there is no tenant of this name in this cloud",
            "Check the provider's tenant, and cloud for a national one",
        ),
    ),
    (
        &[700_016, 700_011],
        row(
            "the app is not known in this tenant: the client id is mistyped, the tenant is another's, or nobody there has \
             consented to it yet",
            "Check the provider's client_id and tenant, and have an administrator or a user there consent to the app",
        ),
    ),
    (
        &[7_000_229],
        row(
            "the app has no service principal in this tenant, so that nothing can be granted to it there",
            "Have the tenant's administrator consent to the app, which makes one, or create it (New-MgServicePrincipal)",
        ),
    ),
    (
        &[70001, 7_000_112],
        row(
            "the app is disabled",
            "Have its owner or the tenant's administrator enable it (Enterprise applications, Properties)",
        ),
    ),
    (
        &[50011, 500_113],
        row(
            "the redirect URI is not registered for the app",
            "Register it under Authentication: http://localhost under \"Mobile and desktop applications\", or the daemon's \
             public_url with /oauth/callback under \"Web\"",
        ),
    ),
    (
        &[70002, 7_000_215],
        row(
            "the app's secret is wrong: often its id was copied instead of its value",
            "Copy the secret's value (shown once when it is made) into client_secret, then send SIGHUP",
        ),
    ),
    (
        &[7_000_222],
        row(
            "the app's secret has expired",
            "Make a new secret at the app's registration, put it into client_secret, then send SIGHUP",
        ),
    ),
    (
        &[7_000_218],
        row(
            "the app is registered as confidential, but no secret was sent",
            "Set client_secret (or a certificate), or switch on \"Allow public client flows\" at the app's registration",
        ),
    ),
    (
        &[700_025],
        row(
            "the app is a public client, which may not send a secret",
            "Remove client_secret from the provider, or register the redirect URI under \"Web\"",
        ),
    ),
    (
        &[700_027, 50012, 700_030],
        row(
            "the app's assertion was not accepted: its key is not that of a certificate which is registered for the app",
            "Upload client_certificate_file at the app's registration (Certificates & secrets), and check that client_key_file \
             belongs to it",
        ),
    ),
    // What is asked for.
    (
        &[28002, 70011],
        row(
            "a scope that is asked for is not one that can be had here",
            "Correct the provider's scopes, then send SIGHUP",
        ),
    ),
    (
        &[700_022],
        row(
            "the scopes that are asked for belong to more than one resource",
            "Leave scopes of one resource only (https://outlook.office.com/…) in the provider's scopes, without Graph's",
        ),
    ),
    (
        &[650_053],
        row(
            "a scope that is asked for does not exist at its resource",
            "Correct the provider's scopes: IMAP.AccessAsUser.All, POP.AccessAsUser.All and SMTP.Send are of \
             https://outlook.office.com/",
        ),
    ),
    (
        &[65005, 650_056, 650_057],
        row(
            "the app's registration does not list the permissions that are asked for, or nobody has consented to them",
            "Add the IMAP, POP and SMTP permissions of Office 365 Exchange Online at the app's registration, and consent to them",
        ),
    ),
    (
        &[650_052, 500_011],
        row(
            "Exchange Online is not there in this tenant: it has no subscription, or the tenant is another's",
            "Check the provider's tenant, and that the organization has Exchange Online",
        ),
    ),
    (
        &[70003],
        row(
            "the app may not obtain tokens in this way",
            "Check the provider's grant, and what the app's registration allows",
        ),
    ),
    (
        &[900_144, 9_002_313],
        row(
            "the request is incomplete or malformed",
            "Check the provider's token_url and client_id; if they are right, this is a defect of portreeve's",
        ),
    ),
    (
        &[90093],
        row(
            "the directory refuses the request of this user or app",
            "Have the tenant's administrator consent to the app",
        ),
    ),
    // Passing.
    (
        &[50196],
        row(
            "the provider has seen the same request too often in a short time",
            "Wait: it is tried again by itself; if it goes on, look for another program that uses the same app and account",
        ),
    ),
    (
        &[90055],
        row(
            "the provider is asked too much by this tenant",
            "Wait: it is tried again by itself",
        ),
    ),
    (
        &[70012, 90006, 90012, 90024, 90033],
        row(
            "the provider has trouble of its own",
            "Wait: it is tried again by itself",
        ),
    ),
];

/// A phrase, in lower case, in a message, and what it means where no number tells; the first that fits counts.
pub(super) static PHRASES: &[(&str, Explanation)] = &[
    (
        // Google Workspace's session control (support.google.com/a/answer/9368756).
        "invalid_rapt",
        row(
            "the organization's Google session control has ended the grant",
            "Authorize the account again; an administrator can lengthen the reauthentication time, or exempt the app as trusted",
        ),
    ),
    (
        "client is unauthorized to retrieve access tokens using this method",
        row(
            "the service account may not act for this mailbox: domain-wide delegation lacks its client id or this scope",
            "Have the Workspace administrator add both (Admin console, Security, API controls, Domain-wide delegation), and wait \
             some minutes",
        ),
    ),
    (
        "invalid email or user id",
        row(
            "the service account asks for a mailbox that does not exist in its organization",
            "Check the account's address",
        ),
    ),
    (
        "account has been deleted",
        row(
            "the mailbox's Google account has been deleted",
            "Remove the account, or have the deletion undone",
        ),
    ),
    ("consent_required", row(CONSENT_MISSING, CONSENT_REMEDY)),
];

/// An `error` member, in lower case, and what it means where nothing else tells (RFC 6749 §4.1.2.1 and §5.2, RFC 8628 §3.5,
/// RFC 8707 §2, OpenID Connect Core §3.1.2.6, Google's own; last the codes of ours).
pub(super) static CODES: &[(&str, Explanation)] = &[
    (
        "invalid_grant",
        row(
            "the grant is gone: expired, revoked, replaced by a newer one, or given to another app",
            AUTHORIZE,
        ),
    ),
    (
        "interaction_required",
        row(
            "the provider wants the user to sign in again, by a policy or for a second factor",
            AUTHORIZE,
        ),
    ),
    (
        "login_required",
        row("the provider wants the user to sign in again", AUTHORIZE),
    ),
    (
        "account_selection_required",
        row("the provider wants the user to choose an account", AUTHORIZE),
    ),
    ("consent_required", row(CONSENT_MISSING, CONSENT_REMEDY)),
    (
        "access_denied",
        row(
            "the consent was declined, or the provider does not let this user give it (in Google's Testing status only test users \
             may)",
            "Authorize the account again and accept; for a Google app in Testing, add the user to its test users first",
        ),
    ),
    (
        "expired_token",
        row(
            "the device code has expired",
            "Authorize the account again, and finish within the time that is shown",
        ),
    ),
    (
        "admin_policy_enforced",
        row(
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
        row(
            "the app has been deleted at the provider",
            "Restore it there, or set the provider's client_id to another app and authorize its accounts again",
        ),
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
        row(
            "the provider does not know a scope that is asked for, or it was not consented to",
            "Correct the provider's scopes and send SIGHUP, or authorize the account again for all of them",
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
        ),
    ),
    (
        "connect",
        row(
            "there is no connection to the provider's token endpoint",
            "It is tried again by itself; if it goes on, check token_url or issuer, DNS, HTTPS_PROXY and the firewall, and for a \
             private authority the provider's ca_file",
        ),
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

pub(super) static GOOGLE_TESTING: Explanation = Explanation {
    cause: "the grant ended seven days after its consent, as all grants of a Google app do whose publishing status is Testing",
    remedy: "Publish the app (Google Cloud console, Google Auth Platform, Audience: In production, or Internal in an \
             organization), then authorize the account again",
};

pub(super) static GOOGLE_GONE: Explanation = Explanation {
    cause: "the grant is gone: its owner or an administrator has withdrawn it, the password was changed, it was not used for six \
            months, or more than a hundred newer ones of the same app took its place",
    remedy: "Authorize the account again",
};

pub(super) static GOOGLE_TESTING_OR_GONE: Explanation = Explanation {
    cause: "the grant is gone: its owner or an administrator has withdrawn it, the password was changed, it was not used for six \
            months, or it was an app's whose publishing status is Testing, whose grants end after seven days",
    remedy: "Authorize the account again; if it ends within days again, publish the app in the Google Cloud console first",
};

const CONSENT_MISSING: &str = "consent is missing for a scope that the refresh asks for";

const CONSENT_REMEDY: &str = "Authorize the account again, for every protocol that the listeners serve; or set the provider's \
                              scopes to what was consented to, send SIGHUP and give the account its refresh token again";

const WAIT: &str = "Wait: it is tried again by itself";

const AUTHORIZE: &str = "Authorize the account again";

const fn row(cause: &'static str, remedy: &'static str) -> Explanation {
    Explanation { cause, remedy }
}
