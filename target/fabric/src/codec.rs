//! The NVMe/TCP codec: pure state machines, bytes in, events out, for both ends of a queue pair.
//!
//! Nothing here knows a socket, a clock or an executor, so that every rule of CONFORMANCE 1.1 to 1.7 is
//! tested and fuzzed on byte slices. `target` uses [`TargetCodec`], `host` uses [`HostCodec`]; both write
//! PDUs with [`encode`].
//!
//! Invariants:
//! 1. A length from the wire is compared with its limit before anything is buffered or allocated for it.
//! 2. The events do not depend on how the byte stream was cut into pieces.
//! 3. After a [`Violation`] the codec swallows everything: PDUs after our TermReq are ignored (CONFORMANCE T-89).

mod commands;
mod digest;
pub mod encode;
mod frame;
mod host;
mod limits;
mod sgl;
mod target;
#[cfg(test)]
mod tests;
mod violation;

pub(crate) use commands::AdmitError;
pub use commands::{CommandData, Commands, Transfer};
pub use digest::{Digests, crc32c};
pub(crate) use host::SLOT_MASK;
pub use host::{HostCodec, HostEvent, HostFault};
pub use limits::WireLimits;
pub use target::{CodecError, IcRequest, TargetCodec, TargetEvent};
pub use violation::Violation;
