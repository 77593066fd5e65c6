//! Running commands in a guest.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::link::{Link, Output, Running};
use crate::process::{tail, wait_until};

/// How long a command may take when the caller did not say: enough for anything short on a slow emulated machine.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// Runs commands in one guest. A copy does not keep the guest alive.
#[derive(Clone, Debug)]
pub struct Shell {
    link: Arc<Link>,
}

impl Shell {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    /// Runs a shell command; its failure is in the result, only a broken guest or a missed deadline is an error.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_within(COMMAND_DEADLINE, command)
    }

    /// As [`run`](Self::run) with a deadline of its own, after which the command is killed.
    pub fn run_within(&self, deadline: Duration, command: &str) -> Result<Output> {
        let running = self.spawn(command)?;
        // A tool that asks something must not wait for an answer that never comes.
        running.close_stdin()?;
        running.wait(deadline)
    }

    /// Runs a command that must succeed and returns what it printed.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.ok_within(COMMAND_DEADLINE, command)
    }

    /// As [`ok`](Self::ok) with a deadline of its own.
    pub fn ok_within(&self, deadline: Duration, command: &str) -> Result<String> {
        let output = self.run_within(deadline, command)?;
        if output.code != 0 {
            bail!(
                "in the guest, `{command}` failed with {}:\n{}\n{}",
                output.code,
                tail(&output.stderr, 20),
                tail(&output.stdout, 20)
            );
        }
        Ok(output.stdout)
    }

    /// Runs a command that must succeed and print JSON.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.ok(command)?;
        serde_json::from_str(&text)
            .with_context(|| format!("`{command}` printed no JSON:\n{}", tail(&text, 20)))
    }

    /// Starts a command and returns while it runs.
    pub fn spawn(&self, command: &str) -> Result<Running> {
        Link::start(&self.link, command)
    }

    /// Writes a file in the guest; its folder must exist.
    pub fn write_file(&self, path: &str, content: &[u8]) -> Result<()> {
        let command = self.spawn(&format!("cat > '{path}'"))?;
        command.write_stdin(content)?;
        command.close_stdin()?;
        let output = command.wait(COMMAND_DEADLINE)?;
        if output.code != 0 {
            bail!("write {path} in the guest: {}", output.stderr.trim());
        }
        Ok(())
    }

    /// Waits until a command succeeds and returns what it printed then.
    pub fn eventually(&self, deadline: Duration, command: &str) -> Result<String> {
        let mut last = None;
        wait_until(&format!("`{command}` to succeed in the guest"), deadline, || {
            let output = self.run(command)?;
            let done = (output.code == 0).then(|| output.stdout.clone());
            last = Some(output);
            Ok(done)
        })
        .map_err(|error| match last {
            Some(output) => {
                anyhow!("{error}; last it said: {} {}", output.stdout.trim(), output.stderr.trim())
            }
            None => error,
        })
    }

    /// Whether the agent can still be reached.
    pub fn is_alive(&self) -> bool {
        self.link.is_alive()
    }
}
