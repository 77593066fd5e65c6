//! The offline check of a disk: everything is read, nothing written.

use afs_env::Disk;

use crate::chunk::Kind;
use crate::error::{Damage, OpenError};
use crate::format::{BLOCK, Root, Superblock, TablePage};
use crate::inspect::DiskInfo;
use crate::load::load;
use crate::open::{Head, Progress, read_head};
use crate::stats::ReplicaInfo;
use zerocopy::FromBytes;

/// What a check found. The disk is good if `damage` is `None`.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// Identity and layout.
    pub info: DiskInfo,
    /// Why the store would not open; the first thing found.
    pub damage: Option<Damage>,
    /// Things that cost nothing yet: a damaged spare copy, a journal to replay.
    pub warnings: Vec<String>,
    /// The replicas, after replay.
    pub replicas: Vec<ReplicaInfo>,
    /// Chunks that belong to a replica.
    pub chunks_used: u64,
    /// Of these, chunks with no block of data (zeroed, but kept).
    pub chunks_without_data: u64,
    /// Blocks that hold data.
    pub blocks_data: u64,
    /// Journal blocks that a replay reads.
    pub journal_blocks: u64,
    /// Blocks of first writes that did not reach the disk before a crash (never acknowledged).
    pub blocks_refused: u64,
}

/// Reads superblocks, both copies of the tables, and the journal, and compares them with each
/// other: every chunk has one owner that exists, every layer as many references as it says.
///
/// # Errors
/// [`OpenError`] if the disk is not readable or not an afs disk at all; damage is in the report.
pub async fn check<D: Disk>(
    disk: &D,
    mut progress: impl FnMut(Progress),
) -> Result<CheckReport, OpenError> {
    let head = read_head(disk).await?;
    let block = Superblock::new(&head.geometry, &head.root);
    let mut report = CheckReport {
        info: DiskInfo::new(&block),
        damage: None,
        warnings: Vec::new(),
        replicas: Vec::new(),
        chunks_used: 0,
        chunks_without_data: 0,
        blocks_data: 0,
        journal_blocks: 0,
        blocks_refused: 0,
    };
    if !head.both {
        report.warnings.push("one of the two superblocks is damaged or torn".into());
    }
    check_spare(disk, &head, &mut report).await?;
    match load(disk, &head, &mut progress).await {
        Ok(loaded) => {
            report.journal_blocks = loaded.end.next - head.root.journal_start;
            report.blocks_refused =
                loaded.refused.iter().map(|r| u64::from(r.mask.count_ones())).sum();
            report.replicas = loaded.shared.replica_infos();
            for slot in loaded.shared.chunks.iter().filter(|slot| slot.kind() != Kind::Free) {
                report.chunks_used += 1;
                report.chunks_without_data += u64::from(slot.data() == 0);
                report.blocks_data += u64::from(slot.data().count_ones());
            }
            if !head.root.clean {
                report.warnings.push("not closed in good order; the next open replays".into());
            }
        }
        Err(OpenError::Damaged(damage)) => report.damage = Some(damage),
        Err(other) => return Err(other),
    }
    Ok(report)
}

/// The copy of the table that is not current may be torn by a crash during a checkpoint, but that
/// is worth knowing.
async fn check_spare<D: Disk>(
    disk: &D,
    head: &Head,
    report: &mut CheckReport,
) -> Result<(), OpenError> {
    let Head { geometry, root, .. } = head;
    let Root { checkpoint, copy, .. } = *root;
    if checkpoint < 2 {
        return Ok(());
    }
    let other = 1 - copy.min(1);
    let base = geometry.table_offset.get(other as usize).copied().unwrap_or_default();
    let mut buffer = disk.pool().try_alloc(BLOCK).ok_or(OpenError::NoMemory)?;
    let mut bad = 0_u32;
    for page in 0..geometry.table_pages {
        let (back, result) = disk.read(base + u64::from(page) * BLOCK as u64, buffer).await;
        buffer = back;
        let good = TablePage::ref_from_bytes(&buffer)
            .is_ok_and(|found| found.is_whole(geometry.seed, page, u64::MAX));
        bad += u32::from(result.is_err() || !good);
    }
    if bad > 0 {
        report.warnings.push(format!("{bad} pages of the spare chunk table are damaged"));
    }
    Ok(())
}
