//! The pool: one arena, the buddy allocator over it, a reference count per block, and the queue of
//! those who wait for memory.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::buddy::{Buddy, MAX_UNITS, ORDERS, UNIT_BYTES, order_for};
use super::handle::BufferMut;
use crate::fifo::WaitQueue;
use crate::memory::Arena;

/// The largest buffer, and the largest transfer (MDTS): 1 MiB.
pub const MAX_BUFFER_BYTES: usize = UNIT_BYTES << (ORDERS - 1);

/// The kernel registers at most 1 GiB as one buffer; blocks never straddle such a piece.
pub(crate) const REGISTRATION_BYTES: usize = 1 << 30;

struct Inner {
    arena: Arena,
    blocks: RefCell<Buddy>,
    /// How many handles refer to the block that starts at a unit.
    references: Box<[Cell<u32>]>,
    waiters: RefCell<WaitQueue<u8, u32>>,
}

/// A bounded pool of page-aligned memory, of one thread. Cloning it makes another handle to the
/// same pool.
///
/// Blocks are powers of two from 4 KiB to 1 MiB. Handing out, sharing, splitting and returning a
/// buffer allocates nothing on the heap. Memory goes to those who wait in the order in which they
/// began to; while anybody waits, [`try_alloc`](BufferPool::try_alloc) gives nothing, so that
/// small requests cannot starve a large one.
///
/// **Contents**: a buffer holds whatever its previous user left there. Who does not overwrite all
/// of it before showing it to anybody must call [`BufferMut::zero`] first.
#[derive(Clone)]
pub struct BufferPool {
    inner: Rc<Inner>,
}

