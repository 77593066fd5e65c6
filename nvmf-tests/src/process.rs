//! Child processes that cannot outlive us, and waiting with a deadline.
//!
//! Everything the lab starts (QEMU, daemons) goes through [`spawn`]: the kernel kills the child when our process ends in
//! any way, `kill -9` included. That signal is tied to the *thread* that forked, so one thread that lives as long as
//! the process does all the forking; tests, each on a thread of its own, may then share a guest.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

type Order = (Command, SyncSender<io::Result<Child>>);

/// A command that will be killed with us. Add arguments, then call [`spawn`].
pub fn tied(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts a command made by [`tied`].
pub fn spawn(command: Command) -> Result<Tied> {
    static FORKER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let forker = FORKER.get_or_init(|| {
        let (orders, inbox) = mpsc::sync_channel::<Order>(0);
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let what = format!("{command:?}");
    let (answer, result) = mpsc::sync_channel(1);
    forker.send((command, answer)).ok().context("the forking thread is gone")?;
    let child = result
        .recv()
        .context("the forking thread is gone")?
        .with_context(|| format!("start {what}"))?;
    Ok(Tied { child })
}

/// A running child, killed and reaped when dropped.
#[derive(Debug)]
pub struct Tied {
    child: Child,
}

impl Tied {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for its own end at most `deadline`.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(rustix::process::Signal::TERM)?;
        wait_until("the process to end after SIGTERM", deadline, || Ok(self.child.try_wait()?))
    }

    /// Sends a signal; the process may have ended, but it has not been reaped.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .context("process id")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Its standard output, when it was piped and not taken before.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard input, when it was piped and not taken before; dropping it ends the child's input.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits for the end without a deadline, for programs that a person talks to.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Asks `probe` again and again until it has a value, at most for `deadline`. An error of `probe` ends the wait.
pub fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() > deadline {
            bail!("waited {:.1} s for {what}", deadline.as_secs_f32());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a short helper program to its end and returns what it printed; a failure carries the end of its stderr.
pub fn run(command: &mut Command) -> Result<Output> {
    let what = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {what}"))?;
    if !output.status.success() {
        bail!(
            "{what} failed ({}): {}",
            output.status,
            tail(&String::from_utf8_lossy(&output.stderr), 5)
        );
    }
    Ok(output)
}

/// The last `lines` lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn child_outlives_the_thread_that_asked_for_it_and_dies_on_drop() {
        let mut child = thread::spawn(|| {
            let mut command = tied("sleep");
            command.arg("60");
            spawn(command).unwrap()
        })
        .join()
        .unwrap();
        assert!(child.ended().unwrap().is_none());
        let pid = child.id();
        drop(child);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let error =
            wait_until::<()>("nothing", Duration::from_millis(50), || Ok(None)).unwrap_err();
        assert!(error.to_string().contains("nothing"));
    }
}
