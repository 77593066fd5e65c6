//! Writes: overwrites in place, first writes with a journal record beside the data, and, on disks
//! that cannot write 4096 bytes at once, overwrites through the journal.

use std::sync::atomic::Ordering;

use afs_env::{Buffer, Disk, DiskError};
use zerocopy::little_endian::U32;

use super::pin::WritePin;
use super::{Piece, Replica};
use crate::chunk::Kind;
use crate::error::StoreError;
use crate::format::{BLOCK, BLOCK_BYTES, block_crc};
use crate::journal::record::Record;
use crate::map::NONE;
use crate::mutant::{Mutant, planted};
use crate::state::{LIVE, Meta};
use crate::waiters::Key;

/// What a write found under the lock.
enum Begin<'a> {
    /// Every block holds data, and may be overwritten.
    Overwrite(WritePin<'a>),
    /// A stamp or a barrier must be durable first.
    Prepare(WritePin<'a>),
    /// The record of the blocks `mask` is staged; their data may go.
    First { pin: WritePin<'a>, sequence: u64, mask: u64 },
    /// Record and data of this run of blocks are staged; in place it may go when they are durable.
    Journalled { pin: WritePin<'a>, sequence: u64, run: Piece },
}

impl<D: Disk> Replica<D> {
    /// Writes whole blocks from block `lba` on; durable when it returns. A write over several
    /// blocks may be seen in part after a failure, each block old or new.
    ///
    /// # Errors
    /// After an error each block holds its old or its new data. `Full` leaves blocks of chunks that
    /// had space written.
    pub async fn write(&self, lba: u64, data: Buffer) -> Result<(), StoreError> {
        let blocks = Self::blocks_of(data.len())?;
        self.check(lba, blocks)?;
        let piece = self.piece(lba, blocks)?;
        if u64::from(piece.count) == blocks {
            return self.write_piece(piece, data).await;
        }
        Box::pin(self.write_pieces(lba, data)).await
    }

    async fn write_pieces(&self, lba: u64, data: Buffer) -> Result<(), StoreError> {
        let mut futures = Vec::new();
        let mut done = 0;
        while done < data.len() {
            let piece =
                self.piece(lba + (done / BLOCK) as u64, ((data.len() - done) / BLOCK) as u64)?;
            futures.push(self.write_piece(piece, data.slice(done..done + piece.bytes())));
            done += piece.bytes();
        }
        // All of them run to their end: none may be dropped while the disk is at work.
        futures_util::future::join_all(futures).await.into_iter().collect()
    }

    async fn write_piece(&self, piece: Piece, data: Buffer) -> Result<(), StoreError> {
        match self.pin_overwrite(piece) {
            Some(pin) => self.overwrite(pin, piece, data).await,
            None => self.write_with_record(piece, data).await,
        }
    }

    async fn overwrite(
        &self,
        mut pin: WritePin<'_>,
        piece: Piece,
        data: Buffer,
    ) -> Result<(), StoreError> {
        let offset = self.offset(pin.chunk, piece);
        pin.in_flight = true;
        let result = if planted(Mutant::AcknowledgeBeforeSync) {
            self.disk.write(offset, data).await
        } else {
            self.disk.write_durable(offset, data).await
        };
        pin.end();
        self.shared.counters.overwrites.fetch_add(1, Ordering::Relaxed);
        result.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: DiskError) -> StoreError {
        self.shared.count_failed_write();
        error.into()
    }

    async fn write_with_record(
        &self,
        mut piece: Piece,
        mut data: Buffer,
    ) -> Result<(), StoreError> {
        let mut checksums = [U32::ZERO; 64];
        for (sum, block) in checksums.iter_mut().zip(data.chunks_exact(BLOCK)) {
            *sum = block_crc(block).into();
        }
        let mut sums = checksums.as_slice();
        while piece.count > 0 {
            let begun = self.shared.wait(|meta| self.begin(meta, piece, sums, &data)).await??;
            let done = match begun {
                Begin::Overwrite(pin) => return self.overwrite(pin, piece, data).await,
                Begin::Prepare(pin) => {
                    self.prepare_overwrite(&pin).await?;
                    0
                }
                Begin::First { pin, sequence, mask } => {
                    let run = self.run_of(piece, mask);
                    let part = data.slice(0..run.bytes());
                    self.first_write(pin, sequence, mask, run, part).await?;
                    run.count
                }
                Begin::Journalled { pin, sequence, run } => {
                    let part = data.slice(0..run.bytes());
                    self.journalled(pin, sequence, run, part).await?;
                    run.count
                }
            };
            piece.first += done;
            piece.count -= done;
            sums = sums.get(done as usize..).unwrap_or_default();
            data = data.slice((done * BLOCK_BYTES) as usize..data.len());
        }
        Ok(())
    }

    /// The part of a piece that one first write covers: all of it, unless the disk tears.
    fn run_of(&self, piece: Piece, mask: u64) -> Piece {
        if self.shared.tears { Piece { count: mask.count_ones(), ..piece } } else { piece }
    }

    /// One attempt to begin, under the lock.
    fn begin<'a>(
        &'a self,
        meta: &mut Meta,
        piece: Piece,
        checksums: &[U32],
        data: &Buffer,
    ) -> Result<Result<Begin<'a>, StoreError>, Key> {
        if let Err(error) = self.check_locked(meta, piece) {
            return Ok(Err(error));
        }
        let mut chunk = self.layer.map.get(piece.index);
        let fresh = chunk == NONE;
        if fresh {
            match self.shared.allocate(meta, &self.layer, piece.index) {
                Some(allocated) => chunk = allocated,
                None if meta.draining > 0 => return Err(Key::Space),
                None => return Ok(Err(StoreError::Full)),
            }
        }
        let begun = self.begin_in(meta, chunk, piece, checksums, data);
        if fresh && begun.is_err() {
            self.shared.release(meta, &self.layer, chunk);
        }
        begun.map(Ok)
    }

    fn check_locked(&self, meta: &Meta, piece: Piece) -> Result<(), StoreError> {
        let first = u64::from(piece.index) * u64::from(self.shared.geometry.chunk_blocks());
        let end = first + u64::from(piece.first) + u64::from(piece.count);
        match self.layer.state() {
            _ if meta.closing => Err(StoreError::Stopped),
            LIVE if end <= self.blocks() => Ok(()),
            LIVE => Err(StoreError::OutOfRange),
            _ => Err(StoreError::Deleted),
        }
    }

    fn begin_in<'a>(
        &'a self,
        meta: &mut Meta,
        chunk: u32,
        piece: Piece,
        checksums: &[U32],
        bytes: &Buffer,
    ) -> Result<Begin<'a>, Key> {
        let wait = Err(Key::Chunk(chunk));
        let mask = piece.mask();
        let Some(slot) = self.shared.chunk(chunk) else { return wait };
        let busy = meta.busy.get(&chunk).map_or(0, |busy| busy.writing | busy.clearing);
        if slot.kind() == Kind::Freeing || busy & mask != 0 {
            return wait;
        }
        let Some(pin) = WritePin::take(&self.shared, chunk) else { return wait };
        let data = slot.data() & mask;
        if self.shared.tears && !planted(Mutant::TearOverwrites) {
            return self.begin_run(meta, pin, piece, data, checksums, bytes);
        }
        if data != 0 && !self.may_overwrite(slot) {
            if !(planted(Mutant::StampBesideOverwrite) && self.is_covered(slot)) {
                return Ok(Begin::Prepare(pin));
            }
            self.stamp(meta, &pin)?;
        }
        if data == mask {
            return Ok(Begin::Overwrite(pin));
        }
        self.stage_first(meta, pin, piece, mask & !data, checksums)
    }

    /// For disks that tear: the blocks at the front of the piece that are all data, or all not.
    fn begin_run<'a>(
        &'a self,
        meta: &mut Meta,
        pin: WritePin<'a>,
        piece: Piece,
        data: u64,
        checksums: &[U32],
        bytes: &Buffer,
    ) -> Result<Begin<'a>, Key> {
        let states = data >> piece.first;
        if states & 1 == 0 {
            let count = states.trailing_zeros().min(piece.count);
            let run = Piece { count, ..piece };
            return self.stage_first(meta, pin, run, run.mask(), checksums);
        }
        let most = piece.count.min(meta.staging.payload_max());
        let run = Piece { count: states.trailing_ones().min(most), ..piece };
        let generation = self.current_generation(meta);
        let place = self.shared.place(&self.layer, pin.chunk, piece.index);
        let sums = checksums.get(..run.count as usize).unwrap_or_default();
        let mask = run.mask();
        let record = Record::Overwrite { place, generation, mask, checksums: sums };
        let payload = bytes.get(..run.bytes()).unwrap_or_default();
        let sequence = self.shared.append(meta, &record, payload).ok_or(Key::JournalRoom)?;
        meta.busy.entry(pin.chunk).or_default().writing |= mask;
        meta.in_place.push(sequence);
        Ok(Begin::Journalled { pin, sequence, run })
    }

    fn stage_first<'a>(
        &'a self,
        meta: &mut Meta,
        pin: WritePin<'a>,
        piece: Piece,
        mask: u64,
        checksums: &[U32],
    ) -> Result<Begin<'a>, Key> {
        let mut chosen = [U32::ZERO; 64];
        let mut count = 0;
        for (block, sum) in (piece.first..piece.first + piece.count).zip(checksums) {
            if let (1, Some(place)) = (mask >> block & 1, chosen.get_mut(count)) {
                *place = *sum;
                count += 1;
            }
        }
        let record = Record::Write {
            place: self.shared.place(&self.layer, pin.chunk, piece.index),
            generation: self.current_generation(meta),
            mask,
            checksums: chosen.get(..count).unwrap_or_default(),
        };
        let sequence = self.shared.append(meta, &record, &[]).ok_or(Key::JournalRoom)?;
        meta.staging.begin_data(sequence);
        meta.busy.entry(pin.chunk).or_default().writing |= mask;
        Ok(Begin::First { pin, sequence, mask })
    }

    pub(super) fn current_generation(&self, meta: &Meta) -> crate::ids::Generation {
        meta.generations.get(self.layer.generation.index())
    }

    /// Data and record are on their way together; done when both are durable.
    async fn first_write(
        &self,
        mut pin: WritePin<'_>,
        sequence: u64,
        mask: u64,
        piece: Piece,
        data: Buffer,
    ) -> Result<(), StoreError> {
        pin.in_flight = true;
        let result = self.disk.write(self.offset(pin.chunk, piece), data).await;
        if let Err(error) = result {
            self.take_back(pin, sequence, mask, piece).await?;
            return Err(error.into());
        }
        self.shared.meta.lock().staging.end_data(sequence);
        pin.end();
        self.shared.sync_kick.notify_one();
        self.shared.counters.first_writes.fetch_add(1, Ordering::Relaxed);
        if planted(Mutant::AcknowledgeBeforeJournal) {
            return Ok(());
        }
        self.shared.wait_durable(sequence).await
    }

    /// The data of a first write failed: its record must never count. A clear follows it, and
    /// `durable` passes both at once.
    async fn take_back(
        &self,
        pin: WritePin<'_>,
        sequence: u64,
        mask: u64,
        piece: Piece,
    ) -> Result<(), StoreError> {
        self.shared.count_failed_write();
        let chunk = pin.chunk;
        let clear = self
            .shared
            .wait(|meta| {
                let slot = pin.slot();
                let free = self.shared.frees(meta, chunk, mask, mask);
                let place = self.shared.place(&self.layer, chunk, piece.index);
                let generation = self.current_generation(meta);
                let record = Record::Clear { place, generation, mask, to_zero: false, free };
                let at = self.shared.append(meta, &record, &[]).ok_or(Key::JournalRoom)?;
                let busy = meta.busy.entry(chunk).or_default();
                busy.writing &= !mask;
                busy.failed |= mask;
                busy.clearing |= mask;
                busy.recorded |= mask;
                busy.exclusive += 1;
                slot.set_exclusive(true);
                if free {
                    slot.set_kind(Kind::Freeing);
                }
                meta.staging.compensate(at, sequence);
                Ok(at)
            })
            .await?;
        pin.end();
        self.shared.sync_kick.notify_one();
        self.shared.wait_durable(clear).await
    }

    /// Record and data are durable in the journal first, then the data goes in place.
    async fn journalled(
        &self,
        mut pin: WritePin<'_>,
        sequence: u64,
        run: Piece,
        data: Buffer,
    ) -> Result<(), StoreError> {
        pin.in_flight = true;
        self.shared.wait_durable(sequence + u64::from(run.count)).await?;
        let offset = self.offset(pin.chunk, run);
        let mut result = self.disk.write(offset, data.clone()).await;
        if result.is_err() {
            self.shared.count_failed_write();
            result = self.disk.write(offset, data).await;
        }
        if let Err(error) = result {
            return Err(self.failed(error));
        }
        let mut meta = self.shared.meta.lock();
        meta.in_place.retain(|at| *at != sequence);
        if let Some(busy) = meta.busy.get_mut(&pin.chunk) {
            busy.writing &= !run.mask();
        }
        meta.retire_busy(pin.chunk);
        let woken = |key| key == Key::Chunk(pin.chunk) || key == Key::Checkpoint;
        meta.waiters.wake(woken);
        drop(meta);
        pin.end();
        self.shared.counters.overwrites.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes durable what an overwrite of the chunk needs: the generation's stamp, and a barrier
    /// past its first writes.
    async fn prepare_overwrite(&self, pin: &WritePin<'_>) -> Result<(), StoreError> {
        if !self.is_stamped(pin.slot()) {
            let sequence = self.shared.wait(|meta| self.stamp(meta, pin)).await?;
            self.shared.wait_durable(sequence).await?;
        }
        let fresh = pin.slot().fresh();
        if pin.slot().covered(self.shared.barrier.load(Ordering::Acquire)) {
            return Ok(());
        }
        self.shared.counters.barriers.fetch_add(1, Ordering::Relaxed);
        let mut target = None;
        self.shared
            .wait(|meta| {
                let target = *target.get_or_insert_with(|| meta.staging.durable());
                if self.shared.barrier.load(Ordering::Acquire) >= target {
                    pin.slot().barrier_passed(fresh, target);
                    return Ok(());
                }
                meta.staging.want_barrier();
                self.shared.write_kick.notify_one();
                Err(Key::Barrier(target))
            })
            .await
    }

    /// Stages a stamp, or finds the one that is under way.
    fn stamp(&self, meta: &mut Meta, pin: &WritePin<'_>) -> Result<u64, Key> {
        let wanted = self.layer.generation.index();
        let under_way = meta.busy.get(&pin.chunk).and_then(|busy| busy.stamp);
        if let Some((sequence, _)) = under_way.filter(|(_, generation)| *generation == wanted) {
            return Ok(sequence);
        }
        let place = self.shared.place(&self.layer, pin.chunk, pin.slot().index());
        let record = Record::Stamp { place, generation: meta.generations.get(wanted) };
        let sequence = self.shared.append(meta, &record, &[]).ok_or(Key::JournalRoom)?;
        meta.busy.entry(pin.chunk).or_default().stamp = Some((sequence, wanted));
        self.shared.counters.stamps.fetch_add(1, Ordering::Relaxed);
        Ok(sequence)
    }
}
