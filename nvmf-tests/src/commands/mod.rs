//! What `cargo lab` does for a person, one file per command.

pub mod shell;
pub mod test;
