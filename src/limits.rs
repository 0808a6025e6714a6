//! Every fixed bound of the program, once, with where it comes from.
//!
//! What an administrator may tune is in [`crate::config::Limits`]; what stands here is either given by a standard or
//! protects the program from a peer and has no reason to differ between installations.

use std::time::Duration;

// Accounts and access tokens.

/// Characters of an account id (INTERFACE §1).
pub const ACCOUNT_ID_CHARS_MAX: usize = 256;

/// Characters of a description, a name or an e-mail address in the admin API.
pub const LABEL_CHARS_MAX: usize = 1024;

/// Bytes of a refresh token, an OAuth access token or a password that the admin API accepts.
pub const CREDENTIAL_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a host name as text (RFC 1035 §2.3.4: 255 octets on the wire).
pub const HOST_BYTES_MAX: usize = 253;

/// Bytes of an access token before hex: 256 bits, so that guessing is hopeless without any delay.
pub const ACCESS_TOKEN_BYTES: usize = 32;

/// Digits of a short access token: 5 bits each, 100 in all, which is out of reach of guesses without any delay, and of a search
/// for what has a given hash. Some devices take no more than 20 characters for a password.
pub const SHORT_TOKEN_DIGITS: usize = 20;

/// Digits of a token's id that are shown where the whole is too long: 32 bits.
pub const TOKEN_ID_SHORT_DIGITS: usize = 8;

/// Digits of a token's id by which a command finds it, at least (INTERFACE §2).
pub const TOKEN_ID_PREFIX_MIN: usize = 6;

/// Access tokens of one account: a household of programs and devices needs a few dozen.
pub const TOKENS_PER_ACCOUNT_MAX: usize = 1000;

/// Access tokens in a line of makers, the one that was made by no token included: each is looked up at every login.
pub const TOKEN_GENERATIONS_MAX: usize = 8;

/// Scopes of one token.
pub const TOKEN_SCOPES_MAX: usize = 16;

/// Address ranges in one token's restrictions.
pub const TOKEN_ADDRESSES_MAX: usize = 64;

/// Bytes of a token's metadata, serialised: it is the administrator's own note, not a data store.
pub const TOKEN_METADATA_BYTES_MAX: usize = 16 * 1024;

/// First and longest wait between attempts to write an account that the store refused.
pub const ACCOUNT_WRITE_RETRY_MIN: Duration = Duration::from_secs(1);
/// See [`ACCOUNT_WRITE_RETRY_MIN`].
pub const ACCOUNT_WRITE_RETRY_MAX: Duration = Duration::from_secs(30);

/// The state of an account is not written oftener than this, however often it changes.
pub const ACCOUNT_STATE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the count of failed logins may be behind on the disk: a flood of them writes once in that time.
pub const FAILURES_WRITE_INTERVAL: Duration = Duration::from_secs(60);

/// How many refresh tokens of one grant are remembered while the disk refuses them: rotations of more than half a day.
pub const GRANT_NAMES_MAX: usize = 16;

/// How long the supervisor of an account that nobody uses is kept: longer than mail programs wait between polls.
pub const SUPERVISOR_IDLE: Duration = Duration::from_secs(900);

/// How long a submission waits for another of its account to end where the provider limits how many there may be at once:
/// mail programs that send several messages open the next connection just as they close the last. Never longer than half of
/// `login_timeout`, so that the login itself still fits.
pub const SUBMISSION_SLOT_WAIT: Duration = Duration::from_secs(5);

/// Submissions of one account that wait for a slot; one more is refused at once. Each holds a connection, and a mailbox that
/// has this many waiting will not be through with them in [`SUBMISSION_SLOT_WAIT`].
pub const SUBMISSION_WAITERS_MAX: usize = 64;

// Token requests.

/// Bytes of an answer of a token endpoint. Real ones are below 8 KiB (Microsoft's tokens are about 3 KiB).
pub const TOKEN_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Scopes that are kept of those that an answer names. Google's longest consent screens have a few dozen.
pub const CONSENTED_SCOPES_MAX: usize = 128;

/// Bytes of the URL that a provider sends an owner's browser back to. Microsoft's codes are about 2 KiB; most servers take
/// no longer request line.
pub const REDIRECT_BYTES_MAX: usize = 16 * 1024;

