//! The store on a file, with no fabric, and fio's `io_uring` with `O_DIRECT` on the same file, in turns.
//!
//! Our overwrites are durable when they are acknowledged, so fio's are too (`sync=dsync`); its figure without that is
//! shown beside it and proves nothing. fio reads and writes as many bytes as the volume has, in the part of the file
//! where the store keeps data and nothing else, so that the store's own structures stay whole.

use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Effort;
use super::example::Example;
use super::figures::{at_least, median, no_bar};
use crate::paths::RunDir;
use crate::prepare::say;
use crate::process::{run as run_program, tied};
use crate::table::Table;

/// Against fio.
const FIO_BAR: f64 = 0.9;
/// First writes against overwrites.
const FIRST_BAR: f64 = 0.7;

struct Scale {
    file_mib: u64,
    volume_mib: u64,
    rounds: u32,
    seconds: u64,
}

impl Scale {
    fn of(effort: Effort) -> Scale {
        match effort {
            Effort::Full => Scale { file_mib: 2048, volume_mib: 768, rounds: 5, seconds: 2 },
            Effort::Tiny => Scale { file_mib: 64, volume_mib: 16, rounds: 1, seconds: 1 },
        }
    }

    fn volume_blocks(&self) -> u64 {
        self.volume_mib * 256
    }
}

struct Measured {
    ours: Vec<f64>,
    fio: Vec<f64>,
    fio_plain: Vec<f64>,
}

/// Random reads and overwrites against fio, and first writes against overwrites.
pub fn run(effort: Effort) -> Result<Table> {
    let scale = Scale::of(effort);
    let store = Example::build("store_bench", effort)?;
    let folder = RunDir::new("store")?;
    let file = folder.join("disk").display().to_string();
    let prepare = format!("prepare {file} {} {}", scale.file_mib << 20, scale.volume_blocks());
    say(&format!("store: {}", store.output(None, &prepare)?.join(" ")));
    let mut table =
        Table::new(&["4 KiB, random", "depth", "ours", "other", "ratio", "bar", "", "other is"]);
    for depth in [1, 32] {
        for kind in ["read", "overwrite"] {
            say(&format!("store: {kind} at depth {depth}"));
            let measured = against_fio(&store, &file, &scale, kind, depth)?;
            let name = if kind == "read" { "fio" } else { "fio, sync=dsync" };
            table.row(row(kind, depth, &measured.ours, &measured.fio, Some(FIO_BAR), name));
            if kind == "overwrite" {
                let fio = &measured.fio_plain;
                table.row(row(kind, depth, &measured.ours, fio, None, "fio, not durable"));
            }
        }
        say(&format!("store: first write at depth {depth}"));
        let (first, again) = first_writes(&store, &file, &scale, depth)?;
        let other = "ours, overwrite of the same";
        table.row(row("first write", depth, &first, &again, Some(FIRST_BAR), other));
    }
    Ok(table)
}

fn against_fio(
    store: &Example,
    file: &str,
    scale: &Scale,
    kind: &str,
    depth: u32,
) -> Result<Measured> {
    let mut measured = Measured { ours: Vec::new(), fio: Vec::new(), fio_plain: Vec::new() };
    for _ in 0..scale.rounds {
        let words = format!("{kind} {file} {depth} {}", scale.seconds);
        let [ours] = store.figures(None, &words)?;
        measured.ours.push(ours);
        if kind == "read" {
            measured.fio.push(fio(file, scale, "rw=randread", depth)?);
        } else {
            measured.fio.push(fio(file, scale, "rw=randwrite --sync=dsync", depth)?);
            measured.fio_plain.push(fio(file, scale, "rw=randwrite", depth)?);
        }
    }
    Ok(measured)
}

fn first_writes(
    store: &Example,
    file: &str,
    scale: &Scale,
    depth: u32,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut both = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let words = format!("first {file} {} {depth} {}", scale.volume_blocks(), scale.seconds);
        let [first, again] = store.figures(None, &words)?;
        both.0.push(first);
        both.1.push(again);
    }
    Ok(both)
}

/// I/O per second of one job.
fn fio(file: &str, scale: &Scale, options: &str, depth: u32) -> Result<f64> {
    // The metadata of a store lies in the first tenth of its disk.
    let offset = scale.file_mib / 4;
    let words = format!(
        "--name=x --filename={file} --allow_file_create=0 --ioengine=io_uring --direct=1 --bs=4k --offset={offset}m \
         --size={}m --iodepth={depth} --time_based --runtime={} --output-format=json --{options}",
        scale.volume_mib, scale.seconds
    );
    let mut command = tied("fio");
    command.args(words.split_whitespace()).stdin(Stdio::null());
    let output = run_program(&mut command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let start = text.find('{').context("fio printed no JSON")?;
    let report: Value = serde_json::from_str(&text[start..]).context("read fio's JSON")?;
    let iops = |kind: &str| report["jobs"][0][kind]["iops"].as_f64().unwrap_or(0.0);
    Ok(iops("read") + iops("write"))
}

fn row(
    kind: &str,
    depth: u32,
    ours: &[f64],
    other: &[f64],
    bar: Option<f64>,
    name: &str,
) -> Vec<String> {
    let (ours, other) = (median(ours.iter().copied()), median(other.iter().copied()));
    let ratio = ours / other;
    let mut cells = vec![
        kind.to_owned(),
        depth.to_string(),
        format!("{ours:.0}"),
        format!("{other:.0}"),
        format!("{ratio:.2}"),
    ];
    cells.extend(bar.map_or_else(no_bar, |bar| at_least(ratio, bar)));
    cells.push(name.to_owned());
    cells
}
