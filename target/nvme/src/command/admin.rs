//! Admin commands (CONFORMANCE 4). Which CNS, log page or feature exists is decided in `afs`.

use crate::feature::Select;
use crate::opcode::admin as opcode;
use crate::sqe::Sqe;
use crate::status::Status;

/// An admin command that a controller may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminCommand {
    /// Read an Identify structure; always 4096 bytes (CONFORMANCE 4.2).
    Identify {
        /// Which structure; see [`crate::identify::cns`].
        cns: u8,
        /// Controller that the question is about, where one is.
        cntid: u16,
        /// Command set that the question is about.
        csi: u8,
    },
    /// Read a log page (CONFORMANCE 4.5).
    GetLogPage {
        /// Which log; see [`crate::log::lid`].
        lid: u8,
        /// Log specific parameter, 7 bits.
        lsp: u8,
        /// Retain the asynchronous event (do not re-arm it).
        rae: bool,
        /// Bytes to transfer: a multiple of 4 from 4 to 2^34.
        bytes: u64,
        /// Where to start, in bytes: a multiple of 4.
        offset: u64,
        /// Command set that the log is about.
        csi: u8,
    },
    /// Read a feature (CONFORMANCE 4.6).
    GetFeatures {
        /// Which feature; see [`crate::feature::fid`].
        fid: u8,
        /// Which of its values.
        sel: Select,
        /// Feature specific.
        cdw11: u32,
    },
    /// Change a feature.
    SetFeatures {
        /// Which feature.
        fid: u8,
        /// Keep the value over a reset.
        save: bool,
        /// Feature specific.
        cdw11: u32,
        /// Feature specific.
        cdw12: u32,
    },
    /// To be completed when an event happens.
    AsyncEventRequest,
    /// A sign of life.
    KeepAlive,
    /// Abort a command.
    Abort {
        /// Queue of the command.
        sqid: u16,
        /// Its identifier.
        cid: u16,
    },
}

/// CDW10 bit 15 of Get Log Page.
const RETAIN_EVENT: u32 = 1 << 15;
/// CDW14 bit 23 of Get Log Page: the offset counts entries.
const OFFSET_IS_INDEX: u32 = 1 << 23;
/// CDW10 bit 31 of Set Features.
const SAVE: u32 = 1 << 31;

