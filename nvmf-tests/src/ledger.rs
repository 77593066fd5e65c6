//! A writer that says what was acknowledged, and a reader that says what is there.
//!
//! fio can verify what it wrote while it lives; after a power cut the question is different: is every write there whose
//! acknowledgement somebody saw? `lab ledger write` runs in the guest, stamps blocks with a rising number and
//! prints each stamp once the device acknowledged it, and how long that took; the lab outside remembers, cuts the power, and
//! compares with what `lab ledger read` finds after the next boot. [`crate::writers`] looks at the times.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const BLOCK: usize = 4096;
const WORDS: usize = BLOCK / 8;
/// Blocks per read when looking at what is there.
const READ_BLOCKS: usize = 64;

/// Block number to the highest stamp.
pub type Stamps = HashMap<u64, u64>;

/// Writes stamped blocks for ever, `threads` at once, each in a stripe of its own; ends only by an error or a kill.
/// Stamps begin after `from`.
pub fn write(device: &Path, blocks: u64, threads: u64, from: u64) -> Result<()> {
    let file = open(device, true)?;
    thread::scope(|scope| {
        let stripes = (0..threads).map(|thread| {
            let file = &file;
            scope.spawn(move || {
                stamp_stripe(file, thread, blocks / threads * threads, threads, from)
            })
        });
        let stripes: Vec<_> = stripes.collect();
        stripes
            .into_iter()
            .try_for_each(|stripe| stripe.join().unwrap_or_else(|_| bail!("a writer panicked")))
    })
}

fn stamp_stripe(file: &File, thread: u64, blocks: u64, threads: u64, from: u64) -> Result<()> {
    let mut memory = vec![0u8; 2 * BLOCK];
    let buffer = aligned(&mut memory, 1);
    let mut random = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(thread + from * threads + 1);
    for stamp in from + 1.. {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let block = random % (blocks / threads) * threads + thread;
        fill(buffer, block, stamp);
        let begin = Instant::now();
        file.write_all_at(buffer, block * BLOCK as u64)
            .with_context(|| format!("write block {block}"))?;
        let took = begin.elapsed().as_micros();
        // One write call per line: the reader outside takes a line as an acknowledgement.
        io::stdout().lock().write_all(format!("{block} {stamp} {took}\n").as_bytes())?;
    }
    Ok(())
}

/// Prints `BLOCK STAMP` for each block that was ever written, `BLOCK torn` for one that is not whole.
pub fn read(device: &Path, blocks: u64) -> Result<()> {
    let file = open(device, false)?;
    let mut memory = vec![0u8; BLOCK * (READ_BLOCKS + 1)];
    let buffer = aligned(&mut memory, READ_BLOCKS);
    let mut out = io::BufWriter::new(io::stdout().lock());
    for first in (0..blocks).step_by(READ_BLOCKS) {
        let count = usize::try_from(blocks - first)?.min(READ_BLOCKS);
        let part = &mut buffer[..count * BLOCK];
        file.read_exact_at(part, first * BLOCK as u64)
            .with_context(|| format!("read {count} blocks at {first}"))?;
        for (block, bytes) in (first..).zip(part.chunks_exact(BLOCK)) {
            match stamp_of(bytes, block) {
                Some(0) => {}
                Some(stamp) => writeln!(out, "{block} {stamp}")?,
                None => writeln!(out, "{block} torn")?,
            }
        }
    }
    Ok(())
}

/// The highest acknowledged stamp of each block in what the writer printed; a last line cut short does not count.
pub fn acknowledged(printed: &str) -> Stamps {
    let mut stamps = Stamps::new();
    let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
    for (block, stamp) in whole.lines().filter_map(parse) {
        let highest = stamps.entry(block).or_default();
        *highest = stamp.max(*highest);
    }
    stamps
}

