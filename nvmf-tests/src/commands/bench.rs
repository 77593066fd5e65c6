//! `cargo lab bench`: prepares, builds in release mode, measures, and prints a table per benchmark.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::bench::{Effort, named};
use crate::paths;
use crate::prepare::{Consent, Kernel, prepare, say};

/// Runs the benchmarks with these names, all when there are none.
pub fn bench(names: &[String], consent: Consent) -> Result<()> {
    let benches = named(names)?;
    let kernels: Vec<Kernel> = Kernel::ALL
        .into_iter()
        .filter(|kernel| benches.iter().any(|bench| bench.kernels.contains(kernel)))
        .collect();
    prepare(&kernels, consent)?;
    let programs: BTreeSet<&str> =
        benches.iter().flat_map(|bench| bench.programs).copied().collect();
    if !programs.is_empty() {
        say("building with optimisations (some minutes the first time)");
        let mut cargo = Command::new("cargo");
        cargo
            .args(["build", "--release"])
            .args(programs.iter().flat_map(|program| ["--bin", program]));
        if !cargo.current_dir(paths::workspace()).status().context("start cargo")?.success() {
            bail!("the release build failed");
        }
    }
    for bench in benches {
        say(&format!("{}: {}", bench.name, bench.about));
        println!("\n{}: {}\n\n{}", bench.name, bench.about, (bench.run)(Effort::Full)?);
    }
    Ok(())
}
