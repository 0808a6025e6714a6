//! The hook that is a program: started without a shell, given the event on its standard input, killed if it takes too long.

use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::event::Event;
use crate::config::Variables;
use crate::limits::{HOOK_COMMAND_TIMEOUT, HOOK_OUTPUT_BYTES_MAX};
use crate::process::{ProcessGroup, set_environment};

/// Runs the program for one event. How that ends is logged.
pub(super) async fn run(program: &str, arguments: &[String], env: &Variables, event: &Event, body: &[u8]) {
    let account = event.account();
    let mut command = Command::new(program);
    set_environment(&mut command, env.iter());
    let child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group, so that what it starts can be killed with it.
        .process_group(0)
        // Also where the time is over, or the program stops: the future that holds it is dropped then.
        .kill_on_drop(true)
        .spawn();
    let child = match child {
        Ok(child) => child,
        Err(error) => return tracing::warn!(account, program, %error, "the hook's command cannot be started"),
    };
    let group = ProcessGroup::of(&child);
    let ended = timeout(HOOK_COMMAND_TIMEOUT, talk(child, body)).await;
    if let Ok(Ok(_)) = ended {
        group.leave();
    }
    match ended {
        Err(_) => tracing::warn!(account, program, "the hook's command did not end in time and is killed"),
        Ok(Err(error)) => tracing::warn!(account, program, %error, "the hook's command cannot be waited for"),
        Ok(Ok((status, output))) if status.success() => {
            tracing::debug!(
                account,
                program,
                output,
                event = event.event,
                "the hook's command has run"
            );
        }
        Ok(Ok((status, output))) => {
            tracing::warn!(account, program, %status, output, "the hook's command failed");
        }
    }
}

/// Gives the program its input, reads what it says and waits for its end.
async fn talk(mut child: Child, body: &[u8]) -> std::io::Result<(std::process::ExitStatus, String)> {
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let give = async {
        if let Some(mut input) = input {
            // A program may well end without having read what it was told.
            let _ = input.write_all(body).await;
            let _ = input.write_all(b"\n").await;
        }
    };
    let ((), output, errors, status) = tokio::join!(give, read(output), read(errors), child.wait());
    Ok((status?, clean(&[output, errors].concat())))
}

/// All that comes, for the writer must not be blocked; what is over the limit is thrown away.
async fn read(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut from) = from else { return kept };
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let room = HOOK_OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(count.min(room)));
    }
    kept
}

/// What a program said, fit for one log line.
fn clean(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_one_line_of_a_log() {
        assert_eq!(clean(b" evil\r\n\x1b[2J\xff \n"), "evil   [2J\u{fffd}");
    }
}
