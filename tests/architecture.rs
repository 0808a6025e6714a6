//! The layers of `docs/architecture.md` as a test: no room reaches up, and a big dependency is named in its own room only.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "what cannot be read fails the test"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms that it may name in a `crate::` path. A room may always name itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("clock", &[]),
    ("secret", &[]),
    ("span", &[]),
    ("host", &[]),
    ("shell", &[]),
    ("sentence", &[]),
    ("fault", &[]),
    ("telemetry", &[]),
    ("process", &[]),
    ("proto", &["limits", "secret", "fault"]),
    // A log level is checked by who will use it.
    ("config", &["limits", "secret", "host", "proto", "telemetry"]),
    ("metrics", &["proto", "store"]),
    (
        "store",
        &["limits", "secret", "span", "clock", "proto", "config", "metrics"],
    ),
    ("access", &["limits", "secret", "clock", "fault", "proto", "store"]),
    ("usage", &["limits", "clock", "proto", "config", "store", "metrics"]),
    ("net", &["limits", "clock", "span", "host", "proto"]),
    // Token requests trust whom upstream legs trust. Some scopes are for one protocol.
    (
        "oauth",
        &[
            "limits", "secret", "clock", "span", "host", "proto", "config", "net", "process",
        ],
    ),
    // What is asked of a domain goes the ways of net; what it means is measured by what is configured.
    ("recognize", &["limits", "proto", "config", "net"]),
    (
        "account",
        &[
            "limits", "secret", "clock", "span", "shell", "sentence", "fault", "proto", "config", "store", "oauth",
            "metrics",
        ],
    ),
    (
        "hooks",
        &[
            "limits", "secret", "clock", "config", "store", "net", "account", "process",
        ],
    ),
    (
        "connection",
        &[
            "limits", "secret", "clock", "span", "shell", "sentence", "fault", "proto", "config", "store", "oauth",
            "metrics", "net", "access", "usage", "account",
        ],
    ),
    (
        "authorize",
        &[
            "limits",
            "secret",
            "clock",
            "sentence",
            "fault",
            "proto",
            "config",
            "store",
            "oauth",
            "metrics",
            "net",
            "account",
            "connection",
        ],
    ),
    // What it asks of the rest of the program goes through its own port.
    ("web", &["limits", "clock", "config", "net"]),
];

/// A dependency, and the files that may name it.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("fjall", &["src/store/embedded/"]),
    ("reqwest", &["src/net/http.rs"]),
    ("hickory_resolver", &["src/net/dns.rs"]),
    ("roxmltree", &["src/recognize/autoconfig.rs"]),
    ("oauth2", &["src/oauth/request.rs"]),
    ("jsonwebtoken", &["src/oauth/assertion/"]),
    (
        "axum",
        &[
            "src/admin/",
            "src/web/",
            "src/net/http_server.rs",
            "src/demo/provider.rs",
            "src/cli/authorize/listener.rs",
        ],
    ),
    // axum serves a listener of its own making; bounds on headers, time and connections take hyper itself, as does a client
    // that speaks over a Unix socket.
    ("hyper", &["src/net/http_server.rs", "src/admin/client.rs"]),
    ("hyper_util", &["src/net/http_server.rs", "src/admin/client.rs"]),
    ("tokio_io_timeout", &["src/net/http_server.rs"]),
    ("maud", &["src/web/pages/"]),
    ("governor", &["src/web/"]),
    ("qrcode", &["src/cli/authorize/report.rs"]),
    ("configparser", &["src/cli/import/"]),
    ("fernet", &["src/cli/import/"]),
    ("aws_lc_rs", &["src/cli/import/", "src/net/"]),
    ("nom", &["src/proto/"]),
    ("rustls", &["src/net/"]),
    ("rustls_native_certs", &["src/net/"]),
    ("tokio_rustls", &["src/net/"]),
    ("rcgen", &["src/net/tls/private_ca", "src/demo/mod.rs"]),
    ("x509_parser", &["src/net/tls/private_ca", "src/net/tls/chain.rs"]),
    ("chacha20poly1305", &["src/store/seal.rs"]),
    ("ppp", &["src/net/proxy_protocol.rs"]),
    ("secrecy", &["src/secret.rs"]),
    ("hmac", &["src/hooks/webhook.rs", "src/store/"]),
    ("clap", &["src/cli/", "src/main.rs"]),
    ("metrics_exporter_prometheus", &["src/metrics/"]),
    ("tracing_subscriber", &["src/telemetry.rs"]),
    ("jiff", &["src/clock.rs"]),
];

