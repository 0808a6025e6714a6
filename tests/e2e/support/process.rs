//! Child processes that never outlive their test and whose output is at hand when a test fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use super::{PATIENCE, project_file};

/// A running child. Dropping it ends the process and reaps it.
pub struct Process {
    name: String,
    child: Child,
    on_drop: OnDrop,
    stdout: Arc<Output>,
    stderr: Arc<Output>,
}

impl Process {
    /// Starts `command` with its output captured; killed with SIGKILL when dropped.
    ///
    /// Its standard input is a pipe that closes with this value, or when the test itself is killed.
    pub fn spawn(name: &str, command: &mut Command) -> Process {
        Process::spawn_with(name, command, OnDrop::Kill)
    }

    /// Starts a daemon with children of its own, which therefore must be asked to end: SIGTERM when
    /// dropped, and also when the test is killed.
    pub fn spawn_leashed(name: &str, command: &Command) -> Process {
        let mut leash = Command::new(project_file("tests/testbed/leash"));
        leash.arg(command.get_program()).args(command.get_args());
        Process::spawn_with(name, &mut leash, OnDrop::Terminate)
    }

    /// Starts what ends in good order when its standard input does: with this value, or when the
    /// test is killed. Works for a process of another user too, who cannot be signalled.
    pub fn spawn_ending_with_stdin(name: &str, command: &mut Command) -> Process {
        Process::spawn_with(name, command, OnDrop::CloseInput)
    }

    fn spawn_with(name: &str, command: &mut Command, on_drop: OnDrop) -> Process {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {command:?}: {error}"));
        let stdout = Output::capture(child.stdout.take().expect("stdout is piped"));
        let stderr = Output::capture(child.stderr.take().expect("stderr is piped"));
        Process {
            name: name.to_owned(),
            child,
            on_drop,
            stdout,
            stderr,
        }
    }

    /// The process id, as long as the process has not been waited for.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on standard output that `is_wanted` accepts, among those already written
    /// too. Panics when the process ends or falls silent without one.
    pub async fn stdout_line(&self, is_wanted: impl Fn(&str) -> bool) -> String {
        self.line(&self.stdout, is_wanted).await
    }

    /// As [`Process::stdout_line`], for standard error.
    pub async fn stderr_line(&self, is_wanted: impl Fn(&str) -> bool) -> String {
        self.line(&self.stderr, is_wanted).await
    }

    async fn line(&self, output: &Output, is_wanted: impl Fn(&str) -> bool) -> String {
        match tokio::time::timeout(PATIENCE, output.line(is_wanted)).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("{} ended too soon\n{}", self.name, self.log_tail()),
            Err(_) => panic!("{} did not say it in time\n{}", self.name, self.log_tail()),
        }
    }

    /// Writes a line to standard input; for a process that takes orders there.
    pub fn write_line(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("standard input is open");
        let written = input.write_all(format!("{line}\n").as_bytes());
        if let Err(error) = written {
            panic!("{} takes no orders: {error}\n{}", self.name, self.log_tail());
        }
    }

    /// All of standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// All of standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until both outputs have ended, so that they are whole: soon after the process's own end.
    pub async fn until_output_ends(&self) {
        let ended = async { tokio::join!(self.stdout.line(|_| false), self.stderr.line(|_| false)) };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            panic!("{} leaves its output open\n{}", self.name, self.log_tail());
        }
    }

    /// The last lines of both outputs, for the message of a panic.
    pub fn log_tail(&self) -> String {
        format!(
            "--- {0}, standard output:\n{1}\n--- {0}, standard error:\n{2}",
            self.name,
            tail(&self.stdout()),
            tail(&self.stderr())
        )
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id is positive"), signal)
            .unwrap_or_else(|error| panic!("{} cannot be signalled: {error}", self.name));
    }

    /// Whether the process is still there; one that has ended is reaped by asking.
    pub fn is_running(&mut self) -> bool {
        self.try_wait().is_none()
    }

    /// Waits for the process to end by itself.
    pub async fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.try_wait() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} does not end\n{}",
                self.name,
                self.log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends the process with SIGKILL, as a crash would.
    pub fn kill(&mut self) {
        // An error means that it has ended already, which is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .unwrap_or_else(|error| panic!("{} cannot be waited for: {error}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let is_asked = match self.on_drop {
            OnDrop::Kill => false,
            OnDrop::Terminate => {
                let is_running = self.is_running();
                if is_running {
                    self.signal(Signal::TERM);
                }
                is_running
            }
            OnDrop::CloseInput => self.child.stdin.take().is_some(),
        };
        if is_asked {
            let deadline = Instant::now() + TERMINATION;
            while self.is_running() && Instant::now() < deadline {
                std::thread::sleep(POLL);
            }
        }
        self.kill();
    }
}

/// What ends a process when its guard is dropped.
enum OnDrop {
    Kill,
    Terminate,
    CloseInput,
}

/// The lines of one output stream, collected by a thread that ends with the stream.
struct Output {
    lines: Mutex<Vec<String>>,
    /// How many lines there are, and whether more can come.
    progress: watch::Sender<(usize, bool)>,
}

impl Output {
    fn capture(stream: impl Read + Send + 'static) -> Arc<Output> {
        let output = Arc::new(Output {
            lines: Mutex::new(Vec::new()),
            progress: watch::channel((0, false)).0,
        });
        let sink = Arc::clone(&output);
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                sink.lines.lock().expect("no holder panics").push(text);
                sink.progress.send_modify(|(lines, _)| *lines += 1);
            }
            sink.progress.send_modify(|(_, is_over)| *is_over = true);
        });
        output
    }

    /// The first line that is wanted, or `None` when the stream ends without one.
    async fn line(&self, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
        let mut progress = self.progress.subscribe();
        let mut seen = 0;
        loop {
            let (count, is_over) = *progress.borrow_and_update();
            {
                let lines = self.lines.lock().expect("no holder panics");
                let found = lines.iter().take(count).skip(seen).find(|line| is_wanted(line));
                if let Some(line) = found {
                    return Some(line.clone());
                }
            }
            seen = count;
            if is_over {
                return None;
            }
            progress.changed().await.ok()?;
        }
    }

    fn text(&self) -> String {
        self.lines.lock().expect("no holder panics").join("\n")
    }
}

/// The last lines of a log.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

const TAIL_LINES: usize = 40;
const POLL: Duration = Duration::from_millis(5);
/// How long a daemon may take to end its children before it is killed.
const TERMINATION: Duration = Duration::from_secs(5);
