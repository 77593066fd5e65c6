//! The two handles on pool memory: `BufferMut`, which alone may write its bytes, and `Buffer`,
//! which many may read.
//!
//! Invariants that the unsafe code below rests on:
//! 1. A handle holds one reference of its block (`Hold`), so the block is not handed out again
//!    while the handle lives.
//! 2. The range `start..start + capacity` of a `BufferMut` lies in its block and is disjoint from
//!    the range of every other handle of that block; `len <= capacity`.
//! 3. The range `start..start + len` of a `Buffer` lies in its block; nobody writes there.
//! 4. Handles stay on the pool's thread (`Rc` inside), so counts need no atomics.
//! 5. All memory of the pool is initialised: the kernel delivered it as zeros.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

use super::pool::BufferPool;

/// One reference of one block.
struct Hold {
    pool: BufferPool,
    block: u32,
}

impl Clone for Hold {
    fn clone(&self) -> Hold {
        self.pool.retain(self.block);
        Hold { pool: self.pool.clone(), block: self.block }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.pool.release(self.block);
    }
}

impl Hold {
    fn address(&self, start: u32) -> NonNull<u8> {
        // SAFETY: callers pass the start of a handle's range, inside the block (invariants 2, 3).
        unsafe { self.pool.address(self.block).add(start as usize) }
    }

    fn same_as(&self, other: &Hold) -> bool {
        self.block == other.block && self.pool.same_as(&other.pool)
    }
}

/// A buffer that is its holder's alone. Fresh ones have unspecified contents (see
/// [`BufferPool`]). Its memory starts at a page boundary unless it was split elsewhere.
pub struct BufferMut {
    hold: Hold,
    start: u32,
    len: u32,
    capacity: u32,
}

impl BufferMut {
    /// The first handle of a block whose reference was just counted; `len` fits into the block.
    pub(super) fn claimed(pool: BufferPool, block: u32, len: usize) -> BufferMut {
        let capacity = pool.block_bytes(block);
        BufferMut { hold: Hold { pool, block }, start: 0, len: length(len).min(capacity), capacity }
    }

    /// How far [`set_len`](BufferMut::set_len) may go, in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// The pool that this memory goes back to.
    pub fn pool(&self) -> &BufferPool {
        &self.hold.pool
    }

    /// Overwrites every byte with zero.
    pub fn zero(&mut self) {
        self.fill(0);
    }

    /// Shortens the buffer to `len` bytes; does nothing when it is not longer than that. The
    /// memory stays with the buffer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(length(len));
    }

    /// Sets the length. Bytes that come into view are unspecified.
    ///
    /// # Panics
    /// If `len` is more than [`capacity`](BufferMut::capacity).
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "{len} bytes in a buffer of {}", self.capacity);
        self.len = length(len);
    }

    /// Cuts off and returns the first `at` bytes; the rest stays here. Both parts belong to one
    /// block, which goes back to the pool when the last part does.
    ///
    /// # Panics
    /// If `at` is more than the length.
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> BufferMut {
        assert!(at <= self.len(), "split at {at} of a buffer of {} bytes", self.len);
        let at = length(at);
        let front = BufferMut { hold: self.hold.clone(), start: self.start, len: at, capacity: at };
        self.start += at;
        self.len -= at;
        self.capacity -= at;
        front
    }

    /// Joins `other`, which must be the part that directly follows this one.
    ///
    /// # Errors
    /// `other` unchanged, when it is no neighbour or this part was shortened since the split.
    pub fn unsplit(&mut self, other: BufferMut) -> Result<(), BufferMut> {
        let adjacent = self.hold.same_as(&other.hold)
            && self.start + self.capacity == other.start
            && self.len == self.capacity;
        if !adjacent {
            return Err(other);
        }
        self.len += other.len;
        self.capacity += other.capacity;
        Ok(())
    }

    /// Ends writing: from now on the bytes can be shared.
    pub fn freeze(self) -> Buffer {
        Buffer { hold: self.hold, start: self.start, len: self.len }
    }
}

impl Deref for BufferMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let address = self.hold.address(self.start).as_ptr();
        // SAFETY: invariants 1, 2 and 5: ours alone, alive, initialised; `&self` keeps writers out.
        unsafe { std::slice::from_raw_parts(address, self.len as usize) }
    }
}

impl DerefMut for BufferMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        let address = self.hold.address(self.start).as_ptr();
        // SAFETY: invariants 1, 2 and 5: ours alone, alive, initialised; `&mut self` is the only way in.
        unsafe { std::slice::from_raw_parts_mut(address, self.len as usize) }
    }
}

impl AsRef<[u8]> for BufferMut {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferMut({} of {} bytes)", self.len, self.capacity)
    }
}

/// Shared bytes that nobody changes any more. A clone or a slice is another reference to the same
/// memory; the last one to go returns it to the pool.
#[derive(Clone)]
pub struct Buffer {
    hold: Hold,
    start: u32,
    len: u32,
}

impl Buffer {
    /// The part `range`, sharing the memory.
    ///
    /// # Panics
    /// If `range` is not inside the buffer.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Buffer {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "slice {range:?} of a buffer of {} bytes",
            self.len
        );
        let start = self.start + length(range.start);
        Buffer { hold: self.hold.clone(), start, len: length(range.end - range.start) }
    }

    /// The pool that this memory goes back to.
    pub fn pool(&self) -> &BufferPool {
        &self.hold.pool
    }

    /// Makes the buffer writable again when no other handle of its block is left; its capacity then
    /// reaches to the end of the block.
    ///
    /// # Errors
    /// The buffer unchanged, while it is shared.
    pub fn try_into_mut(self) -> Result<BufferMut, Buffer> {
        let Hold { pool, block } = &self.hold;
        if pool.references(*block) != 1 {
            return Err(self);
        }
        let capacity = pool.block_bytes(*block) - self.start;
        Ok(BufferMut { start: self.start, len: self.len, capacity, hold: self.hold })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let address = self.hold.address(self.start).as_ptr();
        // SAFETY: invariants 1, 3 and 5: alive, initialised, and nobody writes there.
        unsafe { std::slice::from_raw_parts(address, self.len as usize) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

/// Lengths inside a block fit: blocks are at most 1 MiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
