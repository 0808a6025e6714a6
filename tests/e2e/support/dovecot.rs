//! Dovecot 2.3 as the upstream of IMAP and POP3: OAuth tokens checked by introspection, passwords
//! against a file, mailboxes in Maildir format under a temporary directory. By LMTP and its socket
//! for logins it serves a Postfix too.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::certs::Authority;
use super::process::{Process, tail};
use super::provider::Provider;
use super::template::fill;
use super::{PATIENCE, open_directory, ports, require_installed};

/// A running Dovecot; it ends, and its mail is removed, when dropped.
pub struct Dovecot {
    // Declared first, hence ended before its directory is removed.
    process: Process,
    authority: Authority,
    doors: Doors,
    owner: Option<(u32, u32)>,
    delivered: AtomicU64,
    directory: TempDir,
}

impl Dovecot {
    /// Starts a Dovecot that takes the OAuth tokens of `provider`, for any user it names.
    pub async fn start(provider: &Provider) -> Dovecot {
        Dovecot::start_with_passwords(provider, &[]).await
    }

    /// As [`Dovecot::start`], with users who may also log in by password.
    pub async fn start_with_passwords(provider: &Provider, users: &[(&str, &str)]) -> Dovecot {
        let endpoints = provider.endpoints();
        Dovecot::start_asking(&endpoints.introspection_url, &endpoints.client_secret, users).await
    }

    /// As [`Dovecot::start_with_passwords`], with OAuth tokens that are known at an introspection endpoint (RFC 7662), where
    /// Dovecot shows who it is by this secret.
    pub async fn start_asking(introspection_url: &str, secret: &str, users: &[(&str, &str)]) -> Dovecot {
        require_installed(Path::new(DOVECOT));
        for service in ["imap", "pop3", "lmtp"] {
            require_installed(&Path::new("/usr/lib/dovecot").join(service));
        }
        let directory = open_directory();
        let base = directory.path();
        let owner = rustix::process::geteuid().is_root().then_some(MAIL_OWNER);
        let authority = Authority::new();
        let doors = Doors::new();

        let leaf = authority.issue_for_loopback();
        write(&base.join("ca.pem"), &authority.pem());
        write(&base.join("cert.pem"), &leaf.certificate_pem);
        write(&base.join("key.pem"), &leaf.key_pem);
        let passwords = users.iter().map(|(user, password)| format!("{user}:{password}\n"));
        write(&base.join("passwd"), &passwords.collect::<String>());
        for (file, client, username_format) in INTROSPECTIONS {
            let words = [
                ("INTROSPECTION_URL", introspection_url),
                ("CLIENT_ID", client),
                ("CLIENT_SECRET", secret),
                ("USERNAME_FORMAT", username_format),
            ];
            let introspection = fill(include_str!("../../testbed/dovecot/oauth2.conf.ext.in"), &words);
            write(&base.join(file), &introspection);
        }
        write(&base.join("dovecot.conf"), &configuration(base, owner, &doors));
        make_owned_directory(&base.join("mail"), owner);

        let mut command = Command::new(DOVECOT);
        command.arg("-F").arg("-c").arg(base.join("dovecot.conf"));
        let dovecot = Dovecot {
            process: Process::spawn_leashed("dovecot", &command),
            authority,
            doors,
            owner,
            delivered: AtomicU64::new(0),
            directory,
        };
        dovecot.wait_until_ready().await;
        dovecot
    }

    /// The address of the IMAP port that speaks in clear and offers STARTTLS.
    pub fn imap(&self) -> SocketAddr {
        self.doors.imap
    }

    /// The address of the IMAP port with implicit TLS.
    pub fn imaps(&self) -> SocketAddr {
        self.doors.imaps
    }

    /// The address of the POP3 port that speaks in clear and offers STLS.
    pub fn pop3(&self) -> SocketAddr {
        self.doors.pop3
    }