/// Characters of a claim that is taken over from an id_token. A subject has at most 255 (OpenID Connect Core §2), an address
/// 254 (RFC 5321 §4.5.3.1.3).
pub const CLAIM_CHARS_MAX: usize = 256;

/// How far the provider's clock and ours may differ where an id_token's end is checked (RFC 7519 §4.1.4: "a few minutes").
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

/// Life of a device code whose answer does not tell, though it must (RFC 8628 §3.2): what most providers give.
pub const DEVICE_CODE_LIFE_DEFAULT: Duration = Duration::from_secs(900);

/// Longest life of a device code that is believed: nobody takes a day to type one.
pub const DEVICE_CODE_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Time between two polls for a device code where the answer does not tell (RFC 8628 §3.2).
pub const DEVICE_POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// Longest time between two polls that a provider can ask for, so that an owner who has typed the code sees it taken.
pub const DEVICE_POLL_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Characters of a code that an owner types. RFC 8628 §6.1 wants them short; its examples have 9.
pub const USER_CODE_CHARS_MAX: usize = 64;

/// Life of an assertion by which an app proves that it is the app: Microsoft's "5-10 minutes at most".
pub const CLIENT_ASSERTION_LIFE: Duration = Duration::from_secs(300);

/// Life of a service account's assertion: the longest that Google takes, for it is read anew and signed at each use.
pub const SERVICE_ACCOUNT_ASSERTION_LIFE: Duration = Duration::from_secs(3600);

/// How long the output of a token command is waited for after its end, where something that it started still holds it open.
pub const TOKEN_COMMAND_DRAIN: Duration = Duration::from_millis(250);

/// Bytes of a token command's complaints that are kept.
pub const TOKEN_COMMAND_STDERR_BYTES_MAX: usize = 4096;

/// Life of an OAuth access token whose answer does not tell (`expires_in` absent, RFC 6749 §5.1).
pub const OAUTH_TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(3600);

/// Longest wait that a token endpoint's `Retry-After` can ask of us.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// First and longest wait between refresh attempts that failed for now.
pub const REFRESH_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// See [`REFRESH_BACKOFF_MIN`].
pub const REFRESH_BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Refresh requests in progress at one provider; more wait. Enough for 4 a second at a provider that takes 15 s to answer.
pub const REFRESHES_PER_PROVIDER_MAX: usize = 64;

/// A token that an upstream refused is replaced ahead of its time at most this often for each account.
pub const FORCED_REFRESH_INTERVAL: Duration = Duration::from_secs(60);

// Consents.

/// How long an owner may take from the beginning of a consent to its end: people are asked for passwords and second factors,
/// read what they agree to, and are called away. As long as the browser of a hosted link keeps its side.
pub const CODE_FLOW_LIFE: Duration = Duration::from_secs(3600);

/// Code flows in progress, each in about 2 KiB.
pub const CODE_FLOWS_MAX: usize = 1024;

/// Code flows in progress of one account: an owner who clicks again, in another browser, on another day's link.
pub const CODE_FLOWS_PER_ACCOUNT_MAX: usize = 8;

/// Device flows in progress, each a task that polls.
pub const DEVICE_FLOWS_MAX: usize = 256;

/// Accounts whose latest flow is remembered for those who wait for it.
pub const FLOWS_REMEMBERED_MAX: usize = 1024;

/// How long a hosted link is good (INTERFACE §4).
pub const LINK_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Characters of a hosted link's token: an id, an address, a provider and a URL to return to, sealed and in base64.
pub const LINK_BYTES_MAX: usize = 8 * 1024;

/// Bytes of the URL that a hosted link returns to.
pub const RETURN_URL_BYTES_MAX: usize = 2048;

/// Links that are remembered to have done their work, until they would have ended. The accounts' records tell, too.
pub const SPENT_LINKS_MAX: usize = 16 * 1024;

/// Connections to the listener of `account authorize` at once: one browser, which opens six, and whoever else is curious.
pub const LOOPBACK_CONNECTIONS_MAX: usize = 32;

/// How long one of them may take for its request's header.
pub const LOOPBACK_INPUT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the command waits at its end for the browser to have read its page.
pub const LOOPBACK_LAST_WORDS: Duration = Duration::from_secs(2);

