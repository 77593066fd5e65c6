//! I/O commands of the NVM command set (CONFORMANCE 5.1).

use std::ops::Range;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::opcode::io as opcode;
use crate::sqe::Sqe;
use crate::status::Status;

/// An I/O command that a namespace may serve. The namespace is in the raw command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoCommand {
    /// Read blocks.
    Read(Rw),
    /// Write blocks.
    Write(Rw),
    /// Compare blocks with data of the host; a difference is [`Status::COMPARE_FAILURE`] with DNR.
    Compare(Rw),
    /// Read and check blocks, no data.
    Verify(Rw),
    /// Make blocks read as zero, no data.
    WriteZeroes {
        /// First block.
        lba: u64,
        /// Number of blocks, 1 to 65536.
        blocks: u32,
        /// Blocks may be deallocated (DEAC).
        deallocate: bool,
        /// Durable before the completion.
        fua: bool,
    },
    /// Make all completed writes durable.
    Flush,
    /// Hints about ranges; see [`DsmRange`].
    DatasetManagement {
        /// Number of ranges in the data, 1 to 256.
        ranges: u16,
        /// The ranges are to be deallocated (AD); without it the command does nothing.
        deallocate: bool,
    },
}

/// Blocks that a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rw {
    /// First block.
    pub lba: u64,
    /// Number of blocks, 1 to 65536.
    pub blocks: u32,
    /// Force unit access: durable before the completion.
    pub fua: bool,
}

const FUA: u32 = 1 << 30;
const PRACT: u32 = 1 << 29;
const DEAC: u32 = 1 << 25;
/// CDW12 23:20 of a write.
const DTYPE_MASK: u32 = 0xf << 20;
/// CDW11 bit 2 of dataset management.
const DSM_DEALLOCATE: u32 = 1 << 2;

