//! Reads and writes of hosts.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use afs_env::{Buffer, BufferMut};

use super::call::{CallError, Change, Ended, To, blocks_of};
use super::entrance::Turn;
use super::tracker::Sequence;
use super::view::{Mode, Phase, Port, View};
use super::{Failed, Host, Leader, Shared, VolumeError};
use crate::message::{Body, Outcome};
use crate::mutant::{Mutant, planted};
use crate::params::nanos;

const BLOCK: u64 = afs_env::BLOCK_BYTES as u64;
/// Pause before what a replica refused for the moment is tried again.
const AGAIN: Duration = Duration::from_millis(10);
/// Pause before it is looked again whether what called for a new epoch still does: a learner that failed may have been given up.
const NEW_EPOCH: Duration = Duration::from_millis(100);
/// Tells whether the connection that an I/O came by was lost.
pub type Gone<'a> = &'a dyn Fn() -> bool;

/// Blocks of one clear that is sent to the replicas: each must be done within the time for an answer.
const CLEAR_BLOCKS_MAX: u64 = 16_384;
/// Reads that met a write so often hold the range like a write.
const FREE_READS: usize = 3;

impl From<Outcome> for VolumeError {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Full => VolumeError::Full,
            Outcome::OutOfRange => VolumeError::OutOfRange,
            Outcome::Media => VolumeError::Media,
            _ => VolumeError::Unavailable,
        }
    }
}

/// The part of an I/O that lies in one shard.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) shard: usize,
    /// Within the shard.
    pub(super) range: Range<u64>,
    /// Within the volume.
    pub(super) volume_range: Range<u64>,
}

/// A write that has a number. Dropped before it was done, its range may differ among the replicas.
pub(super) struct Open<'a> {
    shared: &'a Shared,
    sequence: Sequence,
    shard: usize,
    range: Range<u64>,
    /// Something of it may have been sent.
    sent: Cell<bool>,
    /// The number is that of a failed write, and stays open with it.
    borrowed: bool,
}

