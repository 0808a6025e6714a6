//! The Unix socket's file: made with its mode in place from the first moment, never taken from a daemon that lives, and
//! removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// Why a socket of the admin API could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers there.
    #[error("{} is the admin socket of a portreeve that is running; stop that one, or give this one another admin.socket", .0.display())]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{} exists and is not a socket; remove it, or give another admin.socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {place}: {error}")]
    System {
        /// The path or address.
        place: String,
        /// What the system said.
        error: io::Error,
    },
}

/// A bound Unix socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct BoundSocket {
    pub(super) listener: UnixListener,
    _file: SocketFile,
}

/// The file of a socket, told from a later one of the same name by its inode.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl BoundSocket {
    /// Binds `path` with the mode bits `mode`. Missing parent directories are made, open to their owner only; a socket that
    /// a dead daemon left behind is replaced.
    pub(super) fn bind(path: &Path, mode: u32) -> Result<Self, BindError> {
        let system = |error| BindError::System {
            place: path.display().to_string(),
            error,
        };
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(system)?;
        check_free(path)?;
        // Nobody can connect before `listen`, and the final name appears only after it: whoever finds the socket finds it
        // with its mode and with somebody who answers.
        let scratch = directory.join(format!(".{}", std::process::id()));
        let _ = fs::remove_file(&scratch);
        let bound = listen(&scratch, mode).and_then(|listener| {
            fs::rename(&scratch, path)?;
            Ok((listener, fs::metadata(path)?.ino()))
        });
        let (listener, inode) = bound.map_err(|error| {
            let _ = fs::remove_file(&scratch);
            system(error)
        })?;
        Ok(Self {
            listener,
            _file: SocketFile {
                path: path.to_owned(),
                inode,
            },
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

/// Refuses a path at which somebody answers, or which is something else than a socket.
fn check_free(path: &Path) -> Result<(), BindError> {
    let system = |error| BindError::System {
        place: path.display().to_string(),
        error,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
        Ok(file) if !file.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(system(error)),
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_has_its_mode_and_its_directory_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/portreeve/admin.sock");
        let socket = BoundSocket::bind(&path, 0o660).unwrap();
        assert_eq!(mode_of(&path), 0o660);
        assert_eq!(mode_of(path.parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_somebody_answers_on_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let _first = BoundSocket::bind(&path, 0o600).unwrap();
        let refused = BoundSocket::bind(&path, 0o600).unwrap_err();
        assert!(matches!(refused, BindError::InUse(_)), "{refused}");
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_socket_left_by_a_dead_daemon_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let _socket = BoundSocket::bind(&path, 0o600).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn another_file_of_that_name_is_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        fs::write(&path, "mine").unwrap();
        let refused = BoundSocket::bind(&path, 0o600).unwrap_err();
        assert!(matches!(refused, BindError::NotASocket(_)), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_successors_socket_survives_the_end_of_its_predecessor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let first = BoundSocket::bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = BoundSocket::bind(&path, 0o600).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
    }
}
