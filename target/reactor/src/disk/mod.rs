//! Disks.
mod error;
pub use error::DiskError;