// Keeping grants.

/// Longest and shortest wait between two looks at all grants: those that are due by the next look are renewed at this one.
pub const KEEPING_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// See [`KEEPING_INTERVAL_MAX`].
pub const KEEPING_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How long after the start the first look at all grants is: logins come first then.
pub const KEEPING_START: Duration = Duration::from_secs(60);

/// Accounts that are read from the store at once for that.
pub const KEEPING_PAGE: usize = 500;

/// Idle grants that are renewed at once, and the wait before each: at most 16 a second, however many became due while the
/// daemon was out of service.
pub const KEEPING_IN_FLIGHT_MAX: usize = 4;
/// See [`KEEPING_IN_FLIGHT_MAX`].
pub const KEEPING_PACE: Duration = Duration::from_millis(250);

/// How long before a grant's known end somebody is warned: over a weekend. Longer for long lives, never more than half of one.
pub const GRANT_WARNING: Duration = days(3);

/// Grants of removed accounts that are given back to their providers at once, and how long a stop waits for them.
pub const REVOCATIONS_MAX: u32 = 16;

// Notices and hooks.

/// News of accounts that wait for whoever listens; beyond that the oldest are lost, which is logged.
pub const NOTICES_MAX: usize = 4096;

/// Events that are delivered to hooks at once; the others wait among the [`NOTICES_MAX`].
pub const HOOKS_IN_FLIGHT_MAX: usize = 8;

/// How long a hook's command may run before it is killed.
pub const HOOK_COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a hook's output that are logged.
pub const HOOK_OUTPUT_BYTES_MAX: usize = 4096;

/// How long a webhook may take to answer one post.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an event is posted before it is given up, and the wait after the first time; it grows five-fold.
pub const WEBHOOK_TRIES: u32 = 3;
/// See [`WEBHOOK_TRIES`].
pub const WEBHOOK_WAIT: Duration = Duration::from_secs(1);

/// How long deliveries may go on when the program stops.
pub const HOOKS_DRAIN: Duration = Duration::from_secs(10);

// Logins.

/// Bytes of a client's SASL message, decoded. Access tokens are 64 characters; this is as much as fits a command line.
pub const SASL_MESSAGE_BYTES_MAX: usize = 8190;

/// Pairs in a client's `ID` command (RFC 2971 §3.3: at most 30).
pub const ID_PAIRS_MAX: usize = 30;

/// Octets of a field name in a client's `ID` command (RFC 2971 §3.3).
pub const ID_FIELD_BYTES_MAX: usize = 30;

/// Octets of a value in a client's `ID` command (RFC 2971 §3.3).
pub const ID_VALUE_BYTES_MAX: usize = 1024;

/// Bytes of a client's `ID` command, literals included: [`ID_PAIRS_MAX`] pairs of the full size fit, in either form.
pub const ID_COMMAND_BYTES_MAX: usize = 32 * 1024;

/// Bytes of the `ID` command that an upstream is sent; what does not fit is left out. Dovecot closes above 8,192.
pub const ID_UPSTREAM_BYTES_MAX: usize = 8000;

/// Bytes that a client may pipeline behind its login; beyond that its leg is not read until the relay begins.
pub const PIPELINED_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one line of an upstream before the session is handed over. Gmail's longest capability line is below 1 KiB.
pub const UPSTREAM_LINE_BYTES_MAX: usize = 8192;

/// Bytes, in all, that an upstream may send around its login and that are passed on to the client.
pub const UPSTREAM_LOGIN_BYTES_MAX: usize = 64 * 1024;

/// Alerts and warnings of an upstream that a client hears before the refusal of its login. Gmail sends one.
pub const UPSTREAM_ALERTS_MAX: usize = 8;

/// Lines of one SMTP reply of an upstream. The EHLO replies of large providers have about a dozen.
pub const UPSTREAM_REPLY_LINES_MAX: usize = 64;

/// How long what an upstream said it can do counts: providers change it within years. About a day, see
/// [`crate::connection::Upstreams`].
pub const UPSTREAM_QUESTION_INTERVAL: Duration = days(1);

/// How far back the store's note may lie of when an upstream was heard, so that not every login is written.
pub const UPSTREAM_ASKED_ROUNDING: Duration = Duration::from_secs(12 * 3600);