    /// The address of the POP3 port with implicit TLS.
    pub fn pop3s(&self) -> SocketAddr {
        self.doors.pop3s
    }

    /// Where it takes mail for any mailbox, by LMTP.
    pub fn lmtp(&self) -> SocketAddr {
        self.doors.lmtp
    }

    /// The socket by which it checks logins for a Postfix.
    pub fn sasl_socket(&self) -> PathBuf {
        self.directory.path().join("run/sasl")
    }

    /// The authority behind its certificate, which is for localhost and 127.0.0.1.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The file with the authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The certificate's file.
    pub fn certificate_file(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// The file of the certificate's key.
    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// The directory of the users' homes.
    pub fn mail_directory(&self) -> PathBuf {
        self.directory.path().join("mail")
    }

    /// The user and group that mail belongs to.
    pub fn mail_owner(&self) -> (u32, u32) {
        mail_owner(self.owner)
    }

    /// Puts a message into a user's INBOX, byte for byte, as a new one: a client in IDLE sees it.
    pub fn deliver(&self, user: &str, message: &[u8]) {
        self.store(user, message, "new", "");
    }

    /// Puts many messages into a user's INBOX at once, in this order, as seen by clients before.
    pub fn fill<'a>(&self, user: &str, messages: impl IntoIterator<Item = &'a [u8]>) {
        for message in messages {
            self.store(user, message, "cur", ":2,");
        }
    }

    /// What lies in a user's INBOX, in order of delivery, byte for byte.
    pub fn messages(&self, user: &str) -> Vec<Vec<u8>> {
        let read = |path: &PathBuf| fs::read(path).expect("a message can be read");
        self.files(user).iter().map(read).collect()
    }

    /// The same, and nothing lies there any more. Not for a mailbox that a client has opened.
    pub fn take(&self, user: &str) -> Vec<Vec<u8>> {
        let take = |path: &PathBuf| {
            let message = fs::read(path).expect("a message can be read");
            fs::remove_file(path).expect("a message can be removed");
            message
        };
        self.files(user).iter().map(take).collect()
    }

    fn files(&self, user: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = ["new", "cur"]
            .iter()
            .filter_map(|folder| fs::read_dir(self.maildir(user).join(folder)).ok())
            .flatten()
            .map(|entry| entry.expect("the folder can be read").path())
            .collect();
        files.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
        files
    }

