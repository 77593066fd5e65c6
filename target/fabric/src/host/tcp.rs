//! A host's queue pair over TCP.

mod driver;
mod link;
mod open;

pub(super) use link::TcpLink;
pub(super) use open::open;