/// How long one question may take in all: a name, a connection, TLS and two answers.
pub const UPSTREAM_QUESTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Upstreams that are asked at once.
pub const UPSTREAM_QUESTIONS_MAX: usize = 4;

/// How long the upstream of an account that was just added is left alone: mostly it is logged in on at once, which tells the
/// same without a connection of its own.
pub const UPSTREAM_SETTLING: Duration = Duration::from_secs(5);

/// Wait before an upstream that did not answer is asked again; it doubles up to the other.
pub const UPSTREAM_RETRY_MIN: Duration = Duration::from_secs(60);
/// See [`UPSTREAM_RETRY_MIN`].
pub const UPSTREAM_RETRY_MAX: Duration = Duration::from_secs(3600);

/// Least time between two writes of what upstreams can do.
pub const UPSTREAM_KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Upstreams of which it is known what they can do, each in about 300 bytes. Accounts may have endpoints of their own.
pub const UPSTREAMS_KNOWN_MAX: usize = 10_000;

/// How long a client may wait for what it is promised, in the first moments after the start.
pub const PROMISE_WAIT: Duration = Duration::from_secs(5);

/// The rest between two walks over all accounts for their upstreams: so many times as long as one takes, at least
/// [`ROLL_REST_MIN`].
pub const ROLL_REST_FACTOR: u32 = 20;
/// See [`ROLL_REST_FACTOR`].
pub const ROLL_REST_MIN: Duration = Duration::from_millis(200);

/// Longest time for which a login is not tried because an upstream asks for it. Exchange Online's suggestions stay below.
pub const THROTTLE_BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Characters of an upstream's own text that a client or a log line gets to see.
pub const UPSTREAM_TEXT_CHARS_MAX: usize = 512;

// Connections.

/// Connections that wait in the kernel to be accepted; the kernel lowers it to `net.core.somaxconn` (4096 by default).
pub const LISTEN_BACKLOG: i32 = 4096;

/// How long an accept loop rests when descriptors or memory have run out: trying at once would spin.
pub const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Least time between two log lines about the same trouble, where peers can cause it as often as they like.
pub const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a load balancer may take to send its PROXY protocol header. The specification (§2) wants at least 3 s, to cover a
/// retransmission.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a PROXY protocol header of version 1, CRLF included (specification, §2.1).
pub const PROXY_V1_BYTES_MAX: usize = 107;

/// Bytes of a PROXY protocol header of version 2. The specification designs for 536, of which a long name and an id take most;
/// this has room for a client's certificate too, and is what nginx allows.
pub const PROXY_V2_BYTES_MAX: usize = 4096;

/// Connections over a limit that are being told so at once; more are closed without a word, since each holds a descriptor
/// that no session limit counts (they fit in [`DESCRIPTORS_RESERVED`]).
pub const REFUSALS_MAX: usize = 64;

/// Connections that are leaving for newcomers at once, each over `sessions_max` until it is gone, with one descriptor that no
/// session limit counts (they fit in [`DESCRIPTORS_RESERVED`]).
pub const GIVING_WAY_MAX: usize = 32;

/// How long one that gives way has for its last words: with [`GIVING_WAY_MAX`], 160 newcomers a second are let in although
/// none of the strangers hangs up by itself.
pub const GIVE_WAY_DRAIN: Duration = Duration::from_millis(200);

/// One in so many of `sessions_max` is a place that only a login opens (see [`strangers_max`]).
pub const LOGINS_SHARE: usize = 10;

/// Fewer sessions than this in all, and nobody gives way: with a single place, two clients would end each other for ever.
pub const GIVE_WAY_SESSIONS_MIN: usize = 2;

/// Leading bits of an IPv6 address that make it the same client: a household or a host gets a /64 (RFC 6177).
pub const IPV6_CLIENT_BITS: u32 = 64;

/// Descriptors kept for the store, the admin socket, logs and token requests when sessions are admitted (INTERFACE §3).
pub const DESCRIPTORS_RESERVED: u64 = 200;

/// How long a connection attempt is waited for before the next address is tried beside it (RFC 8305 §8).
pub const DIAL_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of a host that are tried; a resolver may be made to answer with any number.
pub const DIAL_ADDRESSES_MAX: usize = 16;

