//! The stream of a host's queue pair: PDUs waiting to be sent, and where received data goes. The handles put commands
//! in; the driver moves bytes.

use afs_nvme::tcp::{ADMIN_IN_CAPSULE_BYTES, PduType, flags};
use afs_nvme::{Cqe, Sgl, Sqe, Status};

use super::super::error::HostError;
use super::super::queue::HostData;
use super::super::table::Table;
use crate::codec::encode::{DataPiece, Encoder};
use crate::codec::{HostCodec, HostEvent};
use crate::transmit::Transmit;

/// Reads from this size on are worth a short read ahead, so that their data needs no copy.
const LARGE_READ_BYTES: u32 = 32 << 10;

/// See the module.
pub(in super::super) struct TcpLink {
    pub(super) codec: HostCodec,
    pub(super) transmit: Transmit,
    encoder: Encoder,
    max_h2c_data: u32,
    in_capsule_bytes: u32,
    large_reads: usize,
}

impl TcpLink {
    pub(super) fn new(codec: HostCodec, encoder: Encoder, in_capsule_bytes: u32) -> TcpLink {
        TcpLink {
            codec,
            transmit: Transmit::default(),
            encoder,
            max_h2c_data: 4096,
            in_capsule_bytes,
            large_reads: 0,
        }
    }

    /// MAXH2CDATA of the controller, in bytes.
    pub(in super::super) fn max_h2c_data(&self) -> u32 {
        self.max_h2c_data
    }

    /// Whether much data is expected, so that little should be read ahead of it.
    pub(super) fn expects_large_data(&self) -> bool {
        self.large_reads > 0
    }

    /// Queues a command whose slot was taken.
    pub(in super::super) fn submit(
        &mut self,
        table: &mut Table,
        mut sqe: Sqe,
        length: u32,
        data: HostData,
    ) {
        let cid = sqe.cid();
        let limit = match table.admin || sqe.is_fabrics() {
            true => ADMIN_IN_CAPSULE_BYTES,
            false => self.in_capsule_bytes,
        };
        let Some(state) = table.slot(cid) else { return };
        let encoder = self.encoder;
        match data {
            HostData::Out(buffer) if length > 0 && length <= limit => {
                sqe.sgl = Sgl::in_capsule(length);
                self.codec.begin(cid, 0, 0);
                self.transmit.headers(|out| encoder.command(out, sqe, length));
                self.transmit.data(buffer.clone());
                self.transmit.headers(|out| encoder.data_digest(out, &buffer));
                state.output_end = self.transmit.queued();
            }
            HostData::Out(buffer) => {
                sqe.sgl = Sgl::transport(length);
                self.codec.begin(cid, 0, length);
                self.transmit.headers(|out| encoder.command(out, sqe, 0));
                state.output = Some(buffer);
            }
            HostData::In(buffer) => {
                sqe.sgl = Sgl::transport(length);
                self.codec.begin(cid, length, 0);
                self.transmit.headers(|out| encoder.command(out, sqe, 0));
                state.input = Some(buffer);
                self.large_reads += usize::from(length >= LARGE_READ_BYTES);
            }
            HostData::None => {
                sqe.sgl = Sgl::transport(0);
                self.codec.begin(cid, 0, 0);
                self.transmit.headers(|out| encoder.command(out, sqe, 0));
            }
        }
    }

    /// Counts bytes that were read straight into [`rest`], and handles the end of the data.
    pub(super) fn received(&mut self, table: &mut Table, cid: u16, count: usize) -> HostEvent {
        let Some(slot) = table.slot(cid) else { return HostEvent::Continue };
        let rest =
            slot.input.as_deref().and_then(|input| input.get(slot.filled..)).unwrap_or_default();
        let taken = rest.len().min(count);
        let event = self.codec.payload_received(&rest[..taken]);
        slot.filled += taken;
        event
    }

    /// Everything that needs no bytes.
    pub(super) fn handle(&mut self, table: &mut Table, event: &HostEvent) -> Result<(), HostError> {
        match *event {
            HostEvent::Initialized { cpda, max_h2c_data } => {
                self.max_h2c_data = max_h2c_data;
                self.encoder.alignment = (cpda + 1) * 4;
            }
            HostEvent::Response(cqe) => self.complete(table, cqe)?,
            HostEvent::DataEnd { cid, success, damaged } => {
                if damaged && let Some(slot) = table.slot(cid) {
                    slot.damaged = true;
                }
                if success {
                    self.complete(table, Cqe::new(cid, Status::SUCCESS, 0))?;
                }
            }
            HostEvent::R2t { cid, ttag, offset, length } => {
                self.send_data(table, cid, ttag, offset, length);
            }
            _ => {}
        }
        Ok(())
    }

    /// Queues the data that an R2T asked for (CONFORMANCE T-36).
    fn send_data(&mut self, table: &mut Table, cid: u16, ttag: u16, offset: u32, length: u32) {
        let Some(slot) = table.slot(cid) else { return };
        let Some(output) = slot.output.clone() else { return };
        let (mut at, end) = (offset as usize, (offset as usize).saturating_add(length as usize));
        let step = self.max_h2c_data as usize;
        while at < end.min(output.len()) {
            let until = end.min(output.len()).min(at + step);
            let piece = output.slice(at..until);
            let header = DataPiece {
                cid,
                ttag,
                offset: u32::try_from(at).unwrap_or(u32::MAX),
                length: u32::try_from(until - at).unwrap_or(u32::MAX),
                flags: if until == end { flags::LAST } else { 0 },
            };
            let encoder = self.encoder;
            self.transmit.headers(|out| encoder.data(out, PduType::H2cData, header));
            self.transmit.data(piece.clone());
            self.transmit.headers(|out| encoder.data_digest(out, &piece));
            at = until;
        }
        slot.output_end = self.transmit.queued();
    }

    /// Ends a command with its completion.
    ///
    /// # Errors
    /// When the controller completed a command whose data had not all been sent (CONFORMANCE T-33).
    fn complete(&mut self, table: &mut Table, cqe: Cqe) -> Result<(), HostError> {
        let cid = cqe.cid();
        let received = self.codec.received(cid);
        self.codec.end(cid);
        let Some(slot) = table.slot(cid) else { return Ok(()) };
        let in_order = slot.output_end <= self.transmit.sent();
        let input = slot.input.take();
        let expected = input.as_ref().map_or(0, |buffer| u32::try_from(buffer.len()).unwrap_or(0));
        self.large_reads -= usize::from(expected >= LARGE_READ_BYTES);
        let outcome = if slot.damaged {
            Err(HostError::DataDigest)
        } else if cqe.status() == Status::SUCCESS && received != expected {
            Err(HostError::ShortData { received, expected })
        } else {
            Ok((cqe, input))
        };
        table.complete(cid, outcome);
        if in_order {
            return Ok(());
        }
        Err(HostError::Unusable("a command was completed while its R2T was open"))
    }
}

/// Where the next bytes of the data of `cid` go.
pub(super) fn rest(table: &mut Table, cid: u16) -> &mut [u8] {
    let Some(slot) = table.slot(cid) else { return &mut [] };
    let filled = slot.filled;
    slot.input.as_mut().and_then(|buffer| buffer.get_mut(filled..)).unwrap_or_default()
}
