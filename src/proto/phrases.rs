//! What the free text of an upstream's refusal tells, where its code does not: that it is too much or too early, or that it is
//! the credential that is wrong. Every protocol's `refusal` asks here, since providers say the same over all of them.
//!
//! The two questions are not each other's opposite. A text that answers neither is a passing trouble: nobody is asked for a new
//! password, and no grant is given up, for words that are not understood. A text that answers both is one too: servers write
//! `Temporary authentication failure`, and `Login fail. … password is incorrect, login frequency limited, or system is busy`.

/// Whether `text` blames the credential, and nothing else.
pub(in crate::proto) fn blames_credential(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    !tells_of_passing_trouble(&text) && (says(&text, &CREDENTIAL) || is_failed_login(&text))
}

/// Whether `text` says that it is too much or too early, or that something at the provider fails for now.
pub(in crate::proto) fn is_passing(text: &str) -> bool {
    tells_of_passing_trouble(&text.to_ascii_lowercase())
}

fn tells_of_passing_trouble(lower: &str) -> bool {
    says(lower, &PASSING)
}

/// `AUTHENTICATE failed.`, `LOGIN failed.`, `Logon failure`, `authentication failure`, `Login incorrect`, and their kin: all
/// that many servers say of a wrong password, or of an OAuth token that has ended.
fn is_failed_login(lower: &str) -> bool {
    // Gmail ends all of its refusals so, whatever they are for.
    let lower = &lower.replace("(failure)", "");
    says(lower, &["authenti", "login", "logon", "log in", "log on", "sign-in"])
        && says(
            lower,
            &[
                "fail",
                "incorrect",
                "invalid",
                "unsuccessful",
                "denied",
                "rejected",
                "not accepted",
            ],
        )
}

fn says(lower: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| lower.contains(phrase))
}

/// In lower case (Gmail, Exchange Online, Yahoo, Yandex, QQ, Dovecot, Courier, Cyrus, qpopper).
const PASSING: [&str; 41] = [
    "too many",
    "too fast",
    "too often",
    "throttled",
    "suggested backoff",
    "backoff time",
    "try again",
    "try later",
    "retry later",
    "rate limit",
    "exceed",
    "maximum",
    "blocked",
    "blacklist",
    "frequency limit",
    "concurrent",
    "simultaneous",
    "temporar",
    "busy",
    "overload",
    "unavailable",
    "not available",
    "maintenance",
    "internal",
    "generic failure",
    "failed to contact",
    "authentication server",
    "authentication service",
    "server error",
    "system error",
    "backend",
    "protocol error",
    "timed out",
    "timeout",
    "not connected",
    "connection is closed",
    "connection lost",
    "no connection",
    "cannot connect",
    "locked by another",
    "already in use",
];

/// Texts that speak of the credential, in lower case.
const CREDENTIAL: [&str; 20] = [
    "credential",
    "bad password",
    "wrong password",
    "incorrect password",
    "invalid password",
    "password is incorrect",
    "password incorrect",
    "password error",
    "password invalid",
    "password not",
    "password has expired",
    "username or password",
    "user name or password",
    "username and password not",
    "unknown user",
    "no such user",
    "invalid token",
    "token is invalid",
    "token has expired",
    // Gmail, of a token without the mail scope.
    "lookup failed",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_credentials_are_known_by_what_real_servers_say_of_them() {
        for text in [
            // Gmail.
            "Invalid credentials (Failure)",
            "Lookup failed",
            "Username and Password not accepted. For more information, go to https://support.google.com/mail/?p=BadCredentials",
            // Exchange Online and on premises, over each of the protocols.
            "AUTHENTICATE failed.",
            "LOGIN failed.",
            "Authentication failure: unknown user name or bad password.",
            "Logon failure: unknown user name or bad password.",
            "Authentication unsuccessful",
            "Authentication unsuccessful, the user credentials were incorrect.",
            // Yahoo, AOL.
            "LOGIN Invalid credentials",
            "(#MBR1212) Incorrect username or password.",
            "(#AUTH012) Invalid login or password",
            // Yandex, Mail.ru, Zoho.
            "LOGIN Invalid credentials or IMAP is disabled sc=ebI8JB0ug4Y1_290737_53p",
            "Incorrect authentication data: authentication failed",
            "Authentication failed",
            "Invalid login or password",
            "Invalid credentials(Failure)",
            // iCloud, Fastmail, GMX, IONOS, Comcast, Seznam.
            "Authentication Failed",
            "Incorrect username, password or access token: authentication failed",
            "authentication failed",
            "Authentication credentials invalid",
            "Invalid username or password",
            // 163.com.
            "LOGIN Login error or password error",
            "Error: authentication failed",
            // Dovecot, Cyrus, Courier, UW, Zimbra, hMailServer, MDaemon, Exim, Postfix.
            "Authentication failed.",
            "[AUTHENTICATIONFAILED] Authentication failed.",
            "Login failed: authentication failure",
            "Login failed.",
            "Invalid user name or password.",
            "Login incorrect",
            "Incorrect authentication data",
            "Error: authentication failed: Invalid format.",
        ] {
            assert!(blames_credential(text), "{text}");
            assert!(!is_passing(text), "{text}");
        }
    }

    #[test]
    fn what_passes_is_never_the_credentials_fault() {
        for text in [
            "Protocol error. Connection is closed. 10",
            "Protocol error. 14",
            "Server Unavailable. 15",
            "User is authenticated but not connected.",
            "Request is throttled. Suggested Backoff Time: 299961 milliseconds",
            "Temporary authentication failure.",
            "Temporary authentication failure: Connection lost to authentication server",
            "Internal authentication failure. Refer to server log for more information.",
            "[SYS/TEMP] Temporary login failure",
            "(#MBR1240) Too many bad auth attempts",
            "Too many simultaneous connections. (Failure)",
            "login failure or POP3 disabled, try later. sc=x",
            "Login fail. Account is abnormal, service is not open, password is incorrect, login frequency limited, or system is busy.",
            "Login failed: server error, try again",
            "maildrop is already in use",
            "authentication backend does not answer",
            "Login failed: maximum number of connections exceeded",
            "Failed to contact authentication server",
            "Login denied: your IP is blocked",
            "Error: authentication failed: generic failure",
        ] {
            assert!(is_passing(text) && !blames_credential(text), "{text}");
        }
    }

    #[test]
    fn words_that_are_not_understood_blame_nobody() {
        for text in [
            "",
            "no",
            "x",
            "AUTHENTICATE",
            "Web login required.",
            "Please log in via your web browser: https://support.google.com/mail/accounts/answer/78754 (Failure)",
            "You are yet to enable IMAP for your account. Please contact your administrator",
            "Your account is not enabled for POP access.",
            "Command unknown",
            "Mailbox is over quota",
            "disabled",
        ] {
            assert!(!blames_credential(text) && !is_passing(text), "{text}");
        }
    }

    #[test]
    fn phrases_are_in_lower_case() {
        for phrase in PASSING.iter().chain(&CREDENTIAL) {
            assert_eq!(phrase.to_ascii_lowercase(), *phrase);
        }
    }
}
