//! What a crash left to set right, after the journal was read and before the first I/O:
//!
//! 1. blocks of the torn tail are made invalid, so that they never follow the blocks that come in
//!    their place;
//! 2. journalled overwrites go in place (doing so again is harmless);
//! 3. refused first writes get a clear in the journal, so that a later replay, which may see a
//!    later barrier, agrees;
//! 4. all this and whatever the crashed run left in caches is synced, and only then a barrier past
//!    it is written.

use std::sync::atomic::Ordering;

use afs_env::{BufferMut, Disk, DiskError};

use crate::checkpoint::checkpoint_now;
use crate::error::OpenError;
use crate::format::BLOCK;
use crate::journal::record::Record;
use crate::journal::staging::Staging;
use crate::load::Loaded;
use crate::mutant::{Mutant, planted};
use crate::open::read_block;
use crate::state::Shared;

/// See the module documentation. `replayed` is false after a clean close.
pub(crate) async fn recover<D: Disk>(
    disk: &D,
    loaded: &mut Loaded,
    spare: &mut Option<BufferMut>,
    replayed: bool,
) -> Result<(), OpenError> {
    let end = &loaded.end;
    let geometry = loaded.shared.geometry;
    let start = loaded.shared.meta.get_mut().root.journal_start;
    let staging =
        Staging::new(geometry.seed, geometry.journal_blocks, start, end.next, end.previous);
    loaded.shared.meta.get_mut().staging = staging;
    loaded.shared.barrier.store(end.next, Ordering::Release);
    if !replayed {
        return Ok(());
    }
    if !planted(Mutant::KeepTornTail) {
        for sequence in &end.tail {
            write(disk, geometry.journal_position(*sequence), spare, |bytes| bytes.fill(0)).await?;
        }
    }
    redo_overwrites(disk, loaded, spare).await?;
    // What is invalid now must stay so before anything is written in its place.
    disk.sync().await?;
    write_refused(disk, loaded, spare).await
}

async fn redo_overwrites<D: Disk>(
    disk: &D,
    loaded: &Loaded,
    spare: &mut Option<BufferMut>,
) -> Result<(), OpenError> {
    let geometry = &loaded.shared.geometry;
    for (&(chunk, block), &at) in &loaded.payloads {
        let holds_data =
            loaded.shared.chunk(chunk).is_some_and(|slot| slot.data() >> block & 1 == 1);
        if holds_data {
            let data = read_block(disk, geometry.journal_position(at)).await?;
            let offset = geometry.chunk_offset(chunk) + u64::from(block) * BLOCK as u64;
            write(disk, offset, spare, |bytes| bytes.copy_from_slice(&data)).await?;
        }
    }
    Ok(())
}

async fn write_refused<D: Disk>(
    disk: &D,
    loaded: &mut Loaded,
    spare: &mut Option<BufferMut>,
) -> Result<(), OpenError> {
    let shared = &loaded.shared;
    let fits = loaded.refused.len() < shared.meta.lock().staging.recovery_room();
    if !fits {
        // The journal has no room for the clears: a checkpoint says the same, and empties it.
        return Ok(checkpoint_now(disk, shared, spare).await?);
    }
    {
        let mut meta = shared.meta.lock();
        meta.staging.hold_announcement(Some(loaded.end.barrier));
        for refused in &loaded.refused {
            if planted(Mutant::ForgetRefused) {
                continue;
            }
            let record = Record::Clear {
                place: refused.place,
                generation: refused.generation,
                mask: refused.mask,
                to_zero: false,
                free: refused.free,
            };
            shared.append(&mut meta, &record, &[]);
        }
    }
    drain(disk, shared, spare).await?;
    {
        let mut meta = shared.meta.lock();
        meta.staging.hold_announcement(None);
        meta.staging.want_barrier();
    }
    drain(disk, shared, spare).await?;
    Ok(())
}

/// Writes and syncs all that is staged.
async fn drain<D: Disk>(
    disk: &D,
    shared: &Shared,
    spare: &mut Option<BufferMut>,
) -> Result<(), DiskError> {
    loop {
        let mut buffer = spare.take().ok_or(DiskError::Gone)?;
        buffer.set_len(buffer.capacity());
        let Some(group) = shared.meta.lock().staging.take(&mut buffer) else {
            *spare = Some(buffer);
            break;
        };
        let data = buffer.freeze();
        let offset = shared.geometry.journal_position(group.first);
        let result = disk.write(offset, data.slice(0..group.blocks * BLOCK)).await;
        *spare = data.try_into_mut().ok();
        result?;
    }
    disk.sync().await?;
    let mut meta = shared.meta.lock();
    let next = meta.staging.next();
    meta.staging.set_written(next);
    meta.staging.set_durable(next);
    shared.barrier.store(next, Ordering::Release);
    Ok(())
}

async fn write<D: Disk>(
    disk: &D,
    offset: u64,
    spare: &mut Option<BufferMut>,
    fill: impl FnOnce(&mut [u8]),
) -> Result<(), DiskError> {
    let mut buffer = spare.take().ok_or(DiskError::Gone)?;
    buffer.set_len(BLOCK);
    fill(&mut buffer);
    let data = buffer.freeze();
    let result = disk.write(offset, data.slice(0..BLOCK)).await;
    *spare = data.try_into_mut().ok();
    result
}
