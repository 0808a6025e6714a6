//! The tables that stand alone: server, store, secrets, admin, metrics, log, limits.
//!
//! Bounds are generous: they refuse what cannot have been meant (a time-out of zero, a limit of a billion), not what is
//! merely unusual.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;

use super::load::Check;
use super::material::Material;
use super::report::{place, quoted, text};
use super::secret::{self, Forms};
use super::{Admin, Limits, Log, LogFormat, SecretsSettings, Server, StoreSettings, locate, raw};
use crate::limits::{ACCESS_TOKEN_BYTES, MASTER_KEY_BYTES};
use crate::secret::{ExposeSecret as _, Maker};

/// `[server]`
pub(super) fn server(check: &mut Check<'_>, raw: &raw::Server) -> Server {
    let report = &mut check.report;
    let drain_timeout = report.duration(
        "server.drain_timeout",
        &raw.drain_timeout,
        seconds(30),
        Duration::ZERO..=seconds(86_400),
    );
    let worker_threads = match report.count("server.worker_threads", &raw.worker_threads, 0, 0..=1024) {
        0 => None,
        threads => Some(threads),
    };
    Server {
        hostname: hostname(check, raw),
        state_dir: state_dir(check, raw),
        drain_timeout,
        worker_threads,
    }
}

/// The name of greetings: as given, else the system's, which is not refused however odd it is.
fn hostname(check: &mut Check<'_>, raw: &raw::Server) -> String {
    let usable = |name: &str| {
        (1..=HOSTNAME_BYTES_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
    };
    if let Some(given) = text(&raw.hostname) {
        if !usable(given) {
            let message = format!(
                "{} is not allowed; use a host name such as \"mail.example.com\"",
                quoted(given)
            );
            check.report.refuse(place(&raw.hostname), "server.hostname", message);
        }
        return given.to_owned();
    }
    let own = check.environment.hostname();
    if usable(&own) { own } else { "localhost".to_owned() }
}

fn state_dir(check: &mut Check<'_>, raw: &raw::Server) -> PathBuf {
    let found = match text(&raw.state_dir) {
        Some(given) => Some(check.beside_file(given)),
        None => locate::state_dir(check.environment),
    };
    if let Some(path) = &found {
        check.examine(
            "server.state_dir",
            place(&raw.state_dir),
            &Material::StateDirectory(path),
        );
    }
    found.unwrap_or_else(|| {
        let message = "give a directory: neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set";
        check.report.refuse(None, "server.state_dir", message);
        PathBuf::new()
    })
}

/// `[store]`
pub(super) fn store(check: &mut Check<'_>, raw: &raw::Store) -> StoreSettings {
    let report = &mut check.report;
    match text(&raw.backend) {
        None | Some("embedded") => {}
        Some("postgres") => {
            report.refuse(
                place(&raw.backend),
                "store.backend",
                "\"postgres\" is not in this version; use embedded",
            );
        }
        Some(other) => {
            let message = format!("{} is not allowed; use embedded", quoted(other));
            report.refuse(place(&raw.backend), "store.backend", message);
        }
    }
    StoreSettings {
        usage_retention: report.duration(
            "store.usage_retention",
            &raw.usage_retention,
            seconds(30 * 86_400),
            seconds(1)..=seconds(3660 * 86_400),
        ),
        usage_events_max: report
            .number(
                "store.usage_events_max",
                &raw.usage_events_max,
                1_000_000,
                1..=1_000_000_000,
            )
            .into(),
    }
}

/// `[secrets]`; `server` tells where the key is if nothing else does.
pub(super) fn secrets(check: &mut Check<'_>, raw: &raw::Secrets, server: &Server) -> SecretsSettings {
    // The file stays a path: the store reads it, and must tell a missing file from one that is to be made.
    let both =
        text(&raw.master_key_file).is_some() && (raw.master_key.is_some() || text(&raw.master_key_env).is_some());
    if both {
        let message = "is given more than once; use one of master_key, master_key_file and master_key_env";
        check
            .report
            .refuse(place(&raw.master_key_file), "secrets.master_key", message);
    }
    let forms = Forms {
        section: "secrets",
        name: "master_key",
        value: &raw.master_key,
        file: &None,
        variable: &raw.master_key_env,
        made_by: Maker::Machine,
    };
    let master_key = secret::resolve(check, &forms);
    if let Some(key) = &master_key {
        let decoded = base64::engine::general_purpose::STANDARD.decode(key.expose_secret());
        if !decoded.is_ok_and(|bytes| bytes.len() == MASTER_KEY_BYTES) {
            let at = place(&raw.master_key).or_else(|| place(&raw.master_key_env));
            check.report.refuse(
                at,
                "secrets.master_key",
                format!("must be {MASTER_KEY_BYTES} bytes in base64"),
            );
        }
    }
    let master_key_file = text(&raw.master_key_file)
        .and_then(|given| secret::path(check, "secrets.master_key_file", place(&raw.master_key_file), given));
    if let Some(path) = &master_key_file {
        check.examine(
            "secrets.master_key_file",
            place(&raw.master_key_file),
            &Material::MasterKey(path),
        );
    }
    if master_key.is_none() && text(&raw.master_key_file).is_none() {
        let state_dir = server.state_dir.as_path();
        check.examine("secrets.master_key_file", None, &Material::GeneratedKey { state_dir });
    }
    SecretsSettings {
        master_key,
        master_key_file,
    }
}

/// `[admin]`; `server` tells where the socket is if nothing else does.
pub(super) fn admin(check: &mut Check<'_>, raw: &raw::Admin, server: &Server) -> Admin {
    let socket = match text(&raw.socket) {
        Some(given) => check.beside_file(given),
        None => locate::admin_socket(check.environment, &server.state_dir),
    };
    let listen = check.report.addresses("admin.listen", &raw.listen);
    for address in listen.iter().filter(|address| !address.ip().is_loopback()) {
        check.report.warn(format!(
            "admin.listen {address} is not a loopback address: tokens travel there in clear"
        ));
    }
    let forms = Forms {
        section: "admin",
        name: "root_token",
        value: &raw.root_token,
        file: &raw.root_token_file,
        variable: &raw.root_token_env,
        made_by: Maker::Machine,
    };
    let root_token = secret::resolve(check, &forms);
    if root_token
        .as_ref()
        .is_some_and(|token| !is_token(token.expose_secret()))
    {
        let at = place(&raw.root_token)
            .or_else(|| place(&raw.root_token_file))
            .or_else(|| place(&raw.root_token_env));
        let message = format!("must be {} lower-case hexadecimal digits", ACCESS_TOKEN_BYTES * 2);
        check.report.refuse(at, "admin.root_token", message);
    }
    Admin {
        socket,
        socket_mode: socket_mode(check, raw),
        listen,
        root_token,
    }
}

fn is_token(text: &str) -> bool {
    text.len() == ACCESS_TOKEN_BYTES * 2 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn socket_mode(check: &mut Check<'_>, raw: &raw::Admin) -> u32 {
    let Some(given) = text(&raw.socket_mode) else {
        return SOCKET_MODE_DEFAULT;
    };
    let octal = given
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'7'))
        .then(|| u32::from_str_radix(given, 8).ok());
    match octal.flatten() {
        Some(mode) if mode <= 0o777 => mode,
        _ => {
            let message = format!(
                "{} is not allowed; use octal mode bits from \"0000\" to \"0777\"",
                quoted(given)
            );
            check
                .report
                .refuse(place(&raw.socket_mode), "admin.socket_mode", message);
            SOCKET_MODE_DEFAULT
        }
    }
}