impl<'a> Open<'a> {
    /// A copy within a shard, which begins at once.
    pub(super) fn copy(shared: &'a Shared, shard: usize, range: Range<u64>) -> Open<'a> {
        let sequence = shared.tracker.begin_copy();
        Open { shared, sequence, shard, range, sent: Cell::new(true), borrowed: false }
    }

    /// The same for one that makes `range` equal, which is held and pending. It has the number of the failed write that it repairs:
    /// that one is open until the range is equal, however often this is tried, so no number of tries fills the replicas' lists.
    pub(super) fn repair(shared: &'a Shared, shard: usize, range: Range<u64>) -> Open<'a> {
        let holds = |failed: &&Failed| {
            failed.shard == shard
                && failed.range.start <= range.start
                && range.end <= failed.range.end
        };
        let known = shared.failed.lock().iter().find(holds).map(|failed| failed.sequence);
        match known {
            Some(sequence) => {
                Open { shared, sequence, shard, range, sent: Cell::new(false), borrowed: true }
            }
            None => Open::copy(shared, shard, range),
        }
    }

    pub(super) fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// It is on all replicas.
    pub(super) fn done(self) {
        self.sent.set(false);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.borrowed {
            return;
        }
        if self.sent.get() && !planted(Mutant::ForgetFailed) {
            self.shared.failed(self.sequence, self.shard, self.range.clone());
        } else {
            self.shared.tracker.end(self.sequence);
        }
    }
}

impl Shared {
    /// A write did not reach all replicas. Its number stays open until the range was made equal.
    pub(super) fn failed(&self, sequence: Sequence, shard: usize, range: Range<u64>) {
        if let Some(pending) = self.pending().get(shard) {
            pending.add(range.clone());
        }
        self.failed.lock().push(Failed { sequence, shard, range });
        self.work.notify_one();
    }

    /// Numbers of failed writes whose range is equal now are closed.
    pub(super) fn close_equalised(&self) {
        let pending = self.pending();
        self.failed.lock().retain(|failed| {
            let open = pending
                .get(failed.shard)
                .is_some_and(|pending| pending.first_in(&failed.range).is_some());
            if !open {
                self.tracker.end(failed.sequence);
            }
            open
        });
    }
}

impl<H: Host> Leader<H> {
    /// Writes whole blocks from block `lba` on; on stable media of every in-sync replica when it returns. Once begun, it must be
    /// polled to its end. While `gone` says so, nothing is sent any more (CONFORMANCE M-45).
    ///
    /// # Errors
    /// After an error each block holds its old or its new data, on all replicas the same.
    pub async fn write(&self, lba: u64, data: Buffer, gone: Gone<'_>) -> Result<(), VolumeError> {
        let bytes = data.len() as u64;
        if bytes == 0 || !bytes.is_multiple_of(BLOCK) {
            return Err(VolumeError::OutOfRange);
        }
        let part = |from, to| {
            let at = |block: u64| usize::try_from(block * BLOCK).unwrap_or(usize::MAX);
            Change::Write(data.slice(at(from)..at(to).min(data.len())))
        };
        self.change_all(lba, bytes / BLOCK, gone, part).await
    }

    /// Makes blocks read as zeroes; with `deallocate`, also gives their space back. Durable like [`write`](Leader::write).
    ///
    /// # Errors
    /// As for a write.
    pub async fn write_zeroes(
        &self,
        lba: u64,
        blocks: u64,
        deallocate: bool,
        gone: Gone<'_>,
    ) -> Result<(), VolumeError> {
        self.change_all(lba, blocks, gone, |_, _| Change::Clear { deallocate }).await
    }

    /// Fills the whole buffer from block `lba` on. On an error its contents are unspecified.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub async fn read(&self, lba: u64, buffer: BufferMut) -> (BufferMut, Result<(), VolumeError>) {
        let until = self.now().saturating_add(nanos(self.shared().params.patience));
        let blocks = buffer.len() as u64 / BLOCK;
        let first = match self.piece(lba, blocks, until).await {
            Ok(first) => first,
            Err(error) => return (buffer, Err(error)),
        };
        let count = first.range.end - first.range.start;
        if count == blocks {
            return self.read_piece(&first, buffer, until).await;
        }
        // Over the edge of a shard: rare.
        let mut whole = buffer;
        let mut at = lba;
        let end = lba + blocks;
        while at < end {
            let piece = match self.piece(at, end - at, until).await {
                Ok(piece) => piece,
                Err(error) => return (whole, Err(error)),
            };
            let count = piece.range.end - piece.range.start;
            let bytes = usize::try_from(count * BLOCK).unwrap_or(usize::MAX);
            let Some(part) = self.host().pool().try_alloc(bytes) else {
                return (whole, Err(VolumeError::Unavailable));
            };
            let (part, result) = self.read_piece(&piece, part, until).await;
            if let Err(error) = result {
                return (whole, Err(error));
            }
            let from = usize::try_from((at - lba) * BLOCK).unwrap_or(usize::MAX);
            if let Some(place) = whole.get_mut(from..from.saturating_add(bytes)) {
                place.copy_from_slice(&part);
            }
            at += count;
        }
        (whole, Ok(()))
    }

    /// The first part of an I/O, once the volume was claimed.
    async fn piece(&self, lba: u64, blocks: u64, until: u64) -> Result<Piece, VolumeError> {
        piece_of(&*self.serving(until).await?, lba, blocks)
    }

    /// Takes a change in: its first part, and its number. With the turn, if it had to wait for that.
    async fn enter(
        &self,
        lba: u64,
        blocks: u64,
        until: u64,
    ) -> Result<(Piece, Open<'_>, Option<Turn<'_>>), VolumeError> {
        let shared = self.shared();
        let numbered = |piece: Piece, sequence| {
            let (shard, range) = (piece.shard, piece.range.clone());
            let sent = Cell::new(false);
            (piece, Open { shared, sequence, shard, range, sent, borrowed: false })
        };
        let view = self.view();
        if view.phase == Phase::Serving && shared.entrance.is_free() {
            let piece = piece_of(&view, lba, blocks)?;
            if let Some(sequence) = shared.tracker.begin() {
                let (piece, open) = numbered(piece, sequence);
                return Ok((piece, open, None));
            }
        }
        let turn = shared.entrance.turn().await;
        loop {
            let piece = self.piece(lba, blocks, until).await?;
            if let Some(sequence) = shared.tracker.begin() {
                let (piece, open) = numbered(piece, sequence);
                return Ok((piece, open, Some(turn)));
            }
            shared.tracker.room().await;
        }
    }

    /// The view, once it serves; waits until `until`.
    pub(super) async fn serving(&self, until: u64) -> Result<Arc<View>, VolumeError> {
        loop {
            let view = self.view();
            match view.phase {
                Phase::Serving => return Ok(view),
                Phase::Over => return Err(VolumeError::NotLeader),
                Phase::Claiming | Phase::Sealing => {}
            }
            self.wait_for_view(view.number, until).await?;
        }
    }

    /// Waits for another view than `number`.
    async fn wait_for_view(&self, number: u64, until: u64) -> Result<(), VolumeError> {
        let left = until.saturating_sub(self.now());
        if left == 0 {
            return Err(VolumeError::Unavailable);
        }
        self.view_changed(number, Duration::from_nanos(left)).await;
        Ok(())
    }

    async fn change_all(
        &self,
        lba: u64,
        blocks: u64,
        gone: Gone<'_>,
        change: impl Fn(u64, u64) -> Change,
    ) -> Result<(), VolumeError> {
        let until = self.now().saturating_add(nanos(self.shared().params.patience));
        let tenure = self.shared().tenure.load(Ordering::Acquire);
        let gone = || gone() || self.shared().tenure.load(Ordering::Acquire) != tenure;
        let mut at = lba;
        let end = lba.checked_add(blocks).ok_or(VolumeError::OutOfRange)?;
        while at < end {
            let (piece, open, turn) =
                self.enter(at, (end - at).min(CLEAR_BLOCKS_MAX), until).await?;
            let next = piece.volume_range.end;
            let part = change(at - lba, next - lba);
            self.change_piece(&piece, (open, turn), &part, until, &gone).await?;
            at = next;
        }
        Ok(())
    }

    async fn change_piece(
        &self,
        piece: &Piece,
        (open, turn): (Open<'_>, Option<Turn<'_>>),
        change: &Change,
        until: u64,
        gone: Gone<'_>,
    ) -> Result<(), VolumeError> {
        let shared = self.shared();
        let range = if planted(Mutant::WriteOverlap) { 0..0 } else { piece.volume_range.clone() };
        // After the number: who waited for one with a range in hand would keep the equaliser from the failed writes that fill
        // the window. In the turn only until the place among those that overlap is taken.
        let mut lock = std::pin::pin!(shared.locks.write(range));
        let held = poll_fn(|cx| Poll::Ready(lock.as_mut().poll(cx))).await;
        drop(turn);
        let _held = match held {
            Poll::Ready(held) => held,
            Poll::Pending => lock.await,
        };
        shared.count_write();
        loop {
            let view = self.serving(until).await?;
            if gone() {
                return Err(VolumeError::Unavailable);
            }
            if !view.enough(piece.shard) {
                self.wait_for_view(view.number, until).await?;
                continue;
            }
            open.sent.set(true);
            let sequence = open.sequence;
            if !self.equal(&view, piece, sequence).await {
                self.not_yet(&view, until).await?;
                continue;
            }
            match self.replicate(&view, piece.shard, &piece.range, change, sequence, To::All).await
            {
                Ended::Done => {
                    open.done();
                    return Ok(());
                }
                Ended::Failed(outcome) => return Err(outcome.into()),
                Ended::Retry => self.not_yet(&view, until).await?,
                Ended::NewEpoch => self.pause_for_view(&view, NEW_EPOCH, until).await?,
            }
        }
    }

    /// A short pause, or until the view changes.
    async fn not_yet(&self, view: &View, until: u64) -> Result<(), VolumeError> {
        self.pause_for_view(view, AGAIN, until).await
    }

    /// Waits until the view changes, but no longer than `most`.
    async fn pause_for_view(
        &self,
        view: &View,
        most: Duration,
        until: u64,
    ) -> Result<(), VolumeError> {
        let soon = self.now().saturating_add(nanos(most)).min(until);
        self.wait_for_view(view.number, soon)
            .await
            .or_else(|error| if self.now() >= until { Err(error) } else { Ok(()) })
    }

    /// Makes equal what is pending in a piece whose range is held. False if it could not be done now.
    async fn equal(&self, view: &View, piece: &Piece, sequence: Sequence) -> bool {
        let pending = self.shared().pending();
        let Some(pending) = pending.get(piece.shard) else { return true };
        while let Some(part) = pending.first_in(&piece.range) {
            if !self.equalise(view, piece.shard, &part, sequence).await {
                return false;
            }
        }
        true
    }

    async fn read_piece(
        &self,
        piece: &Piece,
        mut buffer: BufferMut,
        until: u64,
    ) -> (BufferMut, Result<(), VolumeError>) {
        for attempt in 0.. {
            let view = match self.serving(until).await {
                Ok(view) => view,
                Err(error) => return (buffer, Err(error)),
            };
            let result;
            (buffer, result) = self.try_read(&view, piece, buffer, attempt >= FREE_READS).await;
            let again = match result {
                Ok(()) => return (buffer, Ok(())),
                Err(Attempt::Failed(error)) => return (buffer, Err(error)),
                Err(Attempt::Overlapped) if attempt < FREE_READS => Ok(()),
                Err(_) => self.not_yet(&view, until).await,
            };
            if let Err(error) = again {
                return (buffer, Err(error));
            }
        }
        (buffer, Err(VolumeError::Unavailable))
    }

    /// One attempt to read a piece.
    async fn try_read(
        &self,
        view: &View,
        piece: &Piece,
        buffer: BufferMut,
        hold: bool,
    ) -> (BufferMut, Result<(), Attempt>) {
        let shared = self.shared();
        let range = piece.volume_range.clone();
        let pending = shared.pending();
        let Some(pending) = pending.get(piece.shard) else {
            return (buffer, Err(Attempt::Again));
        };
        let unequal = || pending.first_in(&piece.range).is_some();
        let held = if hold || unequal() {
            let held = shared.locks.write(range.clone()).await;
            if unequal() {
                let open = Open::repair(shared, piece.shard, piece.range.clone());
                if !self.equal(view, piece, open.sequence()).await {
                    return (buffer, Err(Attempt::Again));
                }
                open.done();
            }
            Some(held)
        } else {
            shared.locks.settled(range.clone()).await;
            None
        };
        let leased = !planted(Mutant::LeaseBeforeRead) || self.leased(view, piece.shard);
        let (buffer, read) = self.read_replica(view, piece, buffer).await;
        if let Err(attempt) = read {
            return (buffer, Err(attempt));
        }
        let overlapped = held.is_none() && (!shared.locks.clear(&range) || unequal());
        if overlapped && !planted(Mutant::ReadOverlap) {
            return (buffer, Err(Attempt::Overlapped));
        }
        let leased =
            if planted(Mutant::LeaseBeforeRead) { leased } else { self.leased(view, piece.shard) };
        if !leased && !planted(Mutant::ReadWithoutLease) {
            return (buffer, Err(Attempt::Again));
        }
        (buffer, Ok(()))
    }

    /// Whether the leases of all replicas of a shard that are in sync, or may have been admitted, hold now. With one in-sync
    /// replica of two, another leader may otherwise serve with the one that we do not count yet.
    fn leased(&self, view: &View, shard: usize) -> bool {
        // An answer that comes late must not bring back what is being given up.
        if self.shared().leaving.load(Ordering::Acquire) {
            return false;
        }
        let now = self.now();
        let mut some = false;
        let members = view.shards.get(shard).map_or(&[][..], Vec::as_slice);
        let mut counted = members.iter().filter(|member| member.mode() >= Mode::Required);
        let all = counted.all(|member| {
            some = true;
            member.lease_until.load(Ordering::Acquire) > now
        });
        some && all
    }

    /// Reads from an in-sync replica, the local one if there is one.
    async fn read_replica(
        &self,
        view: &View,
        piece: &Piece,
        mut buffer: BufferMut,
    ) -> (BufferMut, Result<(), Attempt>) {
        let ports = self.ports(view, piece.shard);
        let Some(at) = blocks_of(&piece.range) else {
            return (buffer, Err(Attempt::Failed(VolumeError::OutOfRange)));
        };
        let mut failure = Attempt::Again;
        for (index, member) in view.in_sync(piece.shard) {
            let Some(Port::Local(Some(server))) = ports.get(index) else { continue };
            let result;
            (buffer, result) = server.read_into(at, buffer).await;
            match result {
                Ok(()) => return (buffer, Ok(())),
                Err(Outcome::OutOfRange) => {
                    return (buffer, Err(Attempt::Failed(VolumeError::OutOfRange)));
                }
                Err(Outcome::Media) => failure = Attempt::Failed(VolumeError::Media),
                Err(_) => self.suspect(member),
            }
        }
        for (index, member) in view.in_sync(piece.shard) {
            let Some(port @ Port::Remote(_)) = ports.get(index) else { continue };
            let body = Body::Read(at);
            match self.call(port, member, view.epoch(), body, None, buffer.len()).await {
                Ok(Some(data)) if data.len() == buffer.len() => {
                    buffer.copy_from_slice(&data);
                    return (buffer, Ok(()));
                }
                Err(CallError::Refused(Outcome::Media, _)) => {
                    failure = Attempt::Failed(VolumeError::Media);
                }
                Ok(_) | Err(_) => failure = Attempt::Again,
            }
        }
        (buffer, Err(failure))
    }
}

/// The first part of an I/O on a claimed volume.
fn piece_of(view: &View, lba: u64, blocks: u64) -> Result<Piece, VolumeError> {
    let end = lba.checked_add(blocks).ok_or(VolumeError::OutOfRange)?;
    if blocks == 0 || end > view.config.blocks {
        return Err(VolumeError::OutOfRange);
    }
    let size = view.config.shard_blocks.max(1);
    let shard = usize::try_from(lba / size).map_err(|_| VolumeError::OutOfRange)?;
    let first = lba % size;
    let count = blocks.min(size - first);
    Ok(Piece { shard, range: first..first + count, volume_range: lba..lba + count })
}

/// Why a read did not succeed at once.
enum Attempt {
    /// A write came while it read.
    Overlapped,
    /// Not now.
    Again,
    Failed(VolumeError),
}