impl AdminCommand {
    /// Reads an admin command other than a fabrics one.
    ///
    /// # Errors
    /// [`Status::INVALID_OPCODE`] with DNR for what is not served (CONFORMANCE A-56),
    /// [`Status::INVALID_FIELD`] for a log offset that is not a multiple of 4 (CONFORMANCE A-31)
    /// or counts entries, and with DNR for a reserved selection.
    pub fn parse(sqe: &Sqe) -> Result<AdminCommand, Status> {
        match sqe.opcode {
            opcode::IDENTIFY => Ok(identify(sqe)),
            opcode::GET_LOG_PAGE => get_log_page(sqe),
            opcode::GET_FEATURES => get_features(sqe),
            opcode::SET_FEATURES => Ok(set_features(sqe)),
            opcode::ASYNC_EVENT_REQUEST => Ok(AdminCommand::AsyncEventRequest),
            opcode::KEEP_ALIVE => Ok(AdminCommand::KeepAlive),
            opcode::ABORT => Ok(abort(sqe)),
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    /// The raw command for a namespace (0 for none), without data pointer and identifier. Of a log
    /// length only what fits in its 32-bit dword count is kept.
    pub fn to_sqe(self, nsid: u32) -> Sqe {
        let mut sqe = match self {
            AdminCommand::Identify { cns, cntid, csi } => {
                let mut sqe = Sqe::new(opcode::IDENTIFY);
                sqe.cdw10.set(u32::from(cns) | u32::from(cntid) << 16);
                sqe.cdw11.set(u32::from(csi) << 24);
                sqe
            }
            AdminCommand::GetLogPage { .. } => self.log_page_sqe(),
            AdminCommand::GetFeatures { fid, sel, cdw11 } => {
                let mut sqe = Sqe::new(opcode::GET_FEATURES);
                sqe.cdw10.set(u32::from(fid) | u32::from(sel as u8) << 8);
                sqe.cdw11.set(cdw11);
                sqe
            }
            AdminCommand::SetFeatures { fid, save, cdw11, cdw12 } => {
                let mut sqe = Sqe::new(opcode::SET_FEATURES);
                sqe.cdw10.set(u32::from(fid) | if save { SAVE } else { 0 });
                sqe.cdw11.set(cdw11);
                sqe.cdw12.set(cdw12);
                sqe
            }
            AdminCommand::AsyncEventRequest => Sqe::new(opcode::ASYNC_EVENT_REQUEST),
            AdminCommand::KeepAlive => Sqe::new(opcode::KEEP_ALIVE),
            AdminCommand::Abort { sqid, cid } => {
                let mut sqe = Sqe::new(opcode::ABORT);
                sqe.cdw10.set(u32::from(sqid) | u32::from(cid) << 16);
                sqe
            }
        };
        sqe.nsid.set(nsid);
        sqe
    }

    fn log_page_sqe(self) -> Sqe {
        let mut sqe = Sqe::new(opcode::GET_LOG_PAGE);
        if let AdminCommand::GetLogPage { lid, lsp, rae, bytes, offset, csi } = self {
            let dwords_less_one = u32::try_from((bytes / 4).saturating_sub(1)).unwrap_or(u32::MAX);
            let event = if rae { RETAIN_EVENT } else { 0 };
            let low = dwords_less_one << 16;
            sqe.cdw10.set(u32::from(lid) | u32::from(lsp & 0x7f) << 8 | event | low);
            sqe.cdw11.set(dwords_less_one >> 16);
            let [a, b, c, d, e, f, g, h] = offset.to_le_bytes();
            sqe.cdw12.set(u32::from_le_bytes([a, b, c, d]));
            sqe.cdw13.set(u32::from_le_bytes([e, f, g, h]));
            sqe.cdw14.set(u32::from(csi) << 24);
        }
        sqe
    }
}

fn identify(sqe: &Sqe) -> AdminCommand {
    let [cns, _, low, high] = sqe.cdw10.to_bytes();
    let [.., csi] = sqe.cdw11.to_bytes();
    AdminCommand::Identify { cns, cntid: u16::from_le_bytes([low, high]), csi }
}

fn get_log_page(sqe: &Sqe) -> Result<AdminCommand, Status> {
    let [lid, parameter, low, high] = sqe.cdw10.to_bytes();
    let [upper_low, upper_high, ..] = sqe.cdw11.to_bytes();
    let [.., csi] = sqe.cdw14.to_bytes();
    let dwords_less_one = u32::from_le_bytes([low, high, upper_low, upper_high]);
    let offset = u64::from(sqe.cdw13()) << 32 | u64::from(sqe.cdw12());
    if offset % 4 != 0 || sqe.cdw14() & OFFSET_IS_INDEX != 0 {
        return Err(Status::INVALID_FIELD);
    }
    Ok(AdminCommand::GetLogPage {
        lid,
        lsp: parameter & 0x7f,
        rae: sqe.cdw10() & RETAIN_EVENT != 0,
        bytes: (u64::from(dwords_less_one) + 1) * 4,
        offset,
        csi,
    })
}

fn get_features(sqe: &Sqe) -> Result<AdminCommand, Status> {
    let [fid, ..] = sqe.cdw10.to_bytes();
    let sel = Select::from_bits(sqe.cdw10() >> 8 & 7).ok_or(Status::INVALID_FIELD.dnr())?;
    Ok(AdminCommand::GetFeatures { fid, sel, cdw11: sqe.cdw11() })
}

fn set_features(sqe: &Sqe) -> AdminCommand {
    let [fid, ..] = sqe.cdw10.to_bytes();
    let save = sqe.cdw10() & SAVE != 0;
    AdminCommand::SetFeatures { fid, save, cdw11: sqe.cdw11(), cdw12: sqe.cdw12() }
}

fn abort(sqe: &Sqe) -> AdminCommand {
    let [a, b, c, d] = sqe.cdw10.to_bytes();
    AdminCommand::Abort { sqid: u16::from_le_bytes([a, b]), cid: u16::from_le_bytes([c, d]) }
}
