//! The pool against a plain model, and its queue of waiters.
#![allow(clippy::unwrap_used)]

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::{Buffer, BufferMut, BufferPool, MAX_BUFFER_BYTES};

const MIB: usize = 1 << 20;

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[derive(Debug, Clone)]
enum Step {
    Allocate(usize),
    Split(usize, usize),
    Join(usize, usize),
    Truncate(usize, usize),
    Freeze(usize),
    Slice(usize, usize, usize),
    Thaw(usize),
    DropUnique(usize),
    DropShared(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0..64usize;
    prop_oneof![
        4 => (1..=MAX_BUFFER_BYTES).prop_map(Step::Allocate),
        4 => (1..20_000usize).prop_map(Step::Allocate),
        2 => (index.clone(), 0..100usize).prop_map(|(i, p)| Step::Split(i, p)),
        2 => (index.clone(), index.clone()).prop_map(|(i, j)| Step::Join(i, j)),
        1 => (index.clone(), 0..100usize).prop_map(|(i, p)| Step::Truncate(i, p)),
        2 => index.clone().prop_map(Step::Freeze),
        2 => (index.clone(), 0..100usize, 0..100usize).prop_map(|(i, a, b)| Step::Slice(i, a, b)),
        1 => index.clone().prop_map(Step::Thaw),
        3 => index.clone().prop_map(Step::DropUnique),
        3 => index.prop_map(Step::DropShared),
    ]
}

/// Real buffers, each beside the bytes that it must hold.
#[derive(Default)]
struct World {
    unique: Vec<(BufferMut, Vec<u8>)>,
    shared: Vec<(Buffer, Vec<u8>)>,
    stamp: u8,
}

impl World {
    fn apply(&mut self, pool: &BufferPool, step: Step) {
        let (unique, shared) = (self.unique.len().max(1), self.shared.len().max(1));
        match step {
            Step::Allocate(len) => self.allocate(pool, len),
            Step::Split(i, percent) => self.split(i % unique, percent),
            Step::Join(i, j) => self.join(i % unique, j % unique),
            Step::Truncate(i, percent) => {
                if let Some((buffer, model)) = self.unique.get_mut(i % unique) {
                    let keep = model.len() * percent / 100;
                    buffer.truncate(keep);
                    model.truncate(keep);
                }
            }
            Step::Freeze(i) if i % unique < self.unique.len() => {
                let (buffer, model) = self.unique.swap_remove(i % unique);
                self.shared.push((buffer.freeze(), model));
            }
            Step::Slice(i, a, b) => {
                if let Some((buffer, model)) = self.shared.get(i % shared) {
                    let (a, b) = (model.len() * a.min(b) / 100, model.len() * a.max(b) / 100);
                    let part = (buffer.slice(a..b), model[a..b].to_vec());
                    self.shared.push(part);
                }
            }
            Step::Thaw(i) if i % shared < self.shared.len() => self.thaw(i % shared),
            Step::DropUnique(i) if i % unique < self.unique.len() => {
                self.unique.swap_remove(i % unique);
            }
            Step::DropShared(i) if i % shared < self.shared.len() => {
                self.shared.swap_remove(i % shared);
            }
            _ => {}
        }
    }

    fn allocate(&mut self, pool: &BufferPool, len: usize) {
        let Some(mut buffer) = pool.try_alloc(len) else { return };
        assert_eq!(buffer.len(), len);
        assert_eq!(buffer.as_ptr() as usize % 4096, 0);
        self.stamp = self.stamp.wrapping_add(1);
        buffer.fill(self.stamp);
        self.unique.push((buffer, vec![self.stamp; len]));
    }

    fn split(&mut self, i: usize, percent: usize) {
        let Some((buffer, model)) = self.unique.get_mut(i) else { return };
        let at = model.len() * percent / 100;
        let front = buffer.split_to(at);
        let rest = model.split_off(at);
        let front_model = std::mem::replace(model, rest);
        self.unique.push((front, front_model));
    }

