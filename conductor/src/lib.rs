//! The control plane of Afs: which volume is which namespace of which subsystem, where its
//! replicas live, and who may use it.
//!
//! [`api`] holds the types that nodes and operators speak; the `afs` crate uses only these.

#![forbid(unsafe_code)]

pub mod api;
mod connect;
pub mod db;
pub mod names;
mod placement;
pub mod refusal;
pub mod server;
pub mod size;
