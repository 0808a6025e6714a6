//! Runs a program for its output: without a shell, without input, and not beyond its time, whatever it has started itself.

use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::config::Variables;
use crate::limits::{TOKEN_COMMAND_DRAIN, TOKEN_COMMAND_STDERR_BYTES_MAX};
use crate::process::{ProcessGroup, set_environment};
use crate::secret::SecretString;

/// Why a program brought no output. The text is for an operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// There is no such program, or it may not be run.
    #[error("the token command cannot be started: {0}")]
    NotThere(io::Error),
    /// The system refuses for now.
    #[error("the token command cannot be run: {0}")]
    System(io::Error),
    /// It was killed.
    #[error("the token command did not end within {} and was killed", crate::span::Span(*.0))]
    TimedOut(Duration),
    /// It says itself that it failed.
    #[error("the token command ended with {status}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it printed before.
        output: SecretString,
        /// What it wrote to its standard error, as it is.
        complaint: Vec<u8>,
    },
}

/// Runs `program` and reads up to `output_max` bytes of its output, and one more by which it can be told that there were more.
/// What it wrote counts if it ends well within `limit`; else it is killed, with all that it has started. So it is if the
/// future is dropped.
pub(super) async fn run(
    program: &str,
    arguments: &[String],
    env: &Variables,
    output_max: usize,
    limit: Duration,
) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let mut command = Command::new(program);
    set_environment(&mut command, env.iter());
    let child = command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group, so that what it starts can be killed with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => CommandError::NotThere(error),
        _ => CommandError::System(error),
    })?;
    match timeout(limit, listen(child, output_max)).await {
        Err(_) => Err(CommandError::TimedOut(limit)),
        Ok(Err(error)) => Err(CommandError::System(error)),
        Ok(Ok((status, output, _))) if status.success() => Ok(output),
        Ok(Ok((status, output, complaint))) => Err(CommandError::Failed {
            status,
            output: String::from_utf8_lossy(&output).into_owned().into(),
            complaint,
        }),
    }
}

/// How a program ended, what it said and what it complained of.
type Heard = (ExitStatus, Zeroizing<Vec<u8>>, Vec<u8>);

async fn listen(mut child: Child, output_max: usize) -> io::Result<Heard> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // IMPORTANT: dropped before `child`, which would free the id that names the group.
    let group = ProcessGroup::of(&child);
    let (mut output, mut complaint) = (Zeroizing::new(Vec::new()), Vec::new());
    let status = {
        let reading = async {
            tokio::join!(
                fill(&mut output, stdout, output_max.saturating_add(1)),
                fill(&mut complaint, stderr, TOKEN_COMMAND_STDERR_BYTES_MAX),
            );
        };
        match select(pin!(child.wait()), pin!(reading)).await {
            Either::Left((status, reading)) => {
                // Whatever it started and left running, an agent, may hold its output open for ever.
                let _ = timeout(TOKEN_COMMAND_DRAIN, reading).await;
                status?
            }
            Either::Right(((), ending)) => ending.await?,
        }
    };
    group.leave();
    Ok((status, output, complaint))
}

/// Reads all that comes, for the writer must not be blocked; what is over `bytes_max` is thrown away.
async fn fill(kept: &mut Vec<u8>, from: Option<impl AsyncRead + Unpin>, bytes_max: usize) {
    let Some(mut from) = from else { return };
    let mut buffer = Zeroizing::new([0; 1024]);
    while let Ok(count @ 1..) = from.read(buffer.as_mut_slice()).await {
        let room = bytes_max.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(count.min(room)));
    }
}