impl IoCommand {
    /// Reads an I/O command: row 3 of CONFORMANCE 5.2. Ranges are not checked against a namespace.
    ///
    /// # Errors
    /// [`Status::INVALID_OPCODE`] with DNR.
    pub fn parse(sqe: &Sqe) -> Result<IoCommand, Status> {
        match sqe.opcode {
            opcode::READ => Ok(IoCommand::Read(rw(sqe))),
            opcode::WRITE => Ok(IoCommand::Write(rw(sqe))),
            opcode::COMPARE => Ok(IoCommand::Compare(rw(sqe))),
            opcode::VERIFY => Ok(IoCommand::Verify(rw(sqe))),
            opcode::WRITE_ZEROES => Ok(write_zeroes(sqe)),
            opcode::FLUSH => Ok(IoCommand::Flush),
            opcode::DATASET_MANAGEMENT => Ok(dataset_management(sqe)),
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    /// The raw command for a namespace, without data pointer and identifier. Block counts outside
    /// 1 to 65536 and range counts outside 1 to 256 are brought to the nearer end.
    pub fn to_sqe(self, nsid: u32) -> Sqe {
        let mut sqe = match self {
            IoCommand::Read(rw) => rw.to_sqe(opcode::READ),
            IoCommand::Write(rw) => rw.to_sqe(opcode::WRITE),
            IoCommand::Compare(rw) => rw.to_sqe(opcode::COMPARE),
            IoCommand::Verify(rw) => rw.to_sqe(opcode::VERIFY),
            IoCommand::WriteZeroes { lba, blocks, deallocate, fua } => {
                let mut sqe = Rw { lba, blocks, fua }.to_sqe(opcode::WRITE_ZEROES);
                sqe.cdw12 |= U32::new(if deallocate { DEAC } else { 0 });
                sqe
            }
            IoCommand::Flush => Sqe::new(opcode::FLUSH),
            IoCommand::DatasetManagement { ranges, deallocate } => {
                let mut sqe = Sqe::new(opcode::DATASET_MANAGEMENT);
                sqe.cdw10.set(u32::from(ranges.clamp(1, 256)) - 1);
                sqe.cdw11.set(if deallocate { DSM_DEALLOCATE } else { 0 });
                sqe
            }
        };
        sqe.nsid.set(nsid);
        sqe
    }

    /// The blocks that the command names itself, if it does.
    pub const fn blocks(&self) -> Option<Rw> {
        match *self {
            IoCommand::Read(rw)
            | IoCommand::Write(rw)
            | IoCommand::Compare(rw)
            | IoCommand::Verify(rw) => Some(rw),
            IoCommand::WriteZeroes { lba, blocks, fua, .. } => Some(Rw { lba, blocks, fua }),
            IoCommand::Flush | IoCommand::DatasetManagement { .. } => None,
        }
    }

    /// Whether the command changes what a read returns.
    pub const fn is_write(&self) -> bool {
        matches!(
            self,
            IoCommand::Write(_)
                | IoCommand::WriteZeroes { .. }
                | IoCommand::DatasetManagement { .. }
        )
    }
}

impl Rw {
    /// The range of blocks.
    ///
    /// # Errors
    /// [`Status::LBA_OUT_OF_RANGE`] with DNR when it does not lie in `0..size_blocks`
    /// (CONFORMANCE 5.2 row 9).
    pub const fn within(&self, size_blocks: u64) -> Result<Range<u64>, Status> {
        match self.lba.checked_add(self.blocks as u64) {
            Some(end) if end <= size_blocks => Ok(self.lba..end),
            _ => Err(Status::LBA_OUT_OF_RANGE.dnr()),
        }
    }

    fn to_sqe(self, opcode: u8) -> Sqe {
        let mut sqe = Sqe::new(opcode);
        sqe.set_cdw10_11(self.lba);
        let blocks_less_one = self.blocks.clamp(1, 1 << 16) - 1;
        sqe.cdw12.set(blocks_less_one | if self.fua { FUA } else { 0 });
        sqe
    }
}

/// Refuses what no namespace here offers in the upper half of CDW12: protection information
/// (PRACT) and write directives (DTYPE). Row 10 of CONFORMANCE 5.2, to be called after the range
/// was checked. Hints are ignored, and so is everything in commands without these fields.
///
/// # Errors
/// [`Status::INVALID_FIELD`] with DNR.
pub const fn check_control(sqe: &Sqe) -> Result<(), Status> {
    let refused = match sqe.opcode {
        opcode::WRITE => PRACT | DTYPE_MASK,
        opcode::READ | opcode::COMPARE | opcode::VERIFY | opcode::WRITE_ZEROES => PRACT,
        _ => 0,
    };
    if sqe.cdw12() & refused == 0 { Ok(()) } else { Err(Status::INVALID_FIELD.dnr()) }
}

fn rw(sqe: &Sqe) -> Rw {
    Rw { lba: sqe.cdw10_11(), blocks: (sqe.cdw12() & 0xffff) + 1, fua: sqe.cdw12() & FUA != 0 }
}

fn write_zeroes(sqe: &Sqe) -> IoCommand {
    let Rw { lba, blocks, fua } = rw(sqe);
    IoCommand::WriteZeroes { lba, blocks, deallocate: sqe.cdw12() & DEAC != 0, fua }
}

fn dataset_management(sqe: &Sqe) -> IoCommand {
    let [ranges_less_one, ..] = sqe.cdw10.to_bytes();
    IoCommand::DatasetManagement {
        ranges: u16::from(ranges_less_one) + 1,
        deallocate: sqe.cdw11() & DSM_DEALLOCATE != 0,
    }
}

/// A range of dataset management (16 bytes).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct DsmRange {
    /// Context attributes: hints, ignored.
    pub attributes: U32,
    /// Number of blocks, as is (not less one); 0 names nothing.
    pub blocks: U32,
    /// First block.
    pub lba: U64,
}

assert_layout!(DsmRange, 16, { attributes @ 0, blocks @ 4, lba @ 8 });

impl DsmRange {
    /// A range without hints.
    pub const fn new(lba: u64, blocks: u32) -> DsmRange {
        DsmRange { attributes: U32::ZERO, blocks: U32::new(blocks), lba: U64::new(lba) }
    }

    /// The first `ranges` ranges of a command's data; what follows is ignored (CONFORMANCE T-24).
    ///
    /// # Errors
    /// [`Status::DATA_SGL_LENGTH_INVALID`] with DNR when the data is too short for them.
    pub fn list(data: &[u8], ranges: u16) -> Result<&[DsmRange], Status> {
        match <[DsmRange]>::ref_from_prefix_with_elems(data, usize::from(ranges)) {
            Ok((list, _)) => Ok(list),
            Err(_) => Err(Status::DATA_SGL_LENGTH_INVALID.dnr()),
        }
    }

    /// The range of blocks.
    ///
    /// # Errors
    /// [`Status::LBA_OUT_OF_RANGE`] with DNR when it does not lie in `0..size_blocks`.
    pub const fn within(&self, size_blocks: u64) -> Result<Range<u64>, Status> {
        Rw { lba: self.lba.get(), blocks: self.blocks.get(), fua: false }.within(size_blocks)
    }
}