/// `[metrics]`; here an empty address is an answer of its own.
pub(super) fn metrics_listen(check: &mut Check<'_>, raw: &raw::Metrics) -> Option<SocketAddr> {
    match &raw.listen {
        None => Some(METRICS_LISTEN_DEFAULT),
        Some(given) if given.get_ref().is_empty() => None,
        Some(given) => check
            .report
            .address("metrics.listen", place(&raw.listen), given.get_ref()),
    }
}

/// `[log]`
pub(super) fn log(check: &mut Check<'_>, raw: &raw::Log) -> Log {
    let formats = [
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
    ];
    let format = check
        .report
        .choice("log.format", &raw.format, LogFormat::Auto, &formats);
    let level = text(&raw.level).unwrap_or("info").to_owned();
    if let Err(error) = crate::telemetry::filter(&level) {
        check.report.refuse(place(&raw.level), "log.level", error.to_string());
    }
    Log { level, format }
}

/// `[limits]`
pub(super) fn limits(check: &mut Check<'_>, raw: &raw::Limits) -> Limits {
    let report = &mut check.report;
    let wait = TIMEOUT_MIN..=seconds(3600);
    Limits {
        sessions_max: report.count("limits.sessions_max", &raw.sessions_max, 20_000, SESSIONS),
        sessions_per_ip_max: report.count("limits.sessions_per_ip_max", &raw.sessions_per_ip_max, 200, SESSIONS),
        sessions_per_account_max: report.count(
            "limits.sessions_per_account_max",
            &raw.sessions_per_account_max,
            15,
            SESSIONS,
        ),
        pre_auth_timeout: report.duration(
            "limits.pre_auth_timeout",
            &raw.pre_auth_timeout,
            seconds(60),
            wait.clone(),
        ),
        login_timeout: report.duration("limits.login_timeout", &raw.login_timeout, seconds(30), wait.clone()),
        upstream_connect_timeout: report.duration(
            "limits.upstream_connect_timeout",
            &raw.upstream_connect_timeout,
            seconds(20),
            wait.clone(),
        ),
        token_request_timeout: report.duration(
            "limits.token_request_timeout",
            &raw.token_request_timeout,
            seconds(15),
            wait,
        ),
        idle_timeout: report.duration(
            "limits.idle_timeout",
            &raw.idle_timeout,
            seconds(31 * 60),
            TIMEOUT_MIN..=seconds(7 * 86_400),
        ),
        command_line_bytes_max: report.count(
            "limits.command_line_bytes_max",
            &raw.command_line_bytes_max,
            8192,
            COMMAND_LINE_BYTES,
        ),
        literal_bytes_max: report.count("limits.literal_bytes_max", &raw.literal_bytes_max, 4096, LITERAL_BYTES),
        bad_commands_max: report.number("limits.bad_commands_max", &raw.bad_commands_max, 10, 1..=1000),
        pre_auth_commands_max: report.number(
            "limits.pre_auth_commands_max",
            &raw.pre_auth_commands_max,
            100,
            1..=100_000,
        ),
        auth_failures_max: report.number("limits.auth_failures_max", &raw.auth_failures_max, 3, 1..=1000),
        auth_failure_delay: report.duration(
            "limits.auth_failure_delay",
            &raw.auth_failure_delay,
            seconds(15),
            Duration::ZERO..=seconds(60),
        ),
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Sessions that any limit may allow: beyond it no machine has descriptors.
pub(super) const SESSIONS: RangeInclusive<u32> = 1..=1_000_000;

/// The least room for a line: `AUTHENTICATE PLAIN` with an access token and an account id of ordinary length.
const COMMAND_LINE_BYTES: RangeInclusive<u32> = 256..=1024 * 1024;

/// The least room for a literal: an access token.
const LITERAL_BYTES: RangeInclusive<u32> = 64..=1024 * 1024;

/// Below this a time-out would be a refusal.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// RFC 1035 §2.3.4.
const HOSTNAME_BYTES_MAX: usize = 255;

const SOCKET_MODE_DEFAULT: u32 = 0o600;

const METRICS_LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);
