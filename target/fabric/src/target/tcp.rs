//! Queue pairs over TCP: the listener, and the [`Wire`](super::connection::Wire) of a connection.

mod incoming;
mod listener;
mod part;
mod receive;
mod responses;
mod serve;
mod wire;

pub use listener::{Listener, listen_tcp};
pub use serve::serve_tcp;
