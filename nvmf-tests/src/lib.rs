//! The lab: stock Linux hosts in virtual machines, and what is needed to test Afs with them.
//!
//! `cargo lab` (`src/bin/lab.rs`) is the face for people; the end-to-end tests in `tests/` use the same parts as a
//! library. From the outside in:
//!
//! - [`prepare`](mod@prepare) gets tools and Debian kernels onto this machine, [`guest`] boots one and runs commands in it;
//! - [`agent`] is the other end: the `lab` binary itself, started inside the guest from the shared root;
//! - [`commands`] is what a person calls.
//!
//! The lab does not link the daemons: it starts the programs that a user would start.

pub mod agent;
pub mod bench;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod daemon;
pub mod fio;
pub mod guest;
pub mod guest_node;
pub mod http;
pub mod ledger;
pub mod node;
pub mod nvme;
pub mod paths;
pub mod postgres;
pub mod prepare;
pub mod process;
pub mod scene;
pub mod table;
pub mod wire;
pub mod writers;
pub mod zookeeper;