/// Bytes of a PEM file with certificates or a key. The whole set of public trust anchors is about 250 KiB.
pub const PEM_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Life of the private CA's own certificate: people hand it to clients, which should not become a habit.
pub const PRIVATE_CA_LIFE: Duration = days(3650);

/// How long before its end the CA's certificate is renewed: the time that people have to give clients the new one.
pub const PRIVATE_CA_RENEWED_AHEAD: Duration = days(90);

/// Life of what the private CA issues. It is renewed by itself, so it may be short; Apple's clients allow 825 days.
pub const PRIVATE_LEAF_LIFE: Duration = days(90);

/// How far back a certificate's life begins, for clients whose clock is slow.
pub const CERTIFICATE_BACKDATING: Duration = Duration::from_secs(3600);

/// TCP keepalive, on both legs: first probe after this long without traffic, below the five minutes after which common
/// address translators forget a connection.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
/// See [`KEEPALIVE_IDLE`]: time between probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// See [`KEEPALIVE_IDLE`]: unanswered probes after which the peer counts as gone.
pub const KEEPALIVE_PROBES: u32 = 4;

/// Bytes of the buffer that a worker thread lends to whichever session has something to move.
/// Four TLS records of the largest size: several go out in one write, and all of it stays in the cache.
pub const RELAY_SCRATCH_BYTES: usize = 64 * 1024;

/// Scratchfuls that one poll of a relay may move in each direction before other sessions on the thread get their turn:
/// about a third of a millisecond's work.
pub const RELAY_ROUNDS_MAX: usize = 8;

/// How long a socket is drained after a fatal refusal was sent and it was half-closed.
pub const CLOSE_DRAIN: Duration = Duration::from_secs(1);

/// How long one leg may go on after the other has ended.
pub const HALF_CLOSED_MAX: Duration = Duration::from_secs(10);

// The admin API.

/// Bytes of a request body at the admin API.
pub const ADMIN_BODY_BYTES_MAX: usize = 256 * 1024;

/// Connections to the admin API at once, for each of its sockets; more wait in the kernel's backlog.
pub const ADMIN_CONNECTIONS_MAX: usize = 128;

/// How long a caller of the admin API may take to send a request's header.
pub const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request to the admin API may take in all. The longest is `verify`: for each of three protocols it waits for a
/// name, a connection, TLS, a login, a first command and a farewell, and once for a token, each with its own limit; with the
/// defaults of these limits, 378 s in all.
pub const ADMIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(400);

/// Connections of one client address at once, for each of the admin API's and the metrics' TCP sockets: four addresses that
/// do not read are needed to hold one up.
pub const ADMIN_CONNECTIONS_PER_IP_MAX: usize = ADMIN_CONNECTIONS_MAX / 4;

/// How long a connection to the admin API is good for another request.
pub const ADMIN_CONNECTION_REUSE: Duration = Duration::from_secs(600);

/// How long a connection to the admin API may last: a request that began just before the end of its reuse has all its time,
/// and its answer has as much as a new one.
pub const ADMIN_CONNECTION_LIFE: Duration =
    Duration::from_secs(ADMIN_CONNECTION_REUSE.as_secs() + ADMIN_REQUEST_TIMEOUT.as_secs() + 60);

/// How long an HTTP client may read nothing of an answer that is ready for it, on every socket that is served.
pub const HTTP_WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long requests in progress may go on when the admin API stops.
pub const ADMIN_STOP_GRACE: Duration = Duration::from_secs(2);

/// Bytes of an answer that the command line reads from the admin API: a full page of the largest entries stays below it.
pub const ADMIN_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Entries of one page in the admin API.
pub const PAGE_SIZE_MAX: usize = 1000;

/// Entries of one page where the caller does not say.
pub const PAGE_SIZE_DEFAULT: usize = 20;

/// Accounts that `/v1/status` names as needing attention; their number is told in any case.
pub const STATUS_ATTENTION_MAX: usize = 100;

/// Upstreams of which `/v1/status` tells what they can do.
pub const STATUS_UPSTREAMS_MAX: usize = 100;

// The public side.

