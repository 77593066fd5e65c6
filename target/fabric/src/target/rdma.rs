//! Queue pairs over RDMA: the listener, and the [`Wire`](super::connection::Wire) of a connection (CONFORMANCE 2).
//!
//! One task per listener hears the connection manager's events and hands each connection to a reactor; from then on the
//! queue pair lives there, on that reactor's completion queues and shared receive queue of its device.

mod capsule;
mod listener;
mod place;
mod serve;
mod table;
mod wire;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use listener::RdmaListener;
