//! The master key, which seals every secret in the store, and its file.
//!
//! 32 random bytes in base64. Where no file is configured, one is generated in the state directory; the engine decides
//! whether that may be done, because only it knows whether records exist that an earlier key sealed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::TryRngCore;
use zeroize::Zeroizing;

use super::StoreError;
use super::state_dir::{Reader, refuse_foreign, sync_directory};
use crate::limits::MASTER_KEY_BYTES;
use crate::secret::{ExposeSecret as _, SecretString};

/// A master key. It is wiped when dropped and has no Debug output.
pub struct MasterKey(Zeroizing<[u8; MASTER_KEY_BYTES]>);

/// Where the master key comes from.
#[derive(Debug, Clone)]
pub enum MasterKeySource {
    /// The file in the state directory, which is made where there is nothing sealed yet.
    Generated,
    /// A file of the administrator's.
    File(PathBuf),
    /// The key itself, in base64.
    Given(SecretString),
}

impl MasterKeySource {
    /// Reads the key, which must be there. Blocks on its file.
    ///
    /// # Errors
    /// As [`MasterKey::load`], and [`StoreError::MasterKey`] where there is none.
    pub fn read(&self, state_dir: &Path) -> Result<MasterKey, StoreError> {
        let path = match self {
            Self::Given(key) => return MasterKey::decode(key.expose_secret().as_bytes(), "secrets.master_key"),
            Self::File(path) => path.clone(),
            Self::Generated => state_dir.join(GENERATED_KEY_FILE),
        };
        MasterKey::load(&path)?.ok_or_else(|| StoreError::MasterKey(missing(&path)))
    }
}

