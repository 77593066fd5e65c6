//! Range locks: an overlapping write or read waits until a write is done.
//!
//! Without them a write whose path died could land late. The host re-sends it on another path, gets it acknowledged,
//! overwrites it, and then the first copy, still on its way to the disk, would bring the old data back (CONFORMANCE I-10,
//! M-45). And a read could return data of a write that a power cut then takes away.
//!
//! Invariants:
//! - of two overlapping writes, the one that asked later begins after the earlier one was dropped;
//! - a read that asked after an overlapping write begins after that write was dropped;
//! - nobody waits for one who asked later, and stripes are taken in ascending order, so no circle of waiting can form.
//!
//! The volume is cut in regions; a region's requests meet in one of [`STRIPES`] lists under a short lock. A request in one
//! region, which is nearly every one, costs that lock twice and no allocation once its list has grown.

use parking_lot::Mutex;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

/// Lists that requests are spread over; a set of them fits a `u64`.
const STRIPES: u64 = 64;
/// Blocks of a region, as a power of two: 256 KiB.
const REGION_SHIFT: u32 = 6;

struct Entry {
    ticket: u64,
    range: Range<u64>,
    writes: bool,
    /// Whom to wake when an earlier entry goes.
    waker: Option<Waker>,
}

impl Entry {
    fn overlaps(&self, range: &Range<u64>) -> bool {
        self.range.start < range.end && range.start < self.range.end
    }
}

/// Requests of one stripe in the order in which they asked.
#[derive(Default)]
struct Stripe {
    entries: Vec<Entry>,
}

impl Stripe {
    /// Whether no earlier write overlaps entry `ticket`; otherwise it is woken when that may have changed.
    fn poll(&mut self, ticket: u64, waker: &Waker) -> Poll<()> {
        let Some(position) = self.entries.iter().position(|entry| entry.ticket == ticket) else {
            return Poll::Ready(());
        };
        let (earlier, rest) = self.entries.split_at_mut(position);
        let Some(own) = rest.first_mut() else { return Poll::Ready(()) };
        if earlier.iter().any(|entry| entry.writes && entry.overlaps(&own.range)) {
            match &mut own.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return Poll::Pending;
        }
        own.waker = None;
        Poll::Ready(())
    }

    fn remove(&mut self, ticket: u64) {
        let Some(position) = self.entries.iter().position(|entry| entry.ticket == ticket) else {
            return;
        };
        let gone = self.entries.remove(position);
        for later in self.entries.iter_mut().skip(position) {
            if later.overlaps(&gone.range)
                && let Some(waker) = later.waker.take()
            {
                waker.wake();
            }
        }
    }
}

/// The range locks of one volume, shared by all reactors.
pub struct RangeLocks {
    stripes: Box<[Mutex<Stripe>]>,
    tickets: AtomicU64,
}

impl Default for RangeLocks {
    fn default() -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        RangeLocks { stripes, tickets: AtomicU64::new(0) }
    }
}

/// A request in the lists of its stripes; dropping it, also while it waits, takes it out of them.
struct Request<'a> {
    locks: &'a RangeLocks,
    ticket: u64,
    /// Stripes that have an entry of this request, one bit each.
    listed: u64,
}

/// A range that is being written. Later requests that overlap begin when it is dropped.
pub struct WriteGuard<'a> {
    _request: Request<'a>,
}

impl RangeLocks {
    /// Takes the blocks of `range` for a write, after every earlier write that overlaps. An empty range waits for nobody.
    pub async fn write(&self, range: Range<u64>) -> WriteGuard<'_> {
        WriteGuard { _request: self.request(range, true).await }
    }

    /// Waits for the writes of `range` that were there before. Reads hold nobody up.
    pub async fn settled(&self, range: Range<u64>) {
        if !self.clear(&range) {
            self.request(range, false).await;
        }
    }

    /// Whether no write overlaps now: the usual case of a read, with nothing to clean up.
    pub(crate) fn clear(&self, range: &Range<u64>) -> bool {
        let mut stripes = stripes_of(range);
        while let Some(index) = next(&mut stripes) {
            let Some(stripe) = self.stripes.get(index) else { continue };
            if stripe.lock().entries.iter().any(|entry| entry.writes && entry.overlaps(range)) {
                return false;
            }
        }
        true
    }

    async fn request(&self, range: Range<u64>, writes: bool) -> Request<'_> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let mut stripes = stripes_of(&range);
        let mut request = Request { locks: self, ticket, listed: 0 };
        while let Some(index) = next(&mut stripes) {
            let Some(stripe) = self.stripes.get(index) else { continue };
            request.listed |= 1 << index;
            let entry = Entry { ticket, range: range.clone(), writes, waker: None };
            stripe.lock().entries.push(entry);
            poll_fn(|context| stripe.lock().poll(ticket, context.waker())).await;
        }
        request
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        while let Some(index) = next(&mut self.listed) {
            if let Some(stripe) = self.locks.stripes.get(index) {
                stripe.lock().remove(self.ticket);
            }
        }
    }
}

/// The stripes of a range, one bit each.
fn stripes_of(range: &Range<u64>) -> u64 {
    if range.is_empty() {
        return 0;
    }
    let first = range.start >> REGION_SHIFT;
    let last = (range.end - 1) >> REGION_SHIFT;
    if last - first >= STRIPES - 1 {
        return u64::MAX;
    }
    (first..=last).fold(0, |stripes, region| stripes | 1 << (region % STRIPES))
}

/// Takes the lowest stripe out of a set.
fn next(stripes: &mut u64) -> Option<usize> {
    if *stripes == 0 {
        return None;
    }
    let index = stripes.trailing_zeros() as usize;
    *stripes &= *stripes - 1;
    Some(index)
}

#[cfg(test)]
mod tests;