    /// Waits until Dovecot's log contains `text`: its processes log after they have answered.
    pub async fn logged(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(
                Instant::now() < deadline,
                "dovecot does not log {text:?}\n{}",
                tail(&self.log())
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// All that Dovecot has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("dovecot.log")).unwrap_or_default()
    }

    /// Written to `tmp` and renamed, so that Dovecot never sees half a message.
    fn store(&self, user: &str, message: &[u8], folder: &str, flags: &str) {
        let maildir = self.maildir(user);
        if !maildir.exists() {
            // The home directory first: Dovecot works in both as the owner.
            make_owned_directory(maildir.parent().expect("it lies in the home"), self.owner);
            make_owned_directory(&maildir, self.owner);
            for part in ["tmp", "new", "cur"] {
                make_owned_directory(&maildir.join(part), self.owner);
            }
        }
        let number = self.delivered.fetch_add(1, Ordering::Relaxed);
        // The first field of a Maildir name is the time in seconds, and names sort in its order. A
        // time long past keeps these before whatever Dovecot itself appends. With the sizes in the
        // name Dovecot need not read a message to know its size.
        let name = format!("{:010}.{number}.bed,S={}", 1_000_000_000 + number, message.len());
        let draft = maildir.join("tmp").join(&name);
        fs::write(&draft, message).expect("a message can be written");
        if let Some((uid, gid)) = self.owner {
            chown(&draft, Some(uid), Some(gid)).expect("root can give files away");
        }
        let place = maildir.join(folder).join(format!("{name}{flags}"));
        fs::rename(draft, place).expect("a message can be moved into place");
    }

    fn maildir(&self, user: &str) -> PathBuf {
        self.mail_directory().join(user).join("Maildir")
    }

    /// Its ports are bound by the master process at once; the sockets between its processes come
    /// before those, so that an accepted connection is enough.
    async fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.doors.imaps).await.is_err() {
            assert!(
                Instant::now() < deadline,
                "dovecot does not listen\n{}\n{}",
                self.process.log_tail(),
                tail(&self.log())
            );
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Where it listens.
struct Doors {
    imap: SocketAddr,
    imaps: SocketAddr,
    pop3: SocketAddr,
    pop3s: SocketAddr,
    lmtp: SocketAddr,
}

impl Doors {
    fn new() -> Doors {
        let door = || SocketAddr::from(([127, 0, 0, 1], ports::free_port()));
        Doors {
            imap: door(),
            imaps: door(),
            pop3: door(),
            pop3s: door(),
            lmtp: door(),
        }
    }
}

/// The configuration file for this directory, user and ports.
fn configuration(base: &Path, owner: Option<(u32, u32)>, doors: &Doors) -> String {
    let (mail_uid, mail_gid) = mail_owner(owner);
    // Root's Dovecot drops to Debian's users and into empty directories; another's can do neither.
    let words = match owner {
        Some(_) => ["dovenull", "dovecot", "dovecot", "root", "login", "empty"].map(str::to_owned),
        None => {
            let (user, group) = (name_of_id("-un"), name_of_id("-gn"));
            [user.clone(), user.clone(), group, user, String::new(), String::new()]
        }
    };
    let [
        login_user,
        internal_user,
        internal_group,
        delivering_user,
        login_chroot,
        empty_chroot,
    ] = &words;
    fill(
        include_str!("../../testbed/dovecot/dovecot.conf.in"),
        &[
            ("BASE", &base.display().to_string()),
            ("LOGIN_USER", login_user),
            ("INTERNAL_USER", internal_user),
            ("INTERNAL_GROUP", internal_group),
            ("DELIVERING_USER", delivering_user),
            ("LOGIN_CHROOT", login_chroot),
            ("EMPTY_CHROOT", empty_chroot),
            ("MAIL_UID", &mail_uid.to_string()),
            ("MAIL_GID", &mail_gid.to_string()),
            ("IMAP_PORT", &doors.imap.port().to_string()),
            ("IMAPS_PORT", &doors.imaps.port().to_string()),
            ("POP3_PORT", &doors.pop3.port().to_string()),
            ("POP3S_PORT", &doors.pop3s.port().to_string()),
            ("LMTP_PORT", &doors.lmtp.port().to_string()),
        ],
    )
}

fn mail_owner(owner: Option<(u32, u32)>) -> (u32, u32) {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    owner.unwrap_or(own)
}

fn name_of_id(option: &str) -> String {
    let output = Command::new("id").arg(option).output().expect("id can be run");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn make_owned_directory(path: &Path, owner: Option<(u32, u32)>) {
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if let Some((uid, gid)) = owner {
        chown(path, Some(uid), Some(gid)).expect("root can give directories away");
    }
}

/// The ways of asking about a token: the file, as which client, and what the user's name is compared in.
const INTROSPECTIONS: [(&str, &str, &str); 3] = [
    ("oauth2.conf.ext", "dovecot", "%Lu"),
    ("oauth2-apps.conf.ext", "dovecot-apps", "any"),
    ("oauth2-shared.conf.ext", "dovecot", "any"),
];
/// Not in the search path of users other than root.
const DOVECOT: &str = "/usr/sbin/dovecot";
/// Debian's `nobody` and `nogroup`: Dovecot refuses to read mail as root.
const MAIL_OWNER: (u32, u32) = (65_534, 65_534);
const POLL: Duration = Duration::from_millis(10);
