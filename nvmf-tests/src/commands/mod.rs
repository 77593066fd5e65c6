//! What `cargo lab` does for a person, one file per command.

pub mod bench;
pub mod demo;
pub mod shell;
pub mod test;
