//! haproxy as a balancer in front of the proxy: Debian's, with `tests/testbed/haproxy/haproxy.cfg.in`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::process::Process;
use super::protocol::Protocol;
use super::template::fill;
use super::{PATIENCE, open_directory, ports, require_installed};

/// A running haproxy, with doors for each protocol; it ends when dropped.
pub struct Haproxy {
    // Declared before its directory, hence ended before that is removed.
    process: Process,
    doors: Vec<(Protocol, Way, u16)>,
    directory: TempDir,
}

/// How haproxy tells where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A header of version 1, in text.
    V1,
    /// A header of version 2, in binary.
    V2,
    /// A header that names 192.0.2.7 whoever comes, which is nobody's (RFC 5737) and not a loopback
    /// address: version 2 for IMAP and SMTP, version 1 for POP3.
    Far,
}

/// Where the proxy listens on 127.0.0.1.
pub type Listeners = [(Protocol, u16); 3];

impl Haproxy {
    /// Starts it and waits until it listens. Whether it finds the proxy is another matter.
    pub async fn start(listeners: Listeners) -> Haproxy {
        require_installed(Path::new(PROGRAM));
        let directory = open_directory();
        let mut doors = Vec::new();
        let mut words = Vec::new();
        for (protocol, port) in listeners {
            let name = protocol.name().to_uppercase();
            for way in [Way::V1, Way::V2, Way::Far] {
                let door = ports::free_port();
                words.push((format!("{name}_{way:?}").to_uppercase(), door.to_string()));
                doors.push((protocol, way, door));
            }
            words.push((name, port.to_string()));
        }
        let stats = directory.path().join("stats");
        words.push(("STATS".to_owned(), stats.display().to_string()));
        let words: Vec<(&str, &str)> = words.iter().map(|(word, value)| (&**word, &**value)).collect();
        let file = directory.path().join("haproxy.cfg");
        let configuration = fill(include_str!("../../testbed/haproxy/haproxy.cfg.in"), &words);
        std::fs::write(&file, configuration).expect("the configuration can be written");
        let mut command = Command::new(PROGRAM);
        command.arg("-db").arg("-f").arg(&file);
        let mut haproxy = Haproxy {
            process: Process::spawn_leashed("haproxy", &command),
            doors,
            directory,
        };
        haproxy.wait_until_ready().await;
        haproxy
    }

    /// Where clients connect.
    pub fn door(&self, protocol: Protocol, way: Way) -> SocketAddr {
        let door = self.doors.iter().find(|door| (door.0, door.1) == (protocol, way));
        let (_, _, port) = door.expect("there is one for each protocol and way");
        SocketAddr::from(([127, 0, 0, 1], *port))
    }

    /// Waits until its health checks have found every listener of the proxy's greeting as it should.
    pub async fn until_all_are_up(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let checks = self.checks().await;
            assert_eq!(checks.len(), self.doors.len(), "{checks:?}");
            if checks.iter().all(|check| check.ends_with(" UP L7OK")) {
                return;
            }
            assert!(Instant::now() < deadline, "{checks:?}\n{}", self.process.log_tail());
            tokio::time::sleep(POLL).await;
        }
    }

    /// For each server its `listen` section, its state, and the outcome of the last check.
    async fn checks(&self) -> Vec<String> {
        let stats = UnixStream::connect(self.directory.path().join("stats")).await;
        let mut stats = stats.expect("haproxy listens there");
        stats.write_all(b"show stat\n").await.expect("haproxy takes orders");
        let mut table = String::new();
        stats.read_to_string(&mut table).await.expect("haproxy answers");
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
        let column = |name: &str| {
            let place = rows[0].iter().position(|title| title.trim_start_matches("# ") == name);
            place.unwrap_or_else(|| panic!("no column {name}: {table}"))
        };
        let [section, server, status, check] = ["pxname", "svname", "status", "check_status"].map(column);
        rows.iter()
            .filter(|row| row.get(server) == Some(&"portreeve"))
            .map(|row| format!("{} {} {}", row[section], row[status], row[check]))
            .collect()
    }

    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for (_, _, port) in self.doors.clone() {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                let is_fine = self.process.is_running() && Instant::now() < deadline;
                assert!(is_fine, "haproxy does not listen\n{}", self.process.log_tail());
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

const PROGRAM: &str = "/usr/sbin/haproxy";
const POLL: Duration = Duration::from_millis(20);
