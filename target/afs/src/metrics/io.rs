//! Counting of I/O: what the reactors write on every command, and what a scrape reads.
//!
//! A slot belongs to one reactor, which is its only writer; so recording is a few plain loads
//! and stores, with no lock, no locked instruction and no allocation. A scrape may read while a
//! reactor writes and then sees a value that is one command old.
//!
//! The target core calls [`IoMetrics::record`] and [`QueueMetrics`]; `metrics::mod` owns and
//! exports them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Latency buckets: bucket `i` counts what took less than `2^(i + FIRST_BUCKET_BITS)` ns, and the last one everything.
pub const BUCKETS: usize = 26;

/// The first bucket ends at 2^10 ns (1.024 µs), the last finite one at 2^34 ns (17 s).
const FIRST_BUCKET_BITS: u32 = 10;

/// What a host asked of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Operation {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Flush.
    Flush,
    /// Write Zeroes, with or without deallocation.
    WriteZeroes,
    /// Dataset Management with the deallocate attribute.
    Deallocate,
    /// Compare.
    Compare,
    /// Verify.
    Verify,
}

impl Operation {
    /// All operations, in the order of their slots.
    pub const ALL: [Operation; 7] = [
        Operation::Read,
        Operation::Write,
        Operation::Flush,
        Operation::WriteZeroes,
        Operation::Deallocate,
        Operation::Compare,
        Operation::Verify,
    ];

    /// The name used in metric names and in the `operation` label.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Flush => "flush",
            Operation::WriteZeroes => "write_zeroes",
            Operation::Deallocate => "deallocate",
            Operation::Compare => "compare",
            Operation::Verify => "verify",
        }
    }
}

/// The bucket that a latency falls into.
fn bucket_of(nanos: u64) -> usize {
    let significant_bits = u64::BITS - nanos.leading_zeros();
    let bucket = significant_bits.saturating_sub(FIRST_BUCKET_BITS) as usize;
    bucket.min(BUCKETS - 1)
}

/// The upper bound of a bucket in seconds; `None` is "no bound" (`+Inf`).
pub fn bucket_bound_seconds(bucket: usize) -> Option<f64> {
    if bucket + 1 >= BUCKETS {
        return None;
    }
    let shift = u32::try_from(bucket).ok()?.checked_add(FIRST_BUCKET_BITS)?;
    Some((1u64 << shift) as f64 / 1e9)
}

/// Adds to a slot that only this thread writes: no locked instruction is needed.
#[inline]
fn add(slot: &AtomicU64, value: u64) {
    slot.store(slot.load(Relaxed).wrapping_add(value), Relaxed);
}

/// Counts and latencies of one operation, written by one reactor.
#[derive(Default)]
struct Slot {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

impl Slot {
    #[inline]
    fn record(&self, bytes: u64, nanos: u64, ok: bool) {
        if let Some(bucket) = self.buckets.get(bucket_of(nanos)) {
            add(bucket, 1);
        }
        add(&self.nanos, nanos);
        if ok {
            add(&self.bytes, bytes);
        } else {
            add(&self.errors, 1);
        }
    }

    fn add_to(&self, sum: &mut Snapshot) {
        for (total, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.load(Relaxed);
        }
        sum.nanos += self.nanos.load(Relaxed);
        sum.bytes += self.bytes.load(Relaxed);
        sum.errors += self.errors.load(Relaxed);
    }
}

/// The sum of some slots at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Commands per latency bucket (not cumulative).
    pub buckets: [u64; BUCKETS],
    /// Time of all commands together, in nanoseconds.
    pub nanos: u64,
    /// Bytes moved by commands that succeeded.
    pub bytes: u64,
    /// Commands that ended with an error status.
    pub errors: u64,
}

