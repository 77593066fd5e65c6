//! The Afs node: subsystems, controllers, discovery and namespaces for stock NVMe-oF hosts, and the `afs` daemon.
//!
//! A command comes from the fabric to [`queue`], which sends it to [`connect`], [`admin`] or [`io`]:
//!
//! ```text
//! fabric ─ queue ┬ connect ── node ── subsystem ── controller
//!                ├ admin (identify, logs, features, events) ── controller
//!                └ io ── namespace ── backend ── store
//! ```
//!
//! [`node`] makes the conductor's wanted state visible to hosts. [`agent`] fetches that state, [`disks`] owns the stores,
//! [`daemon`] and [`standalone`] put it all together. Ids such as `CONFORMANCE A-40` name rows of the conformance list.

#![forbid(unsafe_code)]

pub mod admin;
pub mod agent;
pub mod backend;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod connect;
pub mod controller;
pub mod daemon;
pub mod data_folder;
pub mod discovery;
pub mod disk_command;
pub mod disks;
pub mod error_log;
pub mod events;
pub mod features;
pub mod http;
pub mod io;
pub mod keep_alive;
pub mod limits;
pub mod link;
pub mod listeners;
pub mod metrics;
pub mod namespace;
pub mod node;
pub mod portal;
pub mod ports;
pub mod properties;
pub mod pulse;
pub mod queue;
pub mod signals;
pub mod standalone;
pub mod subsystem;
pub mod volumes;
