//! Fabrics commands (CONFORMANCE 3).

use crate::fabrics::{CATTR_DISABLE_SQ_FLOW, ConnectCommand};
use crate::opcode::{FABRICS, fabrics as fctype};
use crate::property::PropertySize;
use crate::sqe::Sqe;
use crate::status::Status;

/// Security protocol of DH-HMAC-CHAP.
const SECP_NVME: u8 = 0xe9;

/// A fabrics command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FabricsCommand {
    /// Create this queue pair.
    Connect(Connect),
    /// Read a property. Which exist, and their sizes: [`crate::property::PropertyOffset`].
    PropertyGet {
        /// Byte offset.
        offset: u32,
        /// Bytes to read.
        size: PropertySize,
    },
    /// Write a property.
    PropertySet {
        /// Byte offset.
        offset: u32,
        /// Bytes to write.
        size: PropertySize,
        /// The value; upper half 0 unless the size is eight.
        value: u64,
    },
    /// An authentication message from the host.
    AuthSend {
        /// Bytes of it.
        length: u32,
    },
    /// Room for an authentication message to the host.
    AuthReceive {
        /// Bytes of it.
        length: u32,
    },
    /// Delete this queue pair; not offered (OFCS 0), to be answered with an invalid opcode.
    Disconnect,
}

/// The parameters of a Connect command. Its data is [`crate::fabrics::ConnectData`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Queue to create; 0 is the admin queue.
    pub qid: u16,
    /// Entries of the queue less one; unchecked.
    pub sqsize: u16,
    /// The host does without SQ flow control: report head 0xffff.
    pub disable_sq_flow: bool,
    /// Keep-alive timeout in milliseconds, 0 for none.
    pub kato_ms: u32,
}

impl FabricsCommand {
    /// Reads a fabrics command.
    ///
    /// # Errors
    /// [`Status::INVALID_OPCODE`] with DNR for another opcode or type,
    /// [`Status::CONNECT_INCOMPATIBLE_FORMAT`] with DNR for an unknown Connect format,
    /// [`Status::INVALID_FIELD`] for a reserved property size (without DNR, as nvme-cli wants) or
    /// another security protocol (with DNR).
    pub fn parse(sqe: &Sqe) -> Result<FabricsCommand, Status> {
        if !sqe.is_fabrics() {
            return Err(Status::INVALID_OPCODE.dnr());
        }
        match sqe.fctype() {
            fctype::CONNECT => connect(sqe).map(FabricsCommand::Connect),
            fctype::PROPERTY_GET => property_get(sqe),
            fctype::PROPERTY_SET => property_set(sqe),
            fctype::AUTH_SEND => Ok(FabricsCommand::AuthSend { length: auth_length(sqe)? }),
            fctype::AUTH_RECEIVE => Ok(FabricsCommand::AuthReceive { length: auth_length(sqe)? }),
            fctype::DISCONNECT => Ok(FabricsCommand::Disconnect),
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    /// The raw command, without identifier; Connect's data pointer says 1024 bytes in the capsule,
    /// the others have none.
    pub fn to_sqe(self) -> Sqe {
        match self {
            FabricsCommand::Connect(connect) => connect.to_sqe(),
            FabricsCommand::PropertyGet { offset, size } => {
                property(fctype::PROPERTY_GET, offset, size, 0)
            }
            FabricsCommand::PropertySet { offset, size, value } => {
                property(fctype::PROPERTY_SET, offset, size, value)
            }
            FabricsCommand::AuthSend { length } => auth(fctype::AUTH_SEND, length),
            FabricsCommand::AuthReceive { length } => auth(fctype::AUTH_RECEIVE, length),
            FabricsCommand::Disconnect => raw(fctype::DISCONNECT),
        }
    }
}

impl Connect {
    /// The raw command, without identifier, its data in the capsule.
    pub fn to_sqe(self) -> Sqe {
        let cattr = if self.disable_sq_flow { CATTR_DISABLE_SQ_FLOW } else { 0 };
        let command = ConnectCommand::new(self.qid, self.sqsize, cattr, self.kato_ms);
        zerocopy::transmute!(command)
    }
}

fn connect(sqe: &Sqe) -> Result<Connect, Status> {
    let command: &ConnectCommand = zerocopy::transmute_ref!(sqe);
    if command.recfmt.get() != 0 {
        return Err(Status::CONNECT_INCOMPATIBLE_FORMAT.dnr());
    }
    Ok(Connect {
        qid: command.qid.get(),
        sqsize: command.sqsize.get(),
        disable_sq_flow: command.cattr & CATTR_DISABLE_SQ_FLOW != 0,
        kato_ms: command.kato.get(),
    })
}

fn property_size(sqe: &Sqe) -> Result<PropertySize, Status> {
    match sqe.cdw10() & 7 {
        0 => Ok(PropertySize::Four),
        1 => Ok(PropertySize::Eight),
        _ => Err(Status::INVALID_FIELD),
    }
}

fn property_get(sqe: &Sqe) -> Result<FabricsCommand, Status> {
    Ok(FabricsCommand::PropertyGet { offset: sqe.cdw11(), size: property_size(sqe)? })
}

fn property_set(sqe: &Sqe) -> Result<FabricsCommand, Status> {
    let size = property_size(sqe)?;
    let upper = if size == PropertySize::Eight { u64::from(sqe.cdw13()) << 32 } else { 0 };
    let value = upper | u64::from(sqe.cdw12());
    Ok(FabricsCommand::PropertySet { offset: sqe.cdw11(), size, value })
}

fn auth_length(sqe: &Sqe) -> Result<u32, Status> {
    match sqe.cdw10.to_bytes() {
        [_, 1, 1, SECP_NVME] => Ok(sqe.cdw11()),
        _ => Err(Status::INVALID_FIELD.dnr()),
    }
}

fn raw(fctype: u8) -> Sqe {
    let mut sqe = Sqe::new(FABRICS);
    sqe.nsid.set(u32::from(fctype));
    sqe
}

fn property(fctype: u8, offset: u32, size: PropertySize, value: u64) -> Sqe {
    let mut sqe = raw(fctype);
    sqe.cdw10.set(u32::from(size as u8));
    sqe.cdw11.set(offset);
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    sqe.cdw12.set(u32::from_le_bytes([a, b, c, d]));
    if size == PropertySize::Eight {
        sqe.cdw13.set(u32::from_le_bytes([e, f, g, h]));
    }
    sqe
}

fn auth(fctype: u8, length: u32) -> Sqe {
    let mut sqe = raw(fctype);
    sqe.cdw10.set(u32::from_le_bytes([0, 1, 1, SECP_NVME]));
    sqe.cdw11.set(length);
    sqe
}
