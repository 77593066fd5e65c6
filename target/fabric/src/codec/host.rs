//! The host's receiving half: what a controller sends becomes completions, data and requests for data.
//!
//! As strict as a Linux host is (CONFORMANCE 1.8), so that a target tested with it is not tested too kindly.

use std::ops::Range;

use afs_nvme::Cqe;
use afs_nvme::tcp::{
    CapsuleResp, CommonHeader, DataPdu, Fes, IcResp, PDA_MAX, PduType, R2t, TermReq, flags,
};
use zerocopy::FromBytes;

use super::digest::{DIGEST_BYTES, Digests, RunningDigest, check_header_digest};
use super::frame::{COMMON_HEADER_BYTES, FieldError, Frame, FrameRules, offset};
use super::target::{parsed, u32_at};
use super::violation::Violation;

/// What the bytes meant. Ranges are offsets into the input of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// Nothing can be said before the input has this many bytes; none were consumed.
    Need(usize),
    /// The controller answered ICReq.
    Initialized {
        /// Data for it begins at a multiple of `(cpda + 1) * 4`.
        cpda: u8,
        /// Most bytes of one H2CData PDU.
        max_h2c_data: u32,
    },
    /// A completion.
    Response(Cqe),
    /// Bytes for command `cid`, to be put behind those that came before.
    Data {
        /// Command id.
        cid: u16,
        /// Where the bytes lie.
        range: Range<usize>,
    },
    /// The data of one C2HData PDU is over.
    DataEnd {
        /// Command id.
        cid: u16,
        /// The command succeeded, and no completion follows (CONFORMANCE T-43).
        success: bool,
        /// The data digest was wrong: the command failed.
        damaged: bool,
    },
    /// The controller wants `length` bytes of the data of `cid`, from `offset`.
    R2t {
        /// Command id.
        cid: u16,
        /// Tag to echo.
        ttag: u16,
        /// First byte wanted.
        offset: u32,
        /// Bytes wanted.
        length: u32,
    },
    /// Nothing of note was consumed.
    Continue,
    /// The controller gives up.
    Terminated {
        /// FES of its TermReq.
        fes: u16,
        /// FEI of its TermReq.
        fei: u32,
    },
}

/// Why the connection must end: say it with an H2CTermReq.
pub type HostFault = Box<Violation>;

/// A command as far as its data goes.
#[derive(Clone, Copy, Debug, Default)]
struct Outstanding {
    read_len: u32,
    read: u32,
    write_len: u32,
    requested: u32,
}

enum State {
    Header,
    Payload { cid: u16, remaining: usize, success: bool },
    PayloadDigest { cid: u16, success: bool },
    Dead,
}

/// The host's receiver for one connection.
///
/// Command ids are `slot | generation << 12`, so that an answer to a command that is over is noticed.
pub struct HostCodec {
    requested: Digests,
    digests: Digests,
    alignment: u32,
    initialized: bool,
    state: State,
    running: RunningDigest,
    commands: Vec<Option<(u16, Outstanding)>>,
}

/// Bits of a command id that name the slot.
pub(crate) const SLOT_MASK: u16 = 0x0fff;

impl HostCodec {
    /// A receiver that waits for ICResp to an ICReq with these digests and HPDA.
    #[must_use]
    pub fn new(digests: Digests, hpda: u8) -> HostCodec {
        HostCodec {
            requested: digests,
            digests: Digests::default(),
            alignment: (u32::from(hpda.min(PDA_MAX)) + 1) * 4,
            initialized: false,
            state: State::Header,
            running: RunningDigest::new(false),
            commands: Vec::new(),
        }
    }

    /// Makes `cid` outstanding: `read_len` bytes may come for it, `write_len` may be asked for.
    pub fn begin(&mut self, cid: u16, read_len: u32, write_len: u32) {
        let slot = usize::from(cid & SLOT_MASK);
        if self.commands.len() <= slot {
            self.commands.resize(slot + 1, None);
        }
        self.commands[slot] =
            Some((cid, Outstanding { read_len, write_len, ..Outstanding::default() }));
    }

    /// Makes `cid` no longer outstanding.
    pub fn end(&mut self, cid: u16) {
        if let Some(slot) = self.commands.get_mut(usize::from(cid & SLOT_MASK)) {
            *slot = None;
        }
    }

    /// Bytes of data that came for `cid`.
    #[must_use]
    pub fn received(&self, cid: u16) -> u32 {
        self.find(cid).map_or(0, |command| command.read)
    }