/// Compares: every acknowledged stamp must be there, or a later one of the same block.
pub fn compare(acknowledged: &Stamps, found: &str) -> Result<()> {
    if let Some(torn) = found.lines().find(|line| line.ends_with("torn")) {
        bail!("block {torn}: neither the old nor the new content");
    }
    let found: Stamps = found.lines().filter_map(parse).collect();
    let lost: Vec<String> = acknowledged
        .iter()
        .filter(|(block, stamp)| found.get(block).is_none_or(|there| there < stamp))
        .map(|(block, stamp)| {
            format!("block {block}: acknowledged {stamp}, found {:?}", found.get(block))
        })
        .collect();
    if !lost.is_empty() {
        bail!(
            "{} acknowledged writes are lost, among them {}",
            lost.len(),
            lost[..lost.len().min(5)].join("; ")
        );
    }
    Ok(())
}

/// The blocks that were written, and how long each write took, in what the writer printed.
pub fn times(printed: &str) -> impl Iterator<Item = (u64, Duration)> {
    let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
    whole.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let block = words.next()?.parse().ok()?;
        Some((block, Duration::from_micros(words.nth(1)?.parse().ok()?)))
    })
}

fn parse(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn open(device: &Path, write: bool) -> Result<File> {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).context("O_DIRECT")?;
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(direct);
    options.open(device).with_context(|| format!("open {}", device.display()))
}

/// Whole blocks in a buffer that has one to spare, beginning at a multiple of the block size, as `O_DIRECT` wants.
fn aligned(memory: &mut [u8], blocks: usize) -> &mut [u8] {
    let start = memory.as_ptr().align_offset(BLOCK);
    &mut memory[start..start + blocks * BLOCK]
}

fn word(block: u64, stamp: u64, index: usize) -> u64 {
    match index {
        0 => block,
        1 => stamp,
        _ => (block ^ stamp.rotate_left(32)).wrapping_mul(2 * index as u64 + 1),
    }
}

fn fill(buffer: &mut [u8], block: u64, stamp: u64) {
    for (index, bytes) in buffer.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&word(block, stamp, index).to_le_bytes());
    }
}

/// The stamp in a block; 0 for a block of zeroes, `None` when the content fits no stamp.
fn stamp_of(buffer: &[u8], block: u64) -> Option<u64> {
    let words: Vec<u64> = buffer
        .chunks_exact(8)
        .map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes))
        .collect();
    if words.iter().all(|&word| word == 0) {
        return Some(0);
    }
    let stamp = *words.get(1)?;
    (words.len() == WORDS && (0..WORDS).all(|index| words[index] == word(block, stamp, index)))
        .then_some(stamp)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn block_tells_its_stamp_and_a_mixed_one_is_torn() {
        let mut buffer = vec![0; BLOCK];
        assert_eq!(stamp_of(&buffer, 5), Some(0));
        fill(&mut buffer, 5, 77);
        assert_eq!(stamp_of(&buffer, 5), Some(77));
        assert_eq!(stamp_of(&buffer, 6), None);
        let mut later = vec![0; BLOCK];
        fill(&mut later, 5, 78);
        buffer[..512].copy_from_slice(&later[..512]);
        assert_eq!(stamp_of(&buffer, 5), None);
    }

    #[test]
    fn times_of_whole_lines_are_told() {
        let times: Vec<_> = times("3 1 250\n4 1 9\n3 2 1").collect();
        assert_eq!(times, [(3, Duration::from_micros(250)), (4, Duration::from_micros(9))]);
    }

    #[test]
    fn lost_and_older_blocks_are_found() {
        let acknowledged = acknowledged("3 1\n4 1\n3 2\n9 9");
        assert_eq!(acknowledged, Stamps::from([(3, 2), (4, 1)]));
        assert!(compare(&acknowledged, "3 2\n4 7\n").is_ok());
        assert!(compare(&acknowledged, "3 1\n4 1\n").unwrap_err().to_string().contains("block 3"));
        assert!(compare(&acknowledged, "3 2\n").is_err());
        assert!(compare(&acknowledged, "3 2\n4 1\n8 torn\n").is_err());
    }
}
