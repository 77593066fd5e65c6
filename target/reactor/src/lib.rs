//! The machine's edge: a runtime per core, page-aligned buffers and the disk ring. All
//! hand-written `unsafe` of the project lives in this crate.
pub mod buffer;
pub mod clock;
pub mod disk;
mod fifo;
mod memory;
pub use buffer::{Buffer, BufferMut, BufferPool, MAX_BUFFER_BYTES};
pub use disk::DiskError;
