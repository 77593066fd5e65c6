//! The node as a hostile host meets it: an in-process [`afs::node::Node`] behind real loopback sockets, row by row of the
//! conformance list. Names of tests end with the rows that they hold.
#![allow(clippy::unwrap_used)]
#![allow(clippy::cast_possible_truncation, reason = "numbers of tests are small")]

mod connect;
mod discovery;
mod events;
mod features;
mod hosts;
mod identify;
mod io_checks;
mod io_data;
mod keep_alive;
mod logs;
mod lone;
mod peers;
mod properties;
mod rig;
