//! The machine as the configuration sees it: the process's environment, and the files and programs that are named.
//!
//! `config check`, `serve` and a reload all read the configuration through this, so that none of them accepts what another
//! refuses.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::config::{Environment, FileContent, Material, ProcessEnvironment};
use crate::net::tls::{self, CertificateFiles};
use crate::oauth;
use crate::process::search_path;
use crate::store::master_key::{GENERATED_KEY_FILE, MasterKey};
use crate::store::state_dir::{self, Reader};

/// The machine, looked at for the daemon itself or for somebody who will start it.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    reader: Reader,
}

impl Machine {
    /// As the daemon sees it.
    pub const DAEMON: Self = Self { reader: Reader::Daemon };

    /// As an administrator sees it.
    pub const ADMINISTRATOR: Self = Self {
        reader: Reader::Administrator,
    };
}

impl Environment for Machine {
    fn variable(&self, name: &str) -> Option<OsString> {
        ProcessEnvironment.variable(name)
    }

    fn is_root(&self) -> bool {
        ProcessEnvironment.is_root()
    }

    fn hostname(&self) -> String {
        ProcessEnvironment.hostname()
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<FileContent> {
        ProcessEnvironment.read(path, bytes_max)
    }

    fn examine(&self, material: &Material<'_>) -> Result<(), String> {
        match *material {
            Material::Chain(cert_file) => text(tls::examine_chain(cert_file)),
            Material::Key(key_file) => text(tls::examine_key(key_file)),
            Material::Pair { cert_file, key_file } => text(tls::examine_pair(&CertificateFiles {
                cert_file: cert_file.to_owned(),
                key_file: key_file.to_owned(),
            })),
            Material::Anchors(ca_file) => text(tls::examine_anchors(ca_file)),
            Material::AppKey(key_file) => oauth::examine_app_key(key_file),
            Material::ServiceAccount(key_file) => oauth::examine_service_account(key_file),
            Material::MasterKey(file) => text(MasterKey::examine(file, self.reader)),
            Material::GeneratedKey { state_dir } => match state_dir.join(GENERATED_KEY_FILE) {
                file if file.exists() => text(MasterKey::examine(&file, self.reader)),
                _ => Ok(()),
            },
            Material::StateDirectory(path) => text(state_dir::examine(path, self.reader)),
            Material::Program { program, search } => examine_program(program, search),
        }
    }
}

fn text<E: ToString>(outcome: Result<(), E>) -> Result<(), String> {
    outcome.map_err(|error| error.to_string())
}

/// Whether `program` can be run: a file that this user may execute, there or in one of the directories of `search`.
fn examine_program(program: &str, search: Option<&str>) -> Result<(), String> {
    if program.contains('/') {
        return executable(Path::new(program)).map_err(|problem| format!("{program}: {problem}"));
    }
    let search = search.map_or_else(search_path, OsString::from);
    let mut found = std::env::split_paths(&search).map(|directory| executable(&directory.join(program)));
    if found.any(|one| one.is_ok()) {
        return Ok(());
    }
    let shown = program.escape_debug();
    Err(format!(
        "there is no program {shown} in PATH, which is {}; give its whole path, or another PATH in env",
        search.display()
    ))
}

fn executable(path: &Path) -> Result<(), String> {
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("is not a program".to_owned());
    }
    access(path, Access::EXEC_OK).map_err(|_| "cannot be run by this user; chmod +x it".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;
    use crate::config;
    use crate::net::test_support::Issued;

    /// What `text` is refused for, one line for each problem.
    fn problems(directory: &Path, text: &str) -> Vec<String> {
        let file = directory.join("portreeve.toml");
        match config::parse(Some(&file), text, &Machine::DAEMON) {
            Ok(_) => Vec::new(),
            Err(error) => error
                .problems()
                .into_iter()
                .map(|problem| format!("{}: {}", problem.key, problem.message))
                .collect(),
        }
    }

    fn write(directory: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn certificates_keys_and_anchors_are_read_and_must_fit() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = [Issued::new(&["localhost"]), Issued::new(&["localhost"])];
        let garbled = write(directory.path(), "garbled.pem", b"no PEM", 0o600);
        let table = |cert_file: &Path, key_file: &Path, ca_file: &Path| {
            format!(
                "[certificate.default]\ncert_file = \"{}\"\nkey_file = \"{}\"\n\
                 [provider.own]\nimap = {{ host = \"imap.test\" }}\nca_file = \"{}\"\n",
                cert_file.display(),
                key_file.display(),
                ca_file.display()
            )
        };
        let found = |cert_file: &Path, key_file: &Path, ca_file: &Path| {
            problems(directory.path(), &table(cert_file, key_file, ca_file))
        };
        assert_eq!(
            found(&one.cert_file(), &one.key_file(), &one.cert_file()),
            Vec::<String>::new()
        );
        let all = found(&garbled, &directory.path().join("absent"), &garbled);
        assert_eq!(all.len(), 3, "{all:?}");
        for (problem, expected) in all.iter().zip([
            "certificate.default.cert_file: ",
            "certificate.default.key_file: cannot read ",
            "provider.own.ca_file: ",
        ]) {
            assert!(problem.starts_with(expected), "{problem}");
        }
        let apart = found(&one.cert_file(), &other.key_file(), &one.cert_file());
        assert!(
            matches!(apart.as_slice(), [problem] if problem.contains("does not belong to the first certificate")),
            "{apart:?}"
        );
    }

    #[test]
    fn keys_of_apps_and_of_service_accounts_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = [Issued::new(&["localhost"]), Issued::new(&["localhost"])];
        let json = write(directory.path(), "service.json", b"{\"installed\":{}}", 0o600);
        let text = |key_file: &Path, certificate_file: &Path| {
            format!(
                "[provider.own]\nimap = {{ host = \"imap.test\" }}\nclient_id = \"x\"\ntoken_url = \"https://t.test/\"\n\
                 client_key_file = \"{}\"\nclient_certificate_file = \"{}\"\n",
                key_file.display(),
                certificate_file.display()
            )
        };
        let found =
            |key_file: &Path, certificate_file: &Path| problems(directory.path(), &text(key_file, certificate_file));
        assert_eq!(found(&one.key_file(), &one.cert_file()), Vec::<String>::new());
        let apart = found(&one.key_file(), &other.cert_file());
        assert!(
            matches!(apart.as_slice(), [problem] if problem.contains("does not belong")),
            "{apart:?}"
        );
        let no_key = found(&one.cert_file(), &one.cert_file());
        assert!(
            matches!(no_key.as_slice(), [problem] if problem.contains("holds a certificate and no private key")),
            "{no_key:?}"
        );
        let service = format!(
            "[provider.google]\ngrant = \"service_account\"\nservice_account_file = \"{}\"\n",
            json.display()
        );
        let service = problems(directory.path(), &service);
        assert!(
            matches!(service.as_slice(), [problem] if problem.contains("is the file of an OAuth client")),
            "{service:?}"
        );
    }

