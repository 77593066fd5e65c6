//! Start-up after a crash, by the size of the disk: time, and memory that stays.
//!
//! The disk is a sparse file whose chunk table and journal the store itself has written: one volume owns every chunk,
//! and the journal is as full as it gets before a checkpoint begins. Only the data is missing, which no start reads.

use anyhow::{Result, ensure};

use super::Effort;
use super::example::Example;
use super::figures::{at_most, median};
use crate::paths::RunDir;
use crate::prepare::say;
use crate::table::Table;

const SECONDS_PER_TIB: f64 = 5.0;
const MIB_PER_TIB: f64 = 192.0;
const MIB: f64 = 1_048_576.0;

/// Seconds and MiB of memory per TiB of disk.
pub fn run(effort: Effort) -> Result<Table> {
    let (gib, rounds) = if effort == Effort::Full { (1024_u32, 3) } else { (4, 1) };
    let example = Example::build("start_bench", effort)?;
    let folder = RunDir::new("start")?;
    let file = folder.join("disk").display().to_string();
    say(&format!("start: writing the chunk table of {gib} GiB"));
    let [chunks, owned] =
        example.figures(None, &format!("fill {file} {}", u64::from(gib) << 30))?;
    let (mut seconds, mut kept, mut most) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = [0.0; 2];
    for round in 0..rounds {
        // Recovery sets the disk right, so each round but the first needs a disk that crashed anew.
        if round > 0 {
            example.figures::<2>(None, &format!("fill {file} {}", u64::from(gib) << 30))?;
        }
        say(&format!("start: opening it, round {} of {rounds}", round + 1));
        let [took, grown, peak, table, journal, found] =
            example.figures(None, &format!("open {file}"))?;
        ensure!((found - owned).abs() < 0.5, "{owned} chunks were owned, {found} are now");
        seconds.push(took);
        kept.push(grown / MIB);
        most.push(peak / MIB);
        read = [table / MIB, journal / MIB];
    }
    let tib = f64::from(gib) / 1024.0;
    let mut table = Table::new(&["after a crash, per TiB", "ours", "bar", "", "measured on"]);
    let what = format!(
        "{gib} GiB, {:.0} % of {chunks:.0} chunks owned, {:.0} MiB of table and {:.0} MiB of journal read",
        100.0 * owned / chunks,
        read[0],
        read[1]
    );
    let mut row = |name: &str, figure: f64, bar: f64, digits: usize| {
        let mut cells = vec![name.to_owned(), format!("{figure:.digits$}")];
        cells.extend(at_most(figure, bar));
        cells.push(what.clone());
        table.row(cells);
    };
    row("seconds until it serves", median(seconds) / tib, SECONDS_PER_TIB, 2);
    row("MiB of memory that stay", median(kept) / tib, MIB_PER_TIB, 1);
    row("MiB of memory at most, while it opens", median(most) / tib, MIB_PER_TIB, 1);
    Ok(table)
}
