//! The target's receiving half: what a host sends becomes commands, data and ends of transfers.
//!
//! Two ways in: [`TargetCodec::next`] takes bytes from a receive area, and while
//! [`TargetCodec::payload_remaining`] is not zero the driver may read straight into the destination and
//! tell so with [`TargetCodec::payload_received`]. Every answer of CONFORMANCE 1.7 is decided here.

use std::ops::Range;

use afs_nvme::tcp::{
    CapsuleCmd, CommonHeader, DataPdu, Fes, IcReq, PDA_MAX, PduType, TermReq, flags,
};
use afs_nvme::{Sqe, Status};
use zerocopy::FromBytes;

use super::commands::{AdmitError, CommandData, Commands};
use super::digest::{DIGEST_BYTES, Digests, RunningDigest, check_header_digest, crc32c};
use super::frame::{COMMON_HEADER_BYTES, FieldError, Frame, FrameRules, offset};
use super::limits::WireLimits;
use super::sgl;
use super::violation::Violation;

/// What an ICReq asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcRequest {
    /// HPDA, 0 to 31: data sent to the host begins at a multiple of `(hpda + 1) * 4` (CONFORMANCE T-5).
    pub hpda: u8,
    /// Digests that both directions use from now on.
    pub digests: Digests,
    /// MAXR2T, 0's based. We never have more than one R2T open per command, which any value allows.
    pub max_r2t: u32,
}

/// What the bytes meant. Ranges are offsets into the input of the call.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetEvent {
    /// Nothing can be said before the input has this many bytes; none were consumed.
    Need(usize),
    /// The connection begins; answer with an ICResp.
    Initialize(IcRequest),
    /// A command capsule, whole. With `fault` set the fabric answers it with that status.
    Command {
        /// Slot of the command until [`Commands::release`]; also its TTAG.
        slot: u16,
        /// The submission queue entry.
        sqe: Sqe,
        /// Where the in-capsule data lies.
        in_capsule: Option<Range<usize>>,
        /// What is wrong with its data or SGL.
        fault: Option<Status>,
    },
    /// Bytes for the transfer of `slot`, to be put behind those that came before.
    Data {
        /// Slot of the command.
        slot: u16,
        /// Where the bytes lie.
        range: Range<usize>,
    },
    /// A piece ended that was not the last one, or nothing of note was consumed.
    Continue,
    /// All bytes of the transfer of `slot` were had; see [`Commands::transfer`] for damage.
    TransferEnd {
        /// Slot of the command.
        slot: u16,
    },
    /// The host gives up; close without an answer (CONFORMANCE T-87).
    Terminated {
        /// FES of its TermReq.
        fes: u16,
        /// FEI of its TermReq.
        fei: u32,
    },
}

/// Why the connection must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// Say it with a C2HTermReq, then close.
    Violation(Box<Violation>),
    /// More commands outstanding than the queue is deep; close (CONFORMANCE T-78).
    TooManyCommands,
    /// A command id that is outstanding was used again; close (CONFORMANCE T-78).
    DuplicateCommandId(u16),
}

impl From<Box<Violation>> for CodecError {
    fn from(violation: Box<Violation>) -> CodecError {
        CodecError::Violation(violation)
    }
}

/// Commands that may be outstanding before Connect: a host needs one, and a curious one is told why not.
const COMMANDS_BEFORE_CONNECT: usize = 4;

enum State {
    /// At the first byte of a PDU.
    Header,
    /// Inside of the data of an H2CData PDU.
    Payload { slot: u16, length: u32, remaining: usize },
    /// At the digest behind that data.
    PayloadDigest { slot: u16, length: u32 },
    /// A fault was reported: what follows is swallowed.
    Dead,
}

/// The target's receiver for one connection.
pub struct TargetCodec {
    limits: WireLimits,
    initialized: bool,
    admin: bool,
    digests: Digests,
    state: State,
    running: RunningDigest,
    commands: Commands,
    pdus: u64,
}