/// Bytes of the line and header of a request to the public side. A link's token is below 1 KiB, and so is the code that a
/// provider sends back; Microsoft's may reach 2 KiB.
pub const WEB_HEADER_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a request's body at the public side: its one form has no fields.
pub const WEB_BODY_BYTES_MAX: usize = 1024;

/// Connections to the public side at once.
pub const WEB_CONNECTIONS_MAX: usize = 512;

/// Connections of one client address at once; a browser opens six to one host.
pub const WEB_CONNECTIONS_PER_IP_MAX: usize = 16;

/// How long a browser may take for the TLS handshake, for a request's header, and for its body, each.
pub const WEB_INPUT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request to the public side may take in all. The longest is the provider's redirect: a token request and a login
/// over one protocol after the other, each with its own limit; what takes longer goes on behind the answer.
pub const WEB_REQUEST_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a connection to the public side may last after its TLS handshake, slow readers included: what comes in, the
/// request, and twice as much for the answer as for what came in.
pub const WEB_CONNECTION_LIFE: Duration =
    Duration::from_secs(WEB_REQUEST_TIMEOUT.as_secs() + 4 * WEB_INPUT_TIMEOUT.as_secs());

/// Requests that one client address may send to the public side in a burst, and then one each
/// [`WEB_REQUEST_INTERVAL`]: an office of owners behind one address may come at once.
pub const WEB_REQUESTS_BURST: u32 = 60;
/// See [`WEB_REQUESTS_BURST`].
pub const WEB_REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// Client addresses whose requests are counted at once, each in about 64 bytes.
pub const WEB_CLIENTS_MAX: usize = 65_536;

/// How long a browser may be away at the provider: people are asked for second factors and for other people's consent.
pub const WEB_COOKIE_LIFE: Duration = Duration::from_secs(3600);

/// How long a browser keeps to HTTPS once it has been here (RFC 6797 §6.1.1).
pub const WEB_HSTS_LIFE: Duration = days(365);

/// Characters of a name, an address or a reason that a page shows; more is cut.
pub const WEB_TEXT_CHARS_MAX: usize = 512;

/// How long consents in progress may go on when the public side stops.
pub const WEB_STOP_GRACE: Duration = Duration::from_secs(15);
// Recognising a provider.

/// How long one question about a domain may take: a DNS look-up, or an autoconfig file. A person waits for the answers.
pub const RECOGNITION_STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Records of one DNS answer that are looked at; large providers have about five exchangers.
pub const DNS_RECORDS_MAX: usize = 32;

/// Bytes of an autoconfig file. Mozilla's largest is below 8 KiB.
pub const AUTOCONFIG_BYTES_MAX: usize = 64 * 1024;

/// Nodes of an autoconfig file, texts between elements included. Mozilla's largest has about 400.
pub const AUTOCONFIG_NODES_MAX: u32 = 4096;

// Files, the store and metrics.

/// Bytes of a configuration file: a thousand providers fit.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of a file that holds one secret.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Environment variables that a hook or a token command may be given by its table.
pub const ENV_VARIABLES_MAX: usize = 100;

/// Bytes of the value of one. Linux takes 128 KiB for each (execve(2), `MAX_ARG_STRLEN`).
pub const ENV_BYTES_MAX: usize = 32 * 1024;

/// Bytes of the master key (INTERFACE §3).
pub const MASTER_KEY_BYTES: usize = 32;

/// Orders that may wait for the store's writer thread before senders wait too.
pub const STORE_QUEUE: usize = 4096;

/// A commit that takes longer makes the daemon unready. A healthy disk takes milliseconds; an administrator hears of a sick
/// one before clients time out.
pub const STORE_COMMIT_SLOW: Duration = Duration::from_secs(5);

/// How long a deletion is waited for before it is answered as in force and not yet durable. With the time that sessions
/// take to end, within the second of INTERFACE §4.
pub const DELETION_WAIT: Duration = Duration::from_millis(500);

/// Refused logins that one client (an IPv4 address, an IPv6 /64) and one login name have free before answers to them are
/// delayed. A household's forgotten phone tries a few times; a name is tried from several devices.
pub const AUTH_FAILURES_FREE_CLIENT: u32 = 10;
/// See [`AUTH_FAILURES_FREE_CLIENT`].
pub const AUTH_FAILURES_FREE_ACCOUNT: u32 = 20;