impl BufferPool {
    /// Maps a pool of `bytes`, rounded up to whole MiB (at least one).
    ///
    /// # Errors
    /// What `mmap` says, or `InvalidInput` for more than 16 TiB.
    pub fn new(bytes: usize) -> io::Result<BufferPool> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "buffer pool too large");
        let bytes =
            bytes.max(1).checked_next_multiple_of(MAX_BUFFER_BYTES).ok_or_else(too_large)?;
        let units = u32::try_from(bytes / UNIT_BYTES).map_err(|_| too_large())?;
        if units > u32::MAX - MAX_UNITS {
            return Err(too_large());
        }
        let inner = Inner {
            arena: Arena::new(bytes)?,
            blocks: RefCell::new(Buddy::new(units)),
            references: vec![Cell::new(0); units as usize].into(),
            waiters: RefCell::new(WaitQueue::new()),
        };
        Ok(BufferPool { inner: Rc::new(inner) })
    }

    /// A buffer of `len` bytes (at most [`MAX_BUFFER_BYTES`]), its contents unspecified. `None`
    /// when no block of that size is free, when somebody already waits, or when `len` is too
    /// large.
    pub fn try_alloc(&self, len: usize) -> Option<BufferMut> {
        if len > MAX_BUFFER_BYTES || !self.inner.waiters.borrow().is_empty() {
            return None;
        }
        let block = self.inner.blocks.borrow_mut().allocate(order_for(len))?;
        Some(self.claim(block, len))
    }

    /// A buffer of `len` bytes, its contents unspecified; waits its turn while the pool is empty.
    /// Dropping the future leaves the queue.
    ///
    /// # Panics
    /// If `len` is more than [`MAX_BUFFER_BYTES`]: lengths that a peer sent are checked against
    /// the transfer limit before anything is allocated.
    pub async fn alloc(&self, len: usize) -> BufferMut {
        assert!(len <= MAX_BUFFER_BYTES, "a buffer of {len} bytes was asked for");
        match self.try_alloc(len) {
            Some(buffer) => buffer,
            None => Allocation { pool: self, len, key: None }.await,
        }
    }

    /// Does anybody wait for memory?
    pub(crate) fn has_waiters(&self) -> bool {
        !self.inner.waiters.borrow().is_empty()
    }

    /// Bytes in free blocks.
    pub fn free_bytes(&self) -> usize {
        self.inner.blocks.borrow().free_units() as usize * UNIT_BYTES
    }

    /// Bytes in all.
    pub fn total_bytes(&self) -> usize {
        self.inner.arena.bytes()
    }

    /// Are these two handles of one pool?
    pub fn same_as(&self, other: &BufferPool) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }

    /// The pool's memory, in pieces of at most [`REGISTRATION_BYTES`], for registration.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (NonNull<u8>, usize)> {
        let (base, bytes) = (self.inner.arena.base(), self.inner.arena.bytes());
        (0..bytes).step_by(REGISTRATION_BYTES).map(move |offset| {
            // SAFETY: `offset < bytes`, so the result stays inside the arena.
            (unsafe { base.add(offset) }, REGISTRATION_BYTES.min(bytes - offset))
        })
    }

    /// First byte of a block.
    pub(super) fn address(&self, block: u32) -> NonNull<u8> {
        // SAFETY: only called with blocks that this pool handed out, all inside the arena.
        unsafe { self.inner.arena.base().add(block as usize * UNIT_BYTES) }
    }

    /// Length of a used block in bytes.
    pub(super) fn block_bytes(&self, block: u32) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "UNIT_BYTES is 4096")]
        let unit = UNIT_BYTES as u32;
        unit << self.inner.blocks.borrow().used_order(block)
    }

    pub(super) fn references(&self, block: u32) -> u32 {
        self.inner.references[block as usize].get()
    }

    pub(super) fn retain(&self, block: u32) {
        let count = &self.inner.references[block as usize];
        // A count that wraps would free memory in use; four billion handles do not fit in memory,
        // but forgetting clones in a loop could get there.
        count.set(count.get().checked_add(1).unwrap_or_else(|| std::process::abort()));
    }

    pub(super) fn release(&self, block: u32) {
        let count = &self.inner.references[block as usize];
        count.set(count.get() - 1);
        if count.get() == 0 {
            self.inner.blocks.borrow_mut().release(block);
            self.serve_waiters();
        }
    }

    fn claim(&self, block: u32, len: usize) -> BufferMut {
        self.inner.references[block as usize].set(1);
        BufferMut::claimed(self.clone(), block, len)
    }

    fn serve_waiters(&self) {
        while let Some(waker) = self.serve_one() {
            waker.wake();
        }
    }

    fn serve_one(&self) -> Option<std::task::Waker> {
        let mut waiters = self.inner.waiters.borrow_mut();
        let order = waiters.front()?;
        let block = self.inner.blocks.borrow_mut().allocate(order)?;
        match waiters.grant(block) {
            Ok(waker) => Some(waker),
            Err(block) => {
                self.inner.blocks.borrow_mut().release(block);
                None
            }
        }
    }
}

/// One turn in the queue for memory.
struct Allocation<'a> {
    pool: &'a BufferPool,
    len: usize,
    key: Option<usize>,
}

impl Future for Allocation<'_> {
    type Output = BufferMut;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<BufferMut> {
        let mut waiters = self.pool.inner.waiters.borrow_mut();
        let Some(key) = self.key else {
            let key = waiters.enqueue(order_for(self.len), context.waker().clone());
            drop(waiters);
            self.key = Some(key);
            return Poll::Pending;
        };
        let Some(block) = waiters.poll(key, context.waker()) else { return Poll::Pending };
        drop(waiters);
        self.key = None;
        Poll::Ready(self.pool.claim(block, self.len))
    }
}

impl Drop for Allocation<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let granted = self.pool.inner.waiters.borrow_mut().cancel(key);
        if let Some(block) = granted {
            self.pool.inner.blocks.borrow_mut().release(block);
        }
        // One that waited for much may have stood before others that need less.
        self.pool.serve_waiters();
    }
}