impl TargetCodec {
    /// A receiver that waits for ICReq.
    #[must_use]
    pub fn new(limits: WireLimits) -> TargetCodec {
        TargetCodec {
            limits,
            initialized: false,
            admin: true,
            digests: Digests::default(),
            state: State::Header,
            running: RunningDigest::new(false),
            commands: Commands::new(COMMANDS_BEFORE_CONNECT),
            pdus: 0,
        }
    }

    /// Tells that a Connect succeeded: `limit` commands may be outstanding, and an admin queue takes 8 KiB
    /// in capsule (CONFORMANCE T-23, T-27).
    pub fn set_connected(&mut self, admin: bool, limit: usize) {
        self.admin = admin;
        self.commands.set_limit(limit);
    }

    /// The outstanding commands.
    #[must_use]
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// The outstanding commands, to open transfers and to release slots.
    pub fn commands_mut(&mut self) -> &mut Commands {
        &mut self.commands
    }

    /// Whether ICReq was seen.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.initialized
    }

    /// Number of PDUs that were begun so far: while it stands still inside of a PDU, that PDU is late.
    #[must_use]
    pub fn pdu_count(&self) -> u64 {
        self.pdus
    }

    /// Whether the stream stopped inside of the data of a PDU.
    #[must_use]
    pub fn in_payload(&self) -> bool {
        matches!(self.state, State::Payload { .. } | State::PayloadDigest { .. })
    }

    /// Bytes that the transfer under way may take straight from the socket, and whose they are.
    #[must_use]
    pub fn payload_remaining(&self) -> Option<(u16, usize)> {
        match self.state {
            State::Payload { slot, remaining, .. } => Some((slot, remaining)),
            _ => None,
        }
    }

    /// Counts bytes that were read straight into the destination; at most what
    /// [`TargetCodec::payload_remaining`] said. Ends with [`TargetEvent::TransferEnd`] or `Continue`.
    pub fn payload_received(&mut self, bytes: &[u8]) -> TargetEvent {
        let State::Payload { slot, length, remaining } = self.state else {
            return TargetEvent::Continue;
        };
        let taken = bytes.len().min(remaining);
        self.running.update(&bytes[..taken]);
        self.after_payload(slot, length, remaining - taken)
    }

    /// Looks at `input`, the bytes not yet consumed, and returns how many were consumed and what they meant.
    ///
    /// # Errors
    /// Why the connection must end; everything after that is swallowed.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, TargetEvent), CodecError> {
        let result = match self.state {
            State::Dead => return Ok((input.len(), TargetEvent::Continue)),
            State::Header => self.header(input),
            State::Payload { slot, length, remaining } => {
                Ok(self.payload(input, slot, length, remaining))
            }
            State::PayloadDigest { slot, length } => Ok(self.payload_digest(input, slot, length)),
        };
        if result.is_err() {
            self.state = State::Dead;
        }
        result
    }

    fn payload(
        &mut self,
        input: &[u8],
        slot: u16,
        length: u32,
        remaining: usize,
    ) -> (usize, TargetEvent) {
        if remaining == 0 {
            return (0, self.after_payload(slot, length, 0));
        }
        if input.is_empty() {
            return (0, TargetEvent::Need(1));
        }
        let taken = input.len().min(remaining);
        self.running.update(&input[..taken]);
        // The end of the transfer is told by the next call, so that this range is handled first.
        self.state = State::Payload { slot, length, remaining: remaining - taken };
        (taken, TargetEvent::Data { slot, range: 0..taken })
    }

    fn after_payload(&mut self, slot: u16, length: u32, remaining: usize) -> TargetEvent {
        if remaining > 0 {
            self.state = State::Payload { slot, length, remaining };
            return TargetEvent::Continue;
        }
        if self.digests.data {
            self.state = State::PayloadDigest { slot, length };
            return TargetEvent::Continue;
        }
        self.end_of_piece(slot, length, false)
    }

    fn payload_digest(&mut self, input: &[u8], slot: u16, length: u32) -> (usize, TargetEvent) {
        let Some(received) = u32_at(input, 0) else { return (0, TargetEvent::Need(DIGEST_BYTES)) };
        let damaged = received != self.running.value();
        (DIGEST_BYTES, self.end_of_piece(slot, length, damaged))
    }

    fn end_of_piece(&mut self, slot: u16, length: u32, damaged: bool) -> TargetEvent {
        self.state = State::Header;
        if self.commands.advance(slot, length, damaged) {
            TargetEvent::TransferEnd { slot }
        } else {
            TargetEvent::Continue
        }
    }

    fn header(&mut self, input: &[u8]) -> Result<(usize, TargetEvent), CodecError> {
        let Ok((common, _)) = CommonHeader::ref_from_prefix(input) else {
            return Ok((0, TargetEvent::Need(COMMON_HEADER_BYTES)));
        };
        let frame = self
            .kind(common)
            .and_then(|kind| Frame::parse(common, kind, &self.rules(kind)))
            .map_err(|(fes, fei)| Violation::new(fes, fei, &input[..COMMON_HEADER_BYTES]))?;
        if input.len() < frame.header_end() {
            return Ok((0, TargetEvent::Need(frame.header_end())));
        }
        let header = &input[..frame.header_len];
        if frame.header_digest != 0 {
            check_header_digest(input, header)?;
        }
        match frame.kind {
            PduType::CapsuleCmd => self.command(header, input, &frame),
            PduType::H2cData => self.data_header(header, input, &frame),
            PduType::IcReq => self.initialize(header, &frame),
            _ => Ok(Self::terminated(header, input, &frame)),
        }
    }

    /// CONFORMANCE T-60, T-65: a type that we know, in a phase where it may come.
    fn kind(&self, common: &CommonHeader) -> Result<PduType, FieldError> {
        let Some(kind) = common.pdu_type().filter(|kind| kind.is_from_host()) else {
            return Err((Fes::InvalidHeaderField, offset::TYPE));
        };
        if (kind == PduType::IcReq) == self.initialized {
            return Err((Fes::PduSequence, 0));
        }
        Ok(kind)
    }

    /// CONFORMANCE T-68: what bounds a PDU of this type.
    fn rules(&self, kind: PduType) -> FrameRules {
        let data_bytes_max = match kind {
            PduType::H2cData => self.limits.max_h2c_data,
            _ => self.limits.in_capsule_bytes,
        };
        FrameRules { digests: self.digests, data_bytes_max, alignment: 4 }
    }

    /// CONFORMANCE T-62.
    fn initialize(
        &mut self,
        header: &[u8],
        frame: &Frame,
    ) -> Result<(usize, TargetEvent), CodecError> {
        let request = parsed::<IcReq>(header)?;
        if request.pfv.get() != 0 {
            return Err(Violation::new(Fes::InvalidHeaderField, 8, header).into());
        }
        if request.hpda > PDA_MAX {
            return Err(Violation::new(Fes::InvalidHeaderField, 10, header).into());
        }
        self.initialized = true;
        self.digests = Digests::from_wire(request.dgst);
        self.pdus += 1;
        let (hpda, max_r2t) = (request.hpda, request.maxr2t.get());
        Ok((
            frame.total,
            TargetEvent::Initialize(IcRequest { hpda, digests: self.digests, max_r2t }),
        ))
    }

    /// CONFORMANCE T-87.
    fn terminated(header: &[u8], input: &[u8], frame: &Frame) -> (usize, TargetEvent) {
        if input.len() < frame.total {
            return (0, TargetEvent::Need(frame.total));
        }
        let (fes, fei) =
            TermReq::ref_from_bytes(header).map_or((0, 0), |term| (term.fes.get(), term.fei.get()));
        (frame.total, TargetEvent::Terminated { fes, fei })
    }

    fn command(
        &mut self,
        header: &[u8],
        input: &[u8],
        frame: &Frame,
    ) -> Result<(usize, TargetEvent), CodecError> {
        let sqe = parsed::<CapsuleCmd>(header)?.sqe;
        let plan = sgl::plan(&sqe, frame.data_len, self.admin, &self.limits)
            .map_err(|(fes, fei)| Violation::new(fes, fei, header))?;
        if input.len() < frame.total {
            return Ok((0, TargetEvent::Need(frame.total)));
        }
        let slot = self.commands.admit(sqe.cid(), plan.data).map_err(|error| match error {
            AdmitError::TooMany => CodecError::TooManyCommands,
            AdmitError::Duplicate => CodecError::DuplicateCommandId(sqe.cid()),
        })?;
        self.pdus += 1;
        let range = frame.data_offset..frame.total - frame.data_digest;
        let fault = plan.fault.or_else(|| capsule_digest_fault(input, &range, frame));
        let in_capsule = (plan.data == CommandData::InCapsule && fault.is_none()).then_some(range);
        Ok((frame.total, TargetEvent::Command { slot, sqe, in_capsule, fault }))
    }

    fn data_header(
        &mut self,
        header: &[u8],
        input: &[u8],
        frame: &Frame,
    ) -> Result<(usize, TargetEvent), CodecError> {
        let pdu = parsed::<DataPdu>(header)?;
        self.check_data(pdu, frame).map_err(|(fes, fei)| Violation::new(fes, fei, header))?;
        if input.len() < frame.data_offset {
            return Ok((0, TargetEvent::Need(frame.data_offset)));
        }
        self.pdus += 1;
        self.running = RunningDigest::new(self.digests.data);
        let remaining = frame.total - frame.data_offset - frame.data_digest;
        self.state = State::Payload { slot: pdu.ttag.get(), length: frame.data_len, remaining };
        Ok((frame.data_offset, TargetEvent::Continue))
    }

    /// CONFORMANCE T-80, T-83, T-85, T-86.
    fn check_data(&self, pdu: &DataPdu, frame: &Frame) -> Result<(), FieldError> {
        let (ttag, start, length) = (pdu.ttag.get(), pdu.datao.get(), pdu.datal.get());
        if !self.commands.in_range(ttag) {
            return Err((Fes::PduSequence, 0));
        }
        let Some(transfer) =
            self.commands.transfer(ttag).filter(|transfer| !transfer.is_complete())
        else {
            return Err(self.no_transfer(pdu.cccid.get()));
        };
        if self.commands.cid(ttag) != pdu.cccid.get() {
            return Err((Fes::PduSequence, 0));
        }
        if length == 0 {
            return Err((Fes::InvalidHeaderField, 16));
        }
        if length != frame.data_len {
            return Err((Fes::InvalidHeaderField, offset::PLEN));
        }
        if length > self.limits.max_h2c_data {
            return Err((Fes::LimitExceeded, 16));
        }
        let end = start.checked_add(length).filter(|end| *end <= transfer.end);
        if start != transfer.next || end.is_none() {
            return Err((Fes::DataOutOfRange, 12));
        }
        if frame.has(flags::LAST) && end != Some(transfer.end) {
            return Err((Fes::InvalidHeaderField, offset::FLAGS));
        }
        Ok(())
    }

    /// Data for a command that takes none is out of sequence (T-86); otherwise the TTAG is not open (T-80).
    fn no_transfer(&self, cid: u16) -> FieldError {
        match self.commands.find(cid).map(|slot| self.commands.data(slot)) {
            Some(CommandData::None | CommandData::ToHost(_)) => (Fes::PduSequence, 0),
            _ => (Fes::InvalidHeaderField, 10),
        }
    }
}

/// CONFORMANCE T-52, T-70: the PDU is consumed, the command ends with a transient transport error.
fn capsule_digest_fault(input: &[u8], data: &Range<usize>, frame: &Frame) -> Option<Status> {
    if frame.data_digest == 0 {
        return None;
    }
    let received = u32_at(input, data.end)?;
    (received != crc32c(input.get(data.clone())?)).then_some(Status::TRANSIENT_TRANSPORT_ERROR)
}

/// The header as its structure; its length was checked before.
pub(super) fn parsed<
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
>(
    header: &[u8],
) -> Result<&T, Box<Violation>> {
    T::ref_from_bytes(header)
        .map_err(|_| Violation::new(Fes::InvalidHeaderField, offset::HLEN, header))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}