/// How long it takes until one refused login is forgotten: a program that retries every minute is never delayed.
pub const AUTH_FAILURE_RECOVERY: Duration = Duration::from_secs(30);

/// Delay of the first refusal beyond a budget; it doubles up to `limits.auth_failure_delay`.
pub const AUTH_FAILURE_FIRST_DELAY: Duration = Duration::from_secs(1);

/// Refusals beyond a budget that are remembered, so that it is whole again after a quarter of an hour at the latest.
pub const AUTH_FAILURES_OVER_MAX: u32 = 10;

/// Clients, and login names, whose refused logins are counted at once, each in about 150 bytes.
pub const AUTH_FAILURE_RECORDS_MAX: usize = 65_536;

/// How long nothing is delayed for a client from which a token was accepted.
pub const ACCEPTED_CLIENT_LIFE: Duration = Duration::from_secs(600);

/// Usage events of kind `denied` that may be kept: one for as many of `store.usage_events_max`, beside those of other kinds.
pub const DENIED_SHARE: u64 = 4;

/// How long refused logins of one address, account and reason are counted in one usage event and told in one log line.
pub const DENIED_WINDOW: Duration = Duration::from_secs(60);

/// Addresses, accounts and reasons that are told apart in one [`DENIED_WINDOW`]; of those above, events no longer say the
/// address. About 300 bytes each.
pub const DENIED_WINDOWS_MAX: usize = 4096;

/// Times of usage events that may come out of order by this much, for several sessions report at once; the later of two
/// counts for both.
pub const USAGE_DISORDER_MAX: Duration = Duration::from_secs(1);

/// How often a clock may be set back by more than [`USAGE_DISORDER_MAX`] within what is kept of the usage log before the
/// oldest of these times is forgotten, and events around it are found by the times around it.
pub const USAGE_RUNS_MAX: usize = 64;

/// How often metrics that nobody scrapes are folded, so that their samples do not pile up.
pub const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

// What is taken over from other programs.

/// Bytes of a configuration of another program. An account of email-oauth2-proxy has about 6 KiB, its tokens included.
pub const IMPORT_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Accounts in such a configuration.
pub const IMPORT_ACCOUNTS_MAX: usize = 1000;

/// Rounds of PBKDF2 that such a file may want for one key: email-oauth2-proxy writes 1.2 million, which take about a second, and
/// raises that every other year.
pub const IMPORT_ITERATIONS_MAX: u32 = 5_000_000;

/// Bytes of the salt of such a key. email-oauth2-proxy's have 16.
pub const IMPORT_SALT_BYTES_MAX: usize = 64;

/// Bytes of a sealed refresh token: the longest that is accepted, padded, sealed and in base64, fits.
pub const IMPORT_SEALED_BYTES_MAX: usize = 2 * CREDENTIAL_BYTES_MAX;

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

/// How many sessions fit under a limit of descriptors, of which each takes two, and whether that is fewer than
/// `sessions_max` asks for (INTERFACE §3, `limits.sessions_max`). At least one, so that a starved daemon still serves.
pub fn fit_sessions(sessions_max: usize, descriptor_limit: u64) -> (usize, bool) {
    let room = descriptor_limit.saturating_sub(DESCRIPTORS_RESERVED) / 2;
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(1);
    (sessions_max.min(room), room < sessions_max)
}

/// How many of `sessions_max` may be of clients that have not logged in.
pub const fn strangers_max(sessions_max: usize) -> usize {
    sessions_max - sessions_max / LOGINS_SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_lowered_to_what_descriptors_allow() {
        assert_eq!(fit_sessions(20_000, 40_200), (20_000, false));
        assert_eq!(fit_sessions(20_000, 40_199), (19_999, true));
        assert_eq!(fit_sessions(20_000, 1024), (412, true));
        assert_eq!(fit_sessions(15, u64::MAX), (15, false));
        assert_eq!(fit_sessions(15, 3), (1, true));
    }

    #[test]
    fn strangers_get_all_places_but_a_tenth_and_never_none() {
        let shares = [1, 4, 9, 10, 20_000].map(strangers_max);
        assert_eq!(shares, [1, 4, 9, 9, 18_000]);
    }
}
