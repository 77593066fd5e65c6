//! The conductor's command line, as a user would type it, with its JSON.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::paths;
use crate::process::run;

/// `conductor --api http://… --output json`.
#[derive(Clone, Debug)]
pub struct Conductor {
    program: PathBuf,
    apis: String,
}

impl Conductor {
    /// The command line for the API at `api`.
    pub fn new(api: SocketAddr) -> Result<Self> {
        Self::of_several(&[api])
    }

    /// The command line for several conductors, of which one is active.
    pub fn of_several(apis: &[SocketAddr]) -> Result<Self> {
        let apis: Vec<String> = apis.iter().map(|api| format!("http://{api}")).collect();
        Ok(Self { program: paths::built("conductor")?, apis: apis.join(",") })
    }

    /// Runs one command and returns what a person would see.
    pub fn text(&self, words: &str) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["--api", &self.apis]).args(words.split_whitespace());
        let output = run(&mut command).with_context(|| format!("conductor {words}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs one command, words separated by blanks, and returns the JSON that it prints (null for none).
    pub fn call(&self, words: &str) -> Result<Value> {
        let mut command = Command::new(&self.program);
        command.args(["--api", &self.apis, "--output", "json"]);
        command.args(words.split_whitespace());
        let output = run(&mut command).with_context(|| format!("conductor {words}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .with_context(|| format!("conductor {words} printed no JSON: {text}"))
    }

    /// A subsystem for any host, with a namespace 1 of a new volume.
    pub fn export(&self, volume: &str, size: &str, nqn: &str) -> Result<()> {
        self.export_with(volume, size, "", nqn)
    }

    /// The same, the volume made with further options.
    pub fn export_with(&self, volume: &str, size: &str, options: &str, nqn: &str) -> Result<()> {
        self.call(&format!("volume create {volume} --size {size} {options}"))?;
        self.call(&format!("subsystem create {nqn}"))?;
        self.call(&format!("host allow {nqn} any"))?;
        self.call(&format!("namespace add {nqn} --volume {volume} --nsid 1"))?;
        Ok(())
    }

    /// Bytes that a volume takes on its disk, as its node last reported.
    pub fn allocated_bytes(&self, volume: &str) -> Result<u64> {
        let shown = self.call(&format!("volume show {volume}"))?;
        shown["allocated_bytes"].as_u64().with_context(|| format!("no allocated_bytes in {shown}"))
    }

    /// Bytes free on all disks together, as the nodes last reported.
    pub fn free_bytes(&self) -> Result<u64> {
        let disks = self.call("disk list")?;
        let list =
            disks.as_array().or_else(|| disks["disks"].as_array()).context("no list of disks")?;
        if list.is_empty() {
            bail!("the conductor knows no disk");
        }
        list.iter()
            .map(|disk| disk["free_bytes"].as_u64().context("a disk without free_bytes"))
            .sum()
    }
}