    /// Bytes that may be read straight into the buffer of a command, and which.
    #[must_use]
    pub fn payload_remaining(&self) -> Option<(u16, usize)> {
        match self.state {
            State::Payload { cid, remaining, .. } => Some((cid, remaining)),
            _ => None,
        }
    }

    /// Counts bytes that were read straight into the buffer of a command.
    pub fn payload_received(&mut self, bytes: &[u8]) -> HostEvent {
        let State::Payload { cid, remaining, success } = self.state else {
            return HostEvent::Continue;
        };
        let taken = bytes.len().min(remaining);
        self.running.update(&bytes[..taken]);
        self.after_payload(cid, remaining - taken, success)
    }

    /// Looks at `input`, the bytes not yet consumed, and returns how many were consumed and what they meant.
    ///
    /// # Errors
    /// Why the connection must end; everything after that is swallowed.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, HostEvent), HostFault> {
        let result = match self.state {
            State::Dead => return Ok((input.len(), HostEvent::Continue)),
            State::Header => self.header(input),
            State::Payload { cid, remaining: 0, success } => {
                Ok((0, self.after_payload(cid, 0, success)))
            }
            State::Payload { cid, remaining, success } => {
                Ok(self.payload(input, cid, remaining, success))
            }
            State::PayloadDigest { cid, success } => Ok(self.payload_digest(input, cid, success)),
        };
        if result.is_err() {
            self.state = State::Dead;
        }
        result
    }

    fn payload(
        &mut self,
        input: &[u8],
        cid: u16,
        remaining: usize,
        success: bool,
    ) -> (usize, HostEvent) {
        if input.is_empty() {
            return (0, HostEvent::Need(1));
        }
        let taken = input.len().min(remaining);
        self.running.update(&input[..taken]);
        self.state = State::Payload { cid, remaining: remaining - taken, success };
        (taken, HostEvent::Data { cid, range: 0..taken })
    }

    fn after_payload(&mut self, cid: u16, remaining: usize, success: bool) -> HostEvent {
        if remaining > 0 {
            self.state = State::Payload { cid, remaining, success };
            return HostEvent::Continue;
        }
        if self.digests.data {
            self.state = State::PayloadDigest { cid, success };
            return HostEvent::Continue;
        }
        self.state = State::Header;
        HostEvent::DataEnd { cid, success, damaged: false }
    }

    fn payload_digest(&mut self, input: &[u8], cid: u16, success: bool) -> (usize, HostEvent) {
        let Some(received) = u32_at(input, 0) else { return (0, HostEvent::Need(DIGEST_BYTES)) };
        self.state = State::Header;
        let damaged = received != self.running.value();
        (DIGEST_BYTES, HostEvent::DataEnd { cid, success, damaged })
    }

    fn header(&mut self, input: &[u8]) -> Result<(usize, HostEvent), HostFault> {
        let Ok((common, _)) = CommonHeader::ref_from_prefix(input) else {
            return Ok((0, HostEvent::Need(COMMON_HEADER_BYTES)));
        };
        let rules = FrameRules {
            digests: self.digests,
            data_bytes_max: u32::MAX - 1024,
            alignment: self.alignment,
        };
        let frame = self
            .kind(common)
            .and_then(|kind| Frame::parse(common, kind, &rules))
            .map_err(|(fes, fei)| Violation::new(fes, fei, &input[..COMMON_HEADER_BYTES]))?;
        let needed =
            if frame.kind == PduType::C2hTermReq { frame.total } else { frame.header_end() };
        if input.len() < needed {
            return Ok((0, HostEvent::Need(needed)));
        }
        let header = &input[..frame.header_len];
        if frame.header_digest != 0 {
            check_header_digest(input, header)?;
        }
        match frame.kind {
            PduType::IcResp => self.initialized(header, &frame),
            PduType::CapsuleResp => self.response(header, &frame),
            PduType::C2hData => self.data_header(header, input, &frame),
            PduType::R2t => self.r2t(header, &frame),
            _ => Ok(Self::terminated(header, &frame)),
        }
    }

    fn kind(&self, common: &CommonHeader) -> Result<PduType, FieldError> {
        let Some(kind) = common.pdu_type().filter(|kind| !kind.is_from_host()) else {
            return Err((Fes::InvalidHeaderField, offset::TYPE));
        };
        let allowed = match kind {
            PduType::IcResp => !self.initialized,
            PduType::C2hTermReq => true,
            _ => self.initialized,
        };
        if allowed { Ok(kind) } else { Err((Fes::PduSequence, 0)) }
    }

    /// CONFORMANCE T-2, T-3.
    fn initialized(
        &mut self,
        header: &[u8],
        frame: &Frame,
    ) -> Result<(usize, HostEvent), HostFault> {
        let response = parsed::<IcResp>(header)?;
        let max_h2c_data = response.maxh2cdata.get();
        let wrong = if response.pfv.get() != 0 {
            Some(8)
        } else if response.cpda > PDA_MAX {
            Some(10)
        } else if response.dgst != self.requested.to_wire() {
            Some(11)
        } else if max_h2c_data < 4096 || !max_h2c_data.is_multiple_of(4) {
            Some(12)
        } else {
            None
        };
        if let Some(field) = wrong {
            return Err(Violation::new(Fes::InvalidHeaderField, field, header));
        }
        self.initialized = true;
        self.digests = self.requested;
        Ok((frame.total, HostEvent::Initialized { cpda: response.cpda, max_h2c_data }))
    }

    fn response(&mut self, header: &[u8], frame: &Frame) -> Result<(usize, HostEvent), HostFault> {
        let cqe = parsed::<CapsuleResp>(header)?.cqe;
        if self.find(cqe.cid()).is_none() {
            return Err(Violation::new(Fes::PduSequence, 0, header));
        }
        Ok((frame.total, HostEvent::Response(cqe)))
    }

    /// CONFORMANCE T-40, T-43.
    fn data_header(
        &mut self,
        header: &[u8],
        input: &[u8],
        frame: &Frame,
    ) -> Result<(usize, HostEvent), HostFault> {
        let pdu = parsed::<DataPdu>(header)?;
        let cid = pdu.cccid.get();
        let fail = |fes, fei| Violation::new(fes, fei, header);
        let length = pdu.datal.get();
        let Some(command) = self.find_mut(cid) else { return Err(fail(Fes::PduSequence, 0)) };
        let end = command.read.checked_add(length).filter(|end| *end <= command.read_len);
        if length == 0 || length != frame.data_len {
            return Err(fail(Fes::InvalidHeaderField, 16));
        }
        let Some(end) = end.filter(|_| pdu.datao.get() == command.read) else {
            return Err(fail(Fes::DataOutOfRange, 12));
        };
        let success = frame.has(flags::SUCCESS);
        if success && !frame.has(flags::LAST) {
            return Err(fail(Fes::InvalidHeaderField, offset::FLAGS));
        }
        if input.len() < frame.data_offset {
            return Ok((0, HostEvent::Need(frame.data_offset)));
        }
        command.read = end;
        self.running = RunningDigest::new(self.digests.data);
        let remaining = frame.total - frame.data_offset - frame.data_digest;
        self.state = State::Payload { cid, remaining, success };
        Ok((frame.data_offset, HostEvent::Continue))
    }

    /// CONFORMANCE T-30.
    fn r2t(&mut self, header: &[u8], frame: &Frame) -> Result<(usize, HostEvent), HostFault> {
        let pdu = parsed::<R2t>(header)?;
        let (cid, start, length) = (pdu.cccid.get(), pdu.r2to.get(), pdu.r2tl.get());
        let Some(command) = self.find_mut(cid) else {
            return Err(Violation::new(Fes::PduSequence, 0, header));
        };
        let end = start.checked_add(length).filter(|end| *end <= command.write_len);
        let Some(end) = end.filter(|_| length > 0 && start == command.requested) else {
            return Err(Violation::new(Fes::DataOutOfRange, 12, header));
        };
        command.requested = end;
        Ok((frame.total, HostEvent::R2t { cid, ttag: pdu.ttag.get(), offset: start, length }))
    }

    fn terminated(header: &[u8], frame: &Frame) -> (usize, HostEvent) {
        let (fes, fei) =
            TermReq::ref_from_bytes(header).map_or((0, 0), |term| (term.fes.get(), term.fei.get()));
        (frame.total, HostEvent::Terminated { fes, fei })
    }

    fn find(&self, cid: u16) -> Option<&Outstanding> {
        let slot = self.commands.get(usize::from(cid & SLOT_MASK))?.as_ref();
        slot.filter(|(known, _)| *known == cid).map(|(_, command)| command)
    }

    fn find_mut(&mut self, cid: u16) -> Option<&mut Outstanding> {
        let slot = self.commands.get_mut(usize::from(cid & SLOT_MASK))?.as_mut();
        slot.filter(|(known, _)| *known == cid).map(|(_, command)| command)
    }
}
