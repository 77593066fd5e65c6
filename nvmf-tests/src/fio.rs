//! fio jobs in a guest: written as job files, run with JSON output, checked.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::guest::{Running, Shell};
use crate::process::tail;

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
    guest.spawn(&format!("fio --output-format=json {path}"))
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
