//! A program in a guest that is started, killed, frozen and started again.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Running, Shell};
use crate::process::wait_until;

const READY_DEADLINE: Duration = Duration::from_secs(120);
const END_DEADLINE: Duration = Duration::from_secs(60);

/// See the module. Dropping it kills the process.
#[derive(Debug)]
pub struct Program {
    shell: Shell,
    name: String,
    command: String,
    /// Where it answers `/healthz`.
    faces: Vec<u16>,
    process: Option<Running>,
    past_log: String,
}

impl Program {
    /// One that is not started yet. The words of `command` end in the same process becoming the program (`exec …`). It is well
    /// when `/healthz` says so on all these ports of the guest's loopback.
    pub fn new(shell: &Shell, name: &str, command: &str, faces: &[u16]) -> Self {
        Self {
            shell: shell.clone(),
            name: name.to_owned(),
            // The process keeps the id that the shell tells in its first line.
            command: format!("echo $$; {command} 2>&1"),
            faces: faces.to_vec(),
            process: None,
            past_log: String::new(),
        }
    }

    /// What a person calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command that starts it, for a person.
    pub fn command_line(&self) -> &str {
        let command = self.command.split_once("exec ").map_or("", |(_, command)| command);
        command.trim_end_matches(" 2>&1")
    }

    /// Starts it and waits until it is well.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready()
    }

    /// Starts it, and does not wait.
    pub fn launch(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("{} is still running", self.name);
        }
        self.process = Some(self.shell.spawn(&self.command)?);
        Ok(())
    }

    /// Waits until it is well. One that ended before does not run any more.
    pub fn ready(&mut self) -> Result<()> {
        let healthy = healthy(&self.faces);
        let waited = wait_until("a program in the guest to be ready", READY_DEADLINE, || {
            if let Some(code) = self.ended() {
                bail!("it ended with {code}: {}", self.log_of_this_life());
            }
            Ok((self.shell.run(&healthy)?.code == 0).then_some(()))
        });
        if waited.is_err() {
            self.process = None;
        }
        waited.with_context(|| format!("start in the guest: {}", self.command_line()))
    }

    /// `kill -9`, and the end of the process.
    pub fn kill(&mut self) -> Result<()> {
        let not_running = || format!("{} is not running", self.name);
        let mut process = self.process.take().with_context(not_running)?;
        process.kill()?;
        self.end_of(&mut process).map(drop)
    }

    /// The exit code of a process that is about to end; its log stays.
    fn end_of(&mut self, process: &mut Running) -> Result<i32> {
        let ended = wait_until("a program in the guest to end", END_DEADLINE, || {
            if !self.shell.is_alive() {
                bail!("the guest is gone");
            }
            Ok(process.ended())
        });
        self.past_log += &process.stdout();
        ended
    }

    /// SIGTERM, and its clean end.
    pub fn stop(&mut self) -> Result<()> {
        self.shell.ok(&format!("kill -TERM {}", self.pid()?))?;
        let not_running = || format!("{} is not running", self.name);
        let mut process = self.process.take().with_context(not_running)?;
        let code = self.end_of(&mut process)?;
        ensure!(code == 0, "{} ended with {code}", self.name);
        Ok(())
    }

    /// SIGSTOP.
    pub fn freeze(&self) -> Result<()> {
        self.shell.ok(&format!("kill -STOP {}", self.pid()?)).map(drop)
    }

    /// SIGCONT.
    pub fn go_on(&self) -> Result<()> {
        self.shell.ok(&format!("kill -CONT {}", self.pid()?)).map(drop)
    }

    /// Its process id in the guest.
    pub fn pid(&self) -> Result<u32> {
        let process =
            self.process.as_ref().with_context(|| format!("{} is not running", self.name))?;
        let first =
            process.first_line().with_context(|| format!("{} told no process id", self.name))?;
        first.parse().with_context(|| format!("process id `{first}`"))
    }

    /// The exit code, when it ended by itself.
    pub fn ended(&mut self) -> Option<i32> {
        self.process.as_mut().and_then(Running::ended)
    }

    /// All that it has printed, in all its lives.
    pub fn log(&mut self) -> String {
        let now = self.log_of_this_life();
        format!("{}{now}", self.past_log)
    }

    /// What it has printed since it was last started; nothing while it does not run.
    pub fn log_of_this_life(&mut self) -> String {
        self.process.as_mut().map(Running::stdout).unwrap_or_default()
    }
}

/// Asks from within, for a second at most and by bash alone: in an emulated guest each process costs a tenth of a second of what
/// the program needs to start.
fn healthy(faces: &[u16]) -> String {
    let ports: Vec<String> = faces.iter().map(u16::to_string).collect();
    format!(
        "exec 2> /dev/null 4<> <(:)
well() {{
  exec 3<> /dev/tcp/127.0.0.1/$1 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r answer <&3 && [[ $answer = *' 200 '* ]]
}}
SECONDS=0
for port in {}; do
  until well $port; do [ $SECONDS -lt 1 ] || exit 1; read -t 0.1 <&4; done
done",
        ports.join(" ")
    )
}

impl Drop for Program {
    /// Waits for the end, so that the next one finds its ports free.
    fn drop(&mut self) {
        if self.process.is_some() && self.shell.is_alive() {
            let _ = self.kill();
        }
    }
}
