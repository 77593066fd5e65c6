//! Raw submission entries parsed into typed commands. A parse error is the [`Status`] to answer.
//!
//! `afs` calls these in the order of CONFORMANCE 5.2: [`check_flags`] (row 2), then one of the
//! `parse` functions (row 3), its own checks of namespace and access (rows 4 to 9), and for I/O
//! [`io::check_control`] (row 10). Each type also has `to_sqe`, for the host side and the tests.

pub mod admin;
pub mod fabrics;
pub mod io;

#[cfg(test)]
mod tests;

use zerocopy::FromBytes;

use crate::sgl::SglDescriptor;
use crate::sqe::{FLAGS_FUSE_MASK, FLAGS_PSDT_MASK, FLAGS_SGL, Sqe};
use crate::status::Status;

pub use admin::AdminCommand;
pub use fabrics::{Connect, FabricsCommand};
pub use io::{DsmRange, IoCommand, Rw};

/// Refuses fused commands and every data pointer but an SGL.
///
/// # Errors
/// [`Status::INVALID_FIELD`] with DNR (CONFORMANCE 5.2 row 2, T-25).
pub const fn check_flags(sqe: &Sqe) -> Result<(), Status> {
    if sqe.flags & FLAGS_FUSE_MASK == 0 && sqe.flags & FLAGS_PSDT_MASK == FLAGS_SGL {
        Ok(())
    } else {
        Err(Status::INVALID_FIELD.dnr())
    }
}

/// One raw command seen through every parser of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnyCommand {
    /// Outcome of [`check_flags`].
    pub flags: Result<(), Status>,
    /// Outcome of [`io::check_control`].
    pub control: Result<(), Status>,
    /// Its data pointer.
    pub sgl: Result<SglDescriptor, Status>,
    /// As a command of an admin queue.
    pub admin: Result<AdminCommand, Status>,
    /// As a command of an I/O queue.
    pub io: Result<IoCommand, Status>,
    /// As a fabrics command.
    pub fabrics: Result<FabricsCommand, Status>,
}

/// Runs every parser over the first 64 bytes; `None` when there are fewer. This is the way in for
/// fuzzers: it must return for any input.
pub fn parse_any(bytes: &[u8]) -> Option<AnyCommand> {
    let (sqe, _) = Sqe::ref_from_prefix(bytes).ok()?;
    Some(AnyCommand {
        flags: check_flags(sqe),
        control: io::check_control(sqe),
        sgl: sqe.sgl.parse(),
        admin: AdminCommand::parse(sqe),
        io: IoCommand::parse(sqe),
        fabrics: FabricsCommand::parse(sqe),
    })
}
