//! The invariants of the module, on small cases and against a plain model.

use super::*;
use proptest::prelude::*;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Wake};

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a future that is to be ready at once.
fn ready<F: Future>(future: F) -> F::Output {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("waits although nothing is in its way"),
    }
}

#[test]
fn an_overlapping_write_waits_and_is_woken_when_the_earlier_one_is_done() {
    let locks = RangeLocks::default();
    let first = ready(locks.write(10..20));
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut second = pin!(locks.write(19..21));
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(first);
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert!(poll(second).is_ready());
}

#[test]
fn neighbours_and_far_ranges_do_not_wait() {
    let locks = RangeLocks::default();
    let _first = ready(locks.write(10..20));
    let _after = ready(locks.write(20..30));
    let _before = ready(locks.write(0..10));
    // The same stripe, another region.
    let _same_stripe = ready(locks.write((64 * 64)..(64 * 64 + 64)));
    ready(locks.settled(30..40));
}

#[test]
fn a_read_waits_for_the_write_before_it_and_holds_nobody_up() {
    let locks = RangeLocks::default();
    let write = ready(locks.write(0..4));
    let mut read = pin!(locks.settled(3..5));
    assert!(poll(read.as_mut()).is_pending());
    let _later_write = ready(locks.write(4..5));
    drop(write);
    assert!(poll(read).is_ready(), "the write at 4 came after the read");
}

#[test]
fn a_waiter_that_gives_up_leaves_nothing_behind() {
    let locks = RangeLocks::default();
    let first = ready(locks.write(0..100));
    {
        let waiter = pin!(locks.write(50..200));
        assert!(poll(waiter).is_pending());
    }
    drop(first);
    let _whole = ready(locks.write(0..1_000_000));
    let entries: usize = locks.stripes.iter().map(|stripe| stripe.lock().entries.len()).sum();
    assert_eq!(entries, 64, "one in each stripe, all of the last write");
}

#[test]
fn writes_are_served_in_the_order_in_which_they_asked() {
    let locks = RangeLocks::default();
    let first = ready(locks.write(0..10));
    let mut wide = pin!(locks.write(5..500));
    let mut narrow = pin!(locks.write(8..9));
    assert!(poll(wide.as_mut()).is_pending());
    assert!(poll(narrow.as_mut()).is_pending());
    drop(first);
    assert!(poll(narrow.as_mut()).is_pending(), "must not overtake the wide one");
    let Poll::Ready(guard) = poll(wide) else { panic!("the wide one is next") };
    drop(guard);
    assert!(poll(narrow).is_ready());
}

fn ranges() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    prop::collection::vec((0..400_u64, 1..6000_u64, any::<bool>()), 1..24)
}

proptest! {
    /// Whatever is asked for in whatever order: two overlapping writes are never granted at once, and everything is
    /// granted in the end.
    #[test]
    fn overlapping_writes_never_run_together_and_nobody_starves(
        ranges in ranges(), choices in prop::collection::vec(any::<prop::sample::Index>(), 600)
    ) {
        let locks = RangeLocks::default();
        let mut waiting: Vec<_> = ranges
            .iter()
            .map(|(start, length, far)| {
                let start = if *far { start + 10_000 } else { *start };
                let range = start..start + length;
                (range.clone(), Box::pin(locks.write(range)))
            })
            .collect();
        let mut granted: Vec<(Range<u64>, WriteGuard<'_>)> = Vec::new();
        for choice in choices {
            if waiting.is_empty() {
                break;
            }
            let index = choice.index(waiting.len());
            if let Poll::Ready(guard) = poll(waiting[index].1.as_mut()) {
                let (range, _) = waiting.swap_remove(index);
                let apart = granted
                    .iter()
                    .all(|(other, _)| other.end <= range.start || range.end <= other.start);
                prop_assert!(apart, "{:?} was granted beside one that it overlaps", range);
                granted.push((range, guard));
            } else if !granted.is_empty() && index % 2 == 0 {
                granted.swap_remove(index % granted.len());
            }
        }
        granted.clear();
        // Each round at least the one that asked first is granted.
        for _ in 0..waiting.len() {
            waiting.retain_mut(|(_, future)| poll(future.as_mut()).is_pending());
        }
        prop_assert!(waiting.is_empty());
    }
}
