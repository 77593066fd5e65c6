//! fio jobs in a guest: written as job files, run with JSON output, checked.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::guest::{Running, Shell};
use crate::process::{tail, wait_until};

/// Before each fio. A stock host sends on a connection in the name of the process that submits, without `MSG_NOSIGNAL`: one that
/// writes just when a node was killed may get a SIGPIPE ("nvme nvme0: failed to send request -32"), although its I/O goes on by
/// another path or later. Programs that write to disks and sockets alike ignore that signal; fio does not.
const NO_SIGPIPE: &str = "trap '' PIPE";

/// One job of a job file.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name in the result.
    pub name: String,
    /// fio options, one `key=value` each.
    pub options: Vec<String>,
}

impl Job {
    /// A job with options separated by blanks.
    pub fn new(name: impl Into<String>, options: &str) -> Self {
        Self { name: name.into(), options: options.split_whitespace().map(str::to_owned).collect() }
    }

    /// A job that writes and then checks what it wrote with CRC32C.
    pub fn verified(name: impl Into<String>, options: &str) -> Self {
        Self::new(
            name,
            &format!("{options} verify=crc32c verify_fatal=1 do_verify=1 verify_backlog=0"),
        )
    }
}

/// What fio measured in one job.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The job's name.
    pub name: String,
    /// Reads per second.
    pub read_iops: f64,
    /// Writes per second.
    pub write_iops: f64,
    /// Reads done.
    pub reads: u64,
    /// Writes done.
    pub writes: u64,
}

/// Runs jobs one after the other against a device.
pub fn run(guest: &Shell, device: &str, jobs: &[Job], deadline: Duration) -> Result<Vec<Measured>> {
    finish(start(guest, device, jobs)?, deadline)
}

/// Starts the jobs in the background; [`finish`] waits for them.
pub fn start(guest: &Shell, device: &str, jobs: &[Job]) -> Result<Running> {
    let mut file = format!(
        "[global]\nfilename={device}\ndirect=1\nioengine=libaio\nstonewall\ngroup_reporting\n"
    );
    for job in jobs {
        let _ = write!(file, "[{}]\n{}\n", job.name, job.options.join("\n"));
    }
    let path = format!("/tmp/jobs-{}.fio", device.rsplit('/').next().unwrap_or("device"));
    guest.write_file(&path, file.as_bytes())?;
    guest.spawn(&format!("{NO_SIGPIPE}; fio --output-format=json {path}"))
}

/// Waits for jobs and checks that none met an error or a wrong byte.
pub fn finish(running: Running, deadline: Duration) -> Result<Vec<Measured>> {
    let output = running.wait(deadline)?;
    if output.code != 0 {
        bail!(
            "fio failed with {}:\n{}\n{}",
            output.code,
            tail(&output.stderr, 15),
            tail(&output.stdout, 10)
        );
    }
    // fio may put remarks before its JSON.
    let start = output.stdout.find('{').context("fio printed no JSON")?;
    let report: Value = serde_json::from_str(&output.stdout[start..]).context("read fio's JSON")?;
    report["jobs"].as_array().context("fio's report has no jobs")?.iter().map(measured).collect()
}

/// Verified rounds of a job, one after the other until they are told to stop: load for as long as a test needs.
#[derive(Debug)]
pub struct Rounds {
    running: Running,
    shell: Shell,
    stop: String,
}

impl Rounds {
    /// Starts the first round.
    pub fn start(guest: &Shell, device: &str, options: &str) -> Result<Self> {
        let name = device.rsplit('/').next().unwrap_or("device");
        let (path, stop) = (format!("/tmp/rounds-{name}.fio"), format!("/tmp/rounds-{name}.stop"));
        let job = Job::verified("round", options);
        let file = format!(
            "[{}]\nfilename={device}\ndirect=1\nioengine=libaio\nrandseed=${{ROUND}}\n{}\n",
            job.name,
            job.options.join("\n")
        );
        guest.write_file(&path, file.as_bytes())?;
        // Each round has its own bytes, so that an old one is never taken for the new.
        let command = format!(
            "{NO_SIGPIPE}; rm -f {stop}; for n in $(seq 100000); do ROUND=$n fio --output=/tmp/rounds-{name}.log {path} 2>&1 || \
             {{ cat /tmp/rounds-{name}.log; exit 1; }}; echo round $n; [ ! -e {stop} ] || exit 0; done"
        );
        Ok(Self { running: guest.spawn(&command)?, shell: guest.clone(), stop })
    }

    /// How many rounds have been written and read back.
    pub fn done(&mut self) -> Result<usize> {
        if let Some(code) = self.running.ended() {
            bail!("fio ended with {code}:\n{}", tail(&self.running.stdout(), 15));
        }
        Ok(self.running.stdout().lines().filter(|line| line.starts_with("round ")).count())
    }

    /// Waits until `more` rounds more have begun and ended.
    pub fn go_on(&mut self, more: usize, deadline: Duration) -> Result<()> {
        // The round at hand began before whatever the caller did.
        let goal = self.done()? + more + 1;
        wait_until("rounds of verified I/O", deadline, || Ok((self.done()? >= goal).then_some(())))
    }

    /// Lets the round at hand end, and checks that none met an error or a wrong byte.
    pub fn finish(self, deadline: Duration) -> Result<()> {
        self.shell.ok(&format!("touch {}", self.stop))?;
        let output = self.running.wait(deadline)?;
        if output.code != 0 {
            bail!("fio failed with {}:\n{}", output.code, tail(&output.stdout, 15));
        }
        Ok(())
    }
}

fn measured(job: &Value) -> Result<Measured> {
    let name = job["jobname"].as_str().unwrap_or("?").to_owned();
    if job["error"].as_i64() != Some(0) {
        bail!("fio job {name} ended with error {}", job["error"]);
    }
    let number = |direction: &str, key: &str| job[direction][key].as_f64().unwrap_or(0.0);
    let count = |direction: &str| job[direction]["total_ios"].as_u64().unwrap_or(0);
    Ok(Measured {
        read_iops: number("read", "iops"),
        write_iops: number("write", "iops"),
        reads: count("read"),
        writes: count("write"),
        name,
    })
}
