//! Page-aligned buffers out of a bounded pool. A buffer that a socket filled is the buffer that
//! the disk reads and that replicas are sent, with no copy between. The fabric, the store and
//! the simulator all use these types; no ring and no reactor is needed for them.

mod buddy;
mod handle;
mod pool;
#[cfg(test)]
mod tests;

pub use handle::{Buffer, BufferMut};
pub(crate) use pool::REGISTRATION_BYTES;
pub use pool::{BufferPool, MAX_BUFFER_BYTES};