#[test]
fn no_room_reaches_up() {
    let mut offences = Vec::new();
    for file in sources() {
        let room = room(&file.path);
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
            continue;
        };
        for (number, line) in file.code_lines() {
            for named in rooms_named(line) {
                if named != room && !allowed.contains(&named) {
                    offences.push(format!("{}:{number}: {room} names {named}", file.path.display()));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn a_big_dependency_is_named_in_its_own_room_only() {
    let mut offences = Vec::new();
    for file in sources() {
        let path = file.path.to_string_lossy().into_owned();
        for (number, line) in file.code_lines() {
            for (dependency, homes) in MAY_NAME {
                if names(line, dependency) && !homes.iter().any(|home| path.starts_with(home)) {
                    offences.push(format!("{path}:{number}: {dependency} belongs to {}", homes.join(", ")));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn the_protocols_read_no_clock_and_open_no_socket() {
    let mut offences = Vec::new();
    for file in sources().into_iter().filter(|file| room(&file.path) == "proto") {
        for (number, line) in file.code_lines() {
            for forbidden in [
                "Instant::now",
                "SystemTime",
                "tokio::",
                "std::net::Tcp",
                "std::thread",
                "ractor",
            ] {
                if line.contains(forbidden) {
                    offences.push(format!("{}:{number}: {forbidden}", file.path.display()));
                }
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// Files that write by `{:?}`: what implements `Debug`, and what makes words or quoted text of it.
const MAY_DEBUG: &[&str] = &[
    "src/config/report.rs",
    "src/net/tls/words.rs",
    "src/proto/imap/command.rs",
    "src/proto/pop3/command.rs",
    "src/proto/smtp/command.rs",
    "src/telemetry.rs",
];

#[test]
fn no_text_for_people_is_debug_output() {
    let mut offences = Vec::new();
    for file in sources() {
        let path = file.path.to_string_lossy().into_owned();
        // A file of tests beside the one that they are for says so by its name.
        if MAY_DEBUG.contains(&path.as_str()) || path.ends_with("_tests.rs") {
            continue;
        }
        for (number, line) in file.code_lines() {
            if line.contains(":?}") {
                offences.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// A source file without its unit tests, which may use what they like; files that are tests throughout are left out.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..)
            .zip(self.text.lines())
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    assert!(files.len() > 30, "the sources were not found");
    let read: Vec<_> = files
        .into_iter()
        .map(|path| (fs::read_to_string(&path).unwrap(), path))
        .collect();
    let tests: Vec<_> = read.iter().flat_map(|(text, path)| test_modules(path, text)).collect();
    read.into_iter()
        .filter(|(_, path)| !tests.iter().any(|module| is_of(path, module)))
        .map(|(text, path)| {
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            Source {
                path: path.strip_prefix(root).unwrap().to_owned(),
                text: code.to_owned(),
            }
        })
        .collect()
}

/// The modules of their own files that `path` declares for tests only, as paths without an extension.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let lines: Vec<_> = text.lines().collect();
    let home = match path.file_stem().unwrap().to_str().unwrap() {
        "mod" | "lib" => path.parent().unwrap().to_owned(),
        _ => path.with_extension(""),
    };
    lines
        .windows(2)
        .filter(|pair| pair[0] == "#[cfg(test)]")
        .filter_map(|pair| {
            pair[1]
                .strip_suffix(';')?
                .rsplit_once("mod ")
                .map(|(_, name)| home.join(name))
        })
        .collect()
}

/// Whether the file at `path` is `module` or lies below it.
fn is_of(path: &Path, module: &Path) -> bool {
    path.starts_with(module) || path.with_extension("") == module
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn room(path: &Path) -> String {
    let part = path
        .components()
        .nth(1)
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    part.trim_end_matches(".rs").to_owned()
}

fn rooms_named(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .map(|(at, prefix)| {
            let rest = &line[at + prefix.len()..];
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            &rest[..end]
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether `line` has a path that begins with `dependency`.
fn names(line: &str, dependency: &str) -> bool {
    line.match_indices(&format!("{dependency}::")).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}