    fn join(&mut self, i: usize, j: usize) {
        if i == j || i.max(j) >= self.unique.len() {
            return;
        }
        let (other, other_model) = self.unique.swap_remove(j);
        let i = if i == self.unique.len() { j } else { i };
        let (buffer, model) = &mut self.unique[i];
        match buffer.unsplit(other) {
            Ok(()) => model.extend(other_model),
            Err(other) => self.unique.push((other, other_model)),
        }
    }

    fn thaw(&mut self, i: usize) {
        let (buffer, mut model) = self.shared.swap_remove(i);
        match buffer.try_into_mut() {
            Ok(mut buffer) => {
                self.stamp = self.stamp.wrapping_add(1);
                buffer.fill(self.stamp);
                model.fill(self.stamp);
                self.unique.push((buffer, model));
            }
            Err(buffer) => self.shared.push((buffer, model)),
        }
    }

    fn check(&self) {
        assert!(self.unique.iter().all(|(buffer, model)| buffer[..] == model[..]));
        assert!(self.shared.iter().all(|(buffer, model)| buffer[..] == model[..]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn buffers_keep_their_bytes_and_all_come_back(steps in prop::collection::vec(step(), 1..120)) {
        let pool = BufferPool::new(4 * MIB).unwrap();
        let mut world = World::default();
        for step in steps {
            world.apply(&pool, step);
        }
        world.check();
        drop(world);
        prop_assert_eq!(pool.free_bytes(), pool.total_bytes());
        let whole: Vec<_> = (0..4).map(|_| pool.try_alloc(MIB).unwrap()).collect();
        prop_assert!(pool.try_alloc(1).is_none());
        drop(whole);
    }
}

#[test]
fn parts_that_were_split_join_again() {
    let pool = BufferPool::new(MIB).unwrap();
    let mut rest = pool.try_alloc(8192).unwrap();
    let mut front = rest.split_to(4096);
    assert!(rest.unsplit(pool.try_alloc(4096).unwrap()).is_err());
    front.unsplit(rest).unwrap();
    assert_eq!((front.len(), front.capacity()), (8192, 8192));
}

#[test]
fn waiters_get_memory_in_order_of_arrival() {
    let pool = BufferPool::new(MIB).unwrap();
    let all = pool.try_alloc(MIB).unwrap();
    let mut first = Box::pin(pool.alloc(MIB));
    let mut second = Box::pin(pool.alloc(4096));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    drop(all);
    let Poll::Ready(large) = poll_once(first.as_mut()) else { panic!("first in line got nothing") };
    assert!(poll_once(second.as_mut()).is_pending());
    drop(large);
    assert!(poll_once(second.as_mut()).is_ready());
}

#[test]
fn small_requests_cannot_starve_a_large_one() {
    let pool = BufferPool::new(MIB).unwrap();
    let small = pool.try_alloc(4096).unwrap();
    let mut large = Box::pin(pool.alloc(MIB));
    assert!(poll_once(large.as_mut()).is_pending());
    assert!(pool.try_alloc(4096).is_none());
    drop(small);
    assert!(poll_once(large.as_mut()).is_ready());
}

#[test]
fn a_waiter_that_gives_up_leaves_its_grant_to_the_next() {
    let pool = BufferPool::new(MIB).unwrap();
    let all = pool.try_alloc(MIB).unwrap();
    let mut quitter = Box::pin(pool.alloc(MIB));
    let mut next = Box::pin(pool.alloc(MIB));
    assert!(poll_once(quitter.as_mut()).is_pending());
    assert!(poll_once(next.as_mut()).is_pending());
    drop(all);
    drop(quitter);
    assert!(poll_once(next.as_mut()).is_ready());
    drop(next);
    assert_eq!(pool.free_bytes(), MIB);
}

#[test]
fn a_buffer_outlives_every_other_handle_of_its_pool() {
    let pool = BufferPool::new(1).unwrap();
    let mut buffer = pool.try_alloc(10).unwrap();
    drop(pool);
    buffer.fill(7);
    let shared = Rc::new(buffer.freeze());
    assert_eq!(shared[..], [7; 10]);
}
