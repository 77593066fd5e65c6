//! The connection manager: ids, which are connections in the making, and the channel that their
//! events come from. Control plane: used from any thread and any tokio runtime.
//!
//! Ids carry no queue pair of librdmacm's. Our queue pairs are made and moved through their states
//! by `bring_up`, so that the thread that reads events touches one only under the lock of its id,
//! and no reactor can destroy it at that moment.

mod bring_up;
mod channel;
mod event;
mod id;

pub(super) use bring_up::{Access, PairSlot};
pub use channel::{CmChannel, CmWatch};
pub use event::{CmEvent, CmEventKind, ConnectRequest, PrivateData};
pub(super) use id::IdInner;
pub use id::{CmId, CmKey};
