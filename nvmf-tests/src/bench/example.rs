//! Example programs of this workspace that measure from within: built when they are needed, run, their figures read.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Effort;
use crate::paths;
use crate::process::{run, tied};

/// A built example.
#[derive(Clone, Debug)]
pub struct Example {
    program: PathBuf,
}

impl Example {
    /// Builds an example: with optimisations for a full run.
    pub fn build(name: &str, effort: Effort) -> Result<Example> {
        let lab = paths::built("lab")?;
        let output = lab.parent().and_then(|debug| debug.parent()).context("the build folder")?;
        let mut cargo = Command::new("cargo");
        // As part of the workspace it is the one that was built with all tests; its package alone would be built anew.
        cargo.args(["build", "--quiet", "--workspace", "--example", name]);
        cargo.env("CARGO_TARGET_DIR", output).current_dir(paths::workspace());
        let profile = if effort == Effort::Full {
            cargo.arg("--release");
            "release"
        } else {
            "debug"
        };
        if !cargo.stdin(Stdio::null()).status().context("start cargo")?.success() {
            bail!("the example `{name}` does not build");
        }
        Ok(Example { program: output.join(profile).join("examples").join(name) })
    }

    /// A command that runs it, on processor `core` only when one is given, killed with us.
    pub fn command(&self, core: Option<usize>, words: &str) -> Command {
        let mut command = match core {
            Some(core) => {
                let mut command = tied("taskset");
                command.arg("--cpu-list").arg(core.to_string()).arg(&self.program);
                command
            }
            None => tied(&self.program),
        };
        command.args(words.split_whitespace());
        command
    }

    /// Runs it to its end; the words that it printed.
    pub fn output(&self, core: Option<usize>, words: &str) -> Result<Vec<String>> {
        let output = run(&mut self.command(core, words)).with_context(|| words.to_owned())?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Runs it to its end; the numbers that it printed, which must be `N`.
    pub fn figures<const N: usize>(&self, core: Option<usize>, words: &str) -> Result<[f64; N]> {
        let printed = self.output(core, words)?;
        let numbers: Vec<f64> = printed.iter().filter_map(|word| word.parse().ok()).collect();
        numbers
            .try_into()
            .ok()
            .with_context(|| format!("`{words}` printed {printed:?} instead of {N} numbers"))
    }
}