impl Snapshot {
    /// Commands that ended, well or not.
    pub fn operations(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// One reactor's slots of one namespace, on cache lines of their own.
#[derive(Default)]
#[repr(align(128))]
struct ReactorSlots {
    operations: [Slot; Operation::ALL.len()],
}

/// The figures of one namespace. Cloning gives another handle to the same figures.
#[derive(Clone)]
pub struct IoMetrics {
    reactors: Arc<[ReactorSlots]>,
}

impl IoMetrics {
    /// Zeroed figures with a slot for each of `reactors` reactors.
    pub fn new(reactors: usize) -> IoMetrics {
        IoMetrics { reactors: (0..reactors).map(|_| ReactorSlots::default()).collect() }
    }

    /// Counts one finished command. Call it only on the reactor with this index: a slot has one writer.
    /// `bytes` counts only when `ok`; an index beyond `reactors` is ignored.
    #[inline]
    pub fn record(&self, reactor: usize, operation: Operation, bytes: u64, nanos: u64, ok: bool) {
        let slots = self.reactors.get(reactor);
        if let Some(slot) = slots.and_then(|slots| slots.operations.get(operation as usize)) {
            slot.record(bytes, nanos, ok);
        }
    }

    /// What all reactors counted for one operation.
    pub fn snapshot(&self, operation: Operation) -> Snapshot {
        let mut sum = Snapshot::default();
        for slots in &*self.reactors {
            if let Some(slot) = slots.operations.get(operation as usize) {
                slot.add_to(&mut sum);
            }
        }
        sum
    }
}

/// The figures of all queue pairs that share a queue id on one reactor; that reactor is the only writer.
#[derive(Default)]
#[repr(align(128))]
pub struct QueueMetrics {
    slot: Slot,
    started: AtomicU64,
    ended: AtomicU64,
}

impl QueueMetrics {
    /// A command arrived.
    #[inline]
    pub fn begin(&self) -> InFlight<'_> {
        add(&self.started, 1);
        InFlight { queue: Some(self) }
    }

    #[inline]
    fn end(&self, bytes: u64, nanos: u64, ok: bool) {
        self.slot.record(bytes, nanos, ok);
        add(&self.ended, 1);
    }

    /// A command that will never be answered because its connection is gone.
    #[inline]
    fn abandon(&self) {
        add(&self.ended, 1);
    }

    /// Commands that arrived and are not answered yet.
    pub fn in_flight(&self) -> u64 {
        let ended = self.ended.load(Relaxed);
        self.started.load(Relaxed).saturating_sub(ended)
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        self.add_to(&mut sum);
        sum
    }

    /// Adds what was counted so far.
    pub fn add_to(&self, sum: &mut Snapshot) {
        self.slot.add_to(sum);
    }
}

/// A command that was received. Dropping it means that it will not be answered.
pub struct InFlight<'a> {
    queue: Option<&'a QueueMetrics>,
}

impl InFlight<'_> {
    /// The command is answered. `bytes` counts only when `ok`.
    #[inline]
    pub fn record(mut self, bytes: u64, nanos: u64, ok: bool) {
        if let Some(queue) = self.queue.take() {
            queue.end(bytes, nanos, ok);
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(queue) = self.queue {
            queue.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_falls_below_the_bound_of_its_bucket_and_not_below_the_one_before() {
        for nanos in [0, 1, 1023, 1024, 1025, 4096, 1_000_000, 17_000_000_000, u64::MAX] {
            let bucket = bucket_of(nanos);
            if let Some(bound) = bucket_bound_seconds(bucket) {
                assert!((nanos as f64) < bound * 1e9, "{nanos} ns in bucket {bucket}");
            }
            if let Some(below) = bucket.checked_sub(1).and_then(bucket_bound_seconds) {
                assert!(nanos as f64 >= below * 1e9, "{nanos} ns in bucket {bucket}");
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn figures_of_all_reactors_are_summed_and_errors_move_no_bytes() {
        let metrics = IoMetrics::new(2);
        metrics.record(0, Operation::Read, 4096, 2_000, true);
        metrics.record(1, Operation::Read, 8192, 3_000, true);
        metrics.record(1, Operation::Read, 8192, 3_000, false);
        metrics.record(1, Operation::Write, 512, 1, true);
        let reads = metrics.snapshot(Operation::Read);
        assert_eq!((reads.operations(), reads.bytes, reads.errors), (3, 12288, 1));
        assert_eq!(reads.nanos, 8_000);
        assert_eq!(metrics.snapshot(Operation::Write).operations(), 1);
    }

    #[test]
    fn a_reactor_that_does_not_exist_is_ignored() {
        let metrics = IoMetrics::new(1);
        metrics.record(7, Operation::Read, 1, 1, true);
        assert_eq!(metrics.snapshot(Operation::Read), Snapshot::default());
    }

    #[test]
    fn a_queue_counts_what_is_in_flight_until_answered_or_abandoned() {
        let queue = QueueMetrics::default();
        let (first, second) = (queue.begin(), queue.begin());
        assert_eq!(queue.in_flight(), 2);
        first.record(4096, 1_000, true);
        assert_eq!(queue.in_flight(), 1);
        drop(second);
        assert_eq!(queue.in_flight(), 0);
        assert_eq!(queue.snapshot().operations(), 1);
    }
}
