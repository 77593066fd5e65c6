//! The control plane of Afs: which volume is which namespace of which subsystem, where its
//! replicas live, and who may use it.
//!
//! [`api`] holds the types that nodes and operators speak; the `afs` crate uses only these.

#![forbid(unsafe_code)]

pub mod api;
pub mod db;
pub mod names;
pub mod refusal;
pub mod size;
