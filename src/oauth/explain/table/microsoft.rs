//! Microsoft Entra's error numbers in words.

use super::super::{Explanation, Known};
use super::{consent, explanation, row};
use crate::oauth::error::Step;

/// Microsoft's numbers, each in one row.
pub(in crate::oauth::explain) static AADSTS: &[(&[u64], Known)] = &[
    // The account.
    (
        &[50034, 51004],
        consent(
            "the user is not known in this tenant: the name is mistyped, or the provider's tenant is another's",
            "Check the account's address and the provider's tenant, then authorize the account again",
        ),
    ),
    (
        &[50020, 90072],
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
        consent(
            "the user's account is disabled in the directory",
            "Have the tenant's administrator enable it, then authorize the account again",
        ),
    ),
    (
        &[50126, 50056],
        consent(
            "the user name or the password is wrong",
            "Give the account the right password, or authorize it in a browser",
        ),
    ),
    (
        &[50055, 50144],
        consent(
            "the user's password has expired",
            "Have the user set a new password, then authorize the account again",
        ),
    ),
    (
        &[50125, 50135],
        consent(
            "the user has to change or register a password first",
            "Have the user sign in at office.com and finish what is asked there, then authorize the account again",
        ),
    ),
    (
        &[50132, 50133],
        consent(
            "the user's password was changed or has expired since the consent, which ended the grant",
            AUTHORIZE,
        ),
    ),
    (
        &[50173, 50089],
        consent(
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
    (&[50058], consent("the provider wants the user to sign in", AUTHORIZE)),
    (
        &[50072, 50079, 53004],
        consent(
            "the user has to register for multi-factor authentication first",
            "Have the user sign in in a browser and register (aka.ms/mfasetup), then authorize the account again",
        ),
    ),
    (
        &[50074, 50076],
        consent(
            "the organization now wants multi-factor authentication, which the consent was given without",
            "Authorize the account again, and pass the second factor",
        ),
    ),
    (
        &[50078],
        consent(
            "the multi-factor authentication of the consent has expired by the organization's policy",
            "Authorize the account again; an administrator can lengthen the sign-in frequency for this app",
        ),
    ),
    (
        &[50097, 50129, 53000, 53001, 700_003],
        consent(
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
        consent(
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
        consent(
            "the user is blocked because the organization sees a risk in the account",
            "Have the administrator dismiss the risk or unblock the user, then authorize the account again",
        ),
    ),
    (
        &[530_035],
        consent(
            "the organization's security defaults refuse this way of signing in",
            "Authorize the account in a browser instead of with a password",
        ),
    ),
    (
        &[50140],
        consent(
            "the sign-in was interrupted by the question whether to stay signed in",
            AUTHORIZE,
        ),
    ),
    (
        &[50158],
        consent(
            "a second factor of another vendor was not passed",
            "Authorize the account again, and pass that check",
        ),
    ),
    // Consent.
    (
        &[65001],
        consent(
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
        consent(
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
        consent(
            "the authorization code was used before",
            "Authorize the account again, and open the link once only",
        ),
    ),
    (
        &[70000],
        consent(
            "the refresh token is not valid: revoked, replaced, or another app's",
            "Authorize the account again with this app",
        )
        .at(NEW_GRANT),
    ),
    (
        &[70008],
        consent(UNUSED, KEEP_ALIVE).at(&[(
            Step::Exchange,
            explanation("the authorization code has expired", IN_TIME),
        )]),
    ),
    (&[700_082], consent(UNUSED, KEEP_ALIVE)),
    (
        &[7_000_012],
        consent(
            "the grant was given in another tenant than the one that is asked",
            "Set the provider's tenant to the mailbox's, then authorize the account again",
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
        consent(
            "a wrong device code was entered",
            "Authorize the account again, and type the code as shown",
        ),
    ),
    (
        &[70019],
        consent(
            "the device code or the authorization code has expired",
            "Authorize the account again, and finish within the time that is shown",
        ),
    ),
    (
        &[70043],
        consent(
            "the organization's sign-in frequency has ended the grant",
            "Authorize the account again; an administrator can exempt this app from that Conditional Access policy",
        ),
    ),
    (
        &[700_084],
        consent(
            "the grant is of the kind for single-page apps, which ends after 24 hours whatever is done",
            "Register the redirect URI under \"Mobile and desktop applications\" instead of \"Single-page application\", then \
             authorize the account again",
        ),
    ),
    (
        &[700_005],
        consent(
            "the authorization code is of another tenant than the token endpoint",
            "Set the provider's tenant so that both URLs have the same, then authorize the account again",
        ),
    ),
    (
        &[501_481],
        consent(
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
        &[9_002_331, 9_002_346],
        row(
            "the app is registered for personal accounts only, but asked for at another endpoint than theirs",
            "Set the provider's tenant to \"consumers\", or register the app for work accounts too",
        ),
    ),
    (
        &[90130],
        row(
            "the app is not served at \"common\" and \"consumers\", since it is for work accounts only",
            "Set the provider's tenant to \"organizations\", or to the tenant's id or domain",
        ),
    ),
    (
        &[500_200],
        row(
            "a personal account signed in, which this app is not for",
            "Sign in with a work account; for personal ones register the app for them, and set the provider's tenant to \"common\" \
             or \"consumers\"",
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
        &[90002, 900_023],
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
        &[7_000_218, 7_000_216],
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
    (
        &[700_023],
        row(
            "the app's assertion is meant for another endpoint than the one that got it",
            "Check the provider's token_url and tenant: the assertion names the token endpoint as its audience",
        ),
    ),
    (
        &[700_024],
        row(
            "the app's assertion is not within its time, so that a clock is wrong",
            "Set this machine's clock (timedatectl, chronyc), and keep it right by NTP",
        ),
    ),
    // What is asked for.
    (
        &[90009],
        row(
            "the app asks for a token for itself: a scope names the app's own id in place of the mailbox's resource",
            "Correct the provider's scopes, which begin with https://outlook.office.com/ (or the resource of its cloud)",
        ),
    ),
    (
        &[90023],
        row(
            "the provider does not take the request, mostly for a scope that accounts of this kind cannot give",
            "Correct the provider's scopes, and its tenant where the account is a personal one (\"consumers\")",
        ),
    ),
    (
        &[28002, 28003, 70011],
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
        &[900_144, 90014, 9_002_313],
        row(
            "the provider finds the request incomplete or malformed",
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

/// What such a number means where the code beside it says that it is what was presented: a number, the code, and the words.
pub(in crate::oauth::explain) static BESIDE: &[(u64, &str, Known)] = &[(
    9_002_313,
    "invalid_grant",
    consent(
        "the refresh token is damaged: cut off, or with something added to it",
        "Authorize the account again, or give it the whole refresh token",
    )
    .at(&[
        (
            Step::Exchange,
            explanation(
                "the authorization code is damaged: cut off, or with something added to it",
                "Authorize the account again, and hand over the whole of the address that the browser was sent to",
            ),
        ),
        (Step::DevicePoll, explanation("the device code is damaged", IN_TIME)),
        (
            Step::Password,
            explanation(
                "the name or the password holds something that the provider does not take",
                "Check the account's address, and give it its password again",
            ),
        ),
    ]),
)];

/// What number it is where the refresh token is refused for the scopes that are asked for with it.
pub(in crate::oauth::explain) const CONSENT_MISSING: u64 = 65001;

/// A code in place of a refresh token.
const NEW_GRANT: &[(Step, Explanation)] = &[
    (
        Step::Exchange,
        explanation(
            "the authorization code is not valid: used before, expired, or given to another app or redirect URI",
            "Authorize the account again, open the link once only, and finish within some minutes",
        ),
    ),
    (
        Step::DevicePoll,
        explanation(
            "the device code is not valid: used before, expired, or another app's",
            IN_TIME,
        ),
    ),
];

const UNUSED: &str =
    "the grant has ended because it was not used for too long (90 days, or the time that the tenant has set)";

const KEEP_ALIVE: &str = "Authorize the account again; a daemon that runs keeps it from ending (keep_alive)";

const IN_TIME: &str = "Authorize the account again, and finish within the time that is shown";

const AUTHORIZE: &str = "Authorize the account again";