    #[test]
    fn programs_must_be_there_and_may_be_run() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "tell", b"#!/bin/sh\n", 0o700);
        write(directory.path(), "text", b"hello\n", 0o600);
        let found = |program: &str, env: &str| {
            problems(
                directory.path(),
                &format!("[hooks]\ncommand = [\"{program}\"]\nenv = {{ {env} }}\n"),
            )
        };
        let path = format!("PATH = \"{}\"", directory.path().display());
        assert_eq!(found("./tell", ""), Vec::<String>::new());
        assert_eq!(found("tell", &path), Vec::<String>::new());
        assert_eq!(found("sh", ""), Vec::<String>::new());
        for (program, env, expected) in [
            ("./text", "", "cannot be run by this user; chmod +x it"),
            ("text", path.as_str(), "there is no program text in PATH"),
            ("sh", path.as_str(), "there is no program sh in PATH"),
            ("./absent", "", "absent: No such file"),
            ("./", "", "is not a program"),
        ] {
            let problem = found(program, env);
            assert!(
                matches!(problem.as_slice(), [problem] if problem.starts_with("hooks.command: ") && problem.contains(expected)),
                "{problem:?}"
            );
        }
    }

    #[test]
    fn a_master_key_and_a_state_directory_are_looked_at_as_at_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let key = "A".repeat(43) + "=";
        for (name, content, mode, expected) in [
            ("good", key.as_str(), 0o600, None),
            ("exposed", key.as_str(), 0o644, Some("can be reached by other users")),
            ("short", "AAAA", 0o600, Some("expected 32 bytes in base64")),
        ] {
            write(directory.path(), name, content.as_bytes(), mode);
            let problems = problems(
                directory.path(),
                &format!("[secrets]\nmaster_key_file = \"./{name}\"\n"),
            );
            match expected {
                None => assert_eq!(problems, Vec::<String>::new()),
                Some(expected) => assert!(problems[0].contains(expected), "{problems:?}"),
            }
        }
        let absent = problems(directory.path(), "[secrets]\nmaster_key_file = \"./absent\"\n");
        assert!(absent[0].contains("make one with"), "{absent:?}");
        write(directory.path(), "master.key", key.as_bytes(), 0o640);
        fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
        let generated = problems(directory.path(), "[server]\nstate_dir = \".\"\n");
        assert!(
            generated[0].starts_with("secrets.master_key_file: the master key in "),
            "{generated:?}"
        );
        let elsewhere = problems(
            directory.path(),
            "[server]\nstate_dir = \".\"\n[secrets]\nmaster_key_file = \"./good\"\n",
        );
        assert_eq!(
            elsewhere,
            Vec::<String>::new(),
            "a key that is not used may be as it likes"
        );
        fs::remove_file(directory.path().join("master.key")).unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let state = problems(directory.path(), "[server]\nstate_dir = \".\"\n");
        assert!(
            state[0].starts_with("server.state_dir: the state directory"),
            "{state:?}"
        );
    }

    #[test]
    fn the_documented_examples_pass_on_any_machine() {
        let directory = tempfile::tempdir().unwrap();
        for text in [
            include_str!("../../docs/portreeve.example.toml"),
            include_str!("../../docs/portreeve.minimal.toml"),
        ] {
            assert_eq!(problems(directory.path(), text), Vec::<String>::new());
        }
    }
}
