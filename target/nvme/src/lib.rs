//! Every NVMe structure that travels between a host and an Afs node, and nothing else: no I/O, no
//! state, no policy.
//!
//! Two kinds of things live here:
//! - **layouts**: `#[repr(C)]` structures read and written in place with `zerocopy`; each asserts
//!   its size and its offsets at compile time;
//! - **typed commands** ([`command`]): what a raw 64-byte submission entry asks for, or the
//!   [`Status`] to answer with.
//!
//! `afs_fabric` uses [`tcp`], [`rdma`], [`sqe`], [`cqe`] and [`sgl`] for both ends of a connection; `afs`
//! answers the commands with [`identify`], [`log`], [`feature`] and [`fabrics`].
//!
//! Ids such as `CONFORMANCE T-30` in the documentation name rows of the project's conformance
//! checklist; section numbers without a name are those of the same list.

#![forbid(unsafe_code)]

#[macro_use]
mod layout;

pub mod command;
pub mod cqe;
pub mod fabrics;
pub mod feature;
pub mod fuzz;
pub mod identify;
pub mod ids;
pub mod log;
pub mod nqn;
pub mod opcode;
pub mod property;
pub mod rdma;
pub mod sgl;
pub mod sqe;
pub mod status;
pub mod tcp;
pub mod text;

pub use cqe::Cqe;
pub use ids::{ControllerId, HostId, Nsid, QueueId};
pub use nqn::{Nqn, NqnError};
pub use sgl::{Sgl, SglDescriptor};
pub use sqe::{Sqe, Transfer};
pub use status::Status;
