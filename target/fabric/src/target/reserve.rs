//! A few buffers per reactor that I/O cannot use up, so that keep-alive and logs go on while it holds all others.

use std::cell::OnceCell;
use std::io;

use afs_reactor::BufferPool;

/// Buffers per reactor that admin commands and, when the pool is empty, in-capsule data are given. Memory is
/// touched only when used.
const RESERVE_BYTES: usize = 8 << 20;

thread_local! {
    static RESERVE: OnceCell<BufferPool> = const { OnceCell::new() };
}

/// The reserve of the calling reactor, made when first asked for.
pub(super) fn reserve() -> io::Result<BufferPool> {
    RESERVE.with(|cell| match cell.get() {
        Some(pool) => Ok(pool.clone()),
        None => {
            let pool = BufferPool::new(RESERVE_BYTES)?;
            Ok(cell.get_or_init(|| pool).clone())
        }
    })
}
