//! One volume, above the store: the order of its reads and writes.
//!
//! `afs` takes a range before it hands a command to the store. A volume lies on one node so far; what a volume over several
//! nodes adds (leader, replicas, epochs) goes here.

#![forbid(unsafe_code)]

mod range_locks;

pub use range_locks::{RangeLocks, WriteGuard};