impl MasterKey {
    /// A key of these bytes.
    pub fn from_bytes(bytes: [u8; MASTER_KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key's bytes.
    pub(super) fn bytes(&self) -> &[u8; MASTER_KEY_BYTES] {
        &self.0
    }

    /// Reads the key from `path`; `None` if there is no such file.
    ///
    /// # Errors
    /// [`StoreError::Exposed`] if others can read the file or own it; [`StoreError::MasterKey`] if it cannot be read or holds
    /// no key.
    pub fn load(path: &Path) -> Result<Option<Self>, StoreError> {
        Self::load_for(path, Reader::Daemon)
    }

    /// Reads the key as the daemon would, for whoever asks before it does.
    ///
    /// # Errors
    /// As [`MasterKey::load`]; [`StoreError::MasterKey`] where there is no such file.
    pub fn examine(path: &Path, reader: Reader) -> Result<(), StoreError> {
        match Self::load_for(path, reader)? {
            Some(_) => Ok(()),
            None => Err(StoreError::MasterKey(missing(path))),
        }
    }

    fn load_for(path: &Path, reader: Reader) -> Result<Option<Self>, StoreError> {
        let unreadable = |error: io::Error| {
            StoreError::MasterKey(format!("cannot read the master key in {}: {error}", path.display()))
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let metadata = file.metadata().map_err(unreadable)?;
        refuse_foreign("the master key", path, metadata.uid(), reader)?;
        refuse_exposed(path, metadata.permissions().mode())?;

        let mut text = Zeroizing::new([0; FILE_BYTES_MAX]);
        let length = read_up_to(file, text.as_mut_slice()).map_err(unreadable)?;
        let text = text.get(..length).unwrap_or_default();
        Self::decode(text, &path.display().to_string()).map(Some)
    }

    /// Decodes a key from base64. `place` names where it was given.
    ///
    /// # Errors
    /// [`StoreError::MasterKey`] if it is not 32 bytes.
    pub fn decode(text: &[u8], place: &str) -> Result<Self, StoreError> {
        let mut decoded = Zeroizing::new([0; FILE_BYTES_MAX]);
        let key = STANDARD
            .decode_slice(text.trim_ascii(), decoded.as_mut_slice())
            .ok()
            .and_then(|length| decoded.get(..length)?.try_into().ok())
            .map(Self::from_bytes);
        key.ok_or_else(|| {
            StoreError::MasterKey(format!(
                "{place} holds no master key: expected 32 bytes in base64, as written by 'head -c 32 /dev/urandom | base64'"
            ))
        })
    }

    /// Generates a key and writes it to `path`, mode 0600, where no file may be yet. When this returns, the file and its
    /// name survive a power loss: the caller may seal with the key.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`].
    pub fn generate(path: &Path) -> Result<Self, StoreError> {
        let unwritable = |error: String| {
            StoreError::Unwritable(format!("cannot write a new master key to {}: {error}", path.display()))
        };
        let mut key = Self::from_bytes([0; MASTER_KEY_BYTES]);
        rand::rngs::OsRng
            .try_fill_bytes(key.0.as_mut_slice())
            .map_err(|error| unwritable(error.to_string()))?;

        let directory = path.parent().unwrap_or(Path::new("."));
        let write = || -> io::Result<()> {
            // The mode of a tempfile is 0600 from its creation on.
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            let mut text = Zeroizing::new([0; FILE_BYTES_MAX]);
            let length = STANDARD
                .encode_slice(key.bytes(), text.as_mut_slice())
                .map_err(io::Error::other)?;
            file.write_all(text.get(..length).unwrap_or_default())?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist_noclobber(path)?;
            sync_directory(directory)
        };
        write().map_err(|error| unwritable(error.to_string()))?;
        Ok(key)
    }
}

/// What there is to do where an administrator's key file is not there.
pub(super) fn missing(path: &Path) -> String {
    let shown = path.display();
    format!(
        "there is no master key in {shown} (secrets.master_key_file); make one with \
         'umask 077; head -c 32 /dev/urandom | base64 > {shown}'"
    )
}

/// Refuses a file that others than its owner can read. systemd's credentials are let off with their group bits: these are
/// the mask of an access list that names the service's user, in a directory that only this user can enter.
fn refuse_exposed(path: &Path, mode: u32) -> Result<(), StoreError> {
    let forbidden = if path.starts_with(SYSTEMD_CREDENTIALS) {
        0o037
    } else {
        0o077
    };
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(StoreError::Exposed(format!(
        "the master key in {path} can be reached by other users (mode {mode:04o}); run 'chmod 600 {path}'",
        path = path.display(),
        mode = mode & 0o7777,
    )))
}

fn read_up_to(mut file: File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        let free = buffer.get_mut(length..).unwrap_or_default();
        match file.read(free)? {
            0 => return Ok(length),
            count => length += count,
        }
    }
}

/// The key's file in the state directory, where an administrator names no other.
pub const GENERATED_KEY_FILE: &str = "master.key";

/// Bytes that are read of a key's file: 44 are base64, the rest white space.
const FILE_BYTES_MAX: usize = 256;

const SYSTEMD_CREDENTIALS: &str = "/run/credentials";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file_with(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_generated_key_is_private_and_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let key = MasterKey::generate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(MasterKey::load(&path).unwrap().unwrap().bytes(), key.bytes());
        assert!(
            MasterKey::generate(&path).is_err(),
            "an existing key must never be overwritten"
        );
        assert_eq!(MasterKey::load(&path).unwrap().unwrap().bytes(), key.bytes());
    }

    #[test]
    fn a_missing_key_is_none() {
        assert!(MasterKey::load(Path::new("/nonexistent/master.key")).unwrap().is_none());
    }

    #[test]
    fn what_is_no_key_is_refused_and_the_refusal_says_what_is_expected() {
        let long = STANDARD.encode([7; 64]);
        for content in ["", "sesame", &STANDARD.encode([7; 31]), &long, &"A".repeat(1000)] {
            let error = MasterKey::load(file_with(content.as_bytes(), 0o600).path())
                .err()
                .unwrap();
            assert!(
                matches!(&error, StoreError::MasterKey(text) if text.contains("32 bytes in base64")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let content = STANDARD.encode([7; 32]);
        for mode in [0o644, 0o640, 0o604, 0o660] {
            let file = file_with(content.as_bytes(), mode);
            assert!(
                matches!(MasterKey::load(file.path()), Err(StoreError::Exposed(_))),
                "{mode:o}"
            );
        }
        assert!(
            MasterKey::load(file_with(content.as_bytes(), 0o400).path())
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_key_of_another_user_is_refused() {
        // Only root can give a file away.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let file = file_with(STANDARD.encode([7; 32]).as_bytes(), 0o600);
        std::os::unix::fs::chown(file.path(), Some(12_345), None).unwrap();
        let error = MasterKey::load(file.path()).err().unwrap();
        assert!(
            matches!(&error, StoreError::Exposed(text) if text.contains("belongs to user 12345")),
            "{error}"
        );
        MasterKey::examine(file.path(), Reader::Administrator).unwrap();
    }

    #[test]
    fn systemd_s_credentials_may_carry_a_group_bit_but_nothing_more() {
        let path = Path::new("/run/credentials/portreeve.service/master-key");
        assert!(refuse_exposed(path, 0o100_440).is_ok());
        assert!(refuse_exposed(path, 0o100_444).is_err());
        assert!(refuse_exposed(Path::new("/etc/portreeve/key"), 0o100_440).is_err());
    }
}
