//! What goes back to the host: ICResp, R2Ts, data, completions, TermReq, queued for one send per round.

use std::collections::VecDeque;

use afs_nvme::Status;
use afs_nvme::tcp::{PduType, flags};
use afs_reactor::Buffer;

use super::super::limits::Limits;
use super::super::queue::QueueParameters;
use super::super::service::Completion;
use super::super::sq_head::SqHead;
use crate::codec::encode::{DataPiece, Encoder};
use crate::codec::{CommandData, IcRequest, Violation};
use crate::transmit::Transmit;

/// The sending half of a connection.
pub(super) struct Responses {
    pub(super) transmit: Transmit,
    encoder: Encoder,
    data_pdu_bytes: usize,
    success_flag: bool,
    sq_head: SqHead,
    /// Commands whose completion is queued, with the position in the stream where it ends.
    leaving: VecDeque<(u64, u16)>,
}

impl Responses {
    pub(super) fn new(limits: &Limits) -> Responses {
        Responses {
            transmit: Transmit::default(),
            encoder: Encoder::plain(),
            data_pdu_bytes: (limits.data_pdu_bytes as usize).max(4096),
            success_flag: limits.success_flag,
            sq_head: SqHead::default(),
            leaving: VecDeque::new(),
        }
    }

    /// ICResp; what it settles applies from here on (CONFORMANCE T-1, T-2, T-5).
    pub(super) fn initialize(&mut self, request: IcRequest, max_h2c_data: u32) {
        self.transmit.headers(|out| Encoder::ic_response(out, request.digests, max_h2c_data));
        self.encoder = Encoder { digests: request.digests, alignment: (request.hpda + 1) * 4 };
    }

    /// R2T for the whole transfer of a command (CONFORMANCE T-30 to T-34).
    pub(super) fn r2t(&mut self, cid: u16, slot: u16, length: u32) {
        let encoder = self.encoder;
        self.transmit.headers(|out| encoder.r2t(out, cid, slot, length));
    }

    /// TermReq, the last thing that is sent.
    pub(super) fn terminate(&mut self, violation: &Violation) {
        self.transmit.headers(|out| Encoder::term_request(out, PduType::C2hTermReq, violation));
    }

    /// Queues the data and the completion of a command.
    pub(super) fn complete(
        &mut self,
        parameters: Option<QueueParameters>,
        (slot, cid, wanted): (u16, u16, CommandData),
        completion: Completion,
    ) {
        let mut completion = completion;
        let data = completion
            .data
            .take()
            .filter(|data| completion.status.is_success() && !data.is_empty());
        let flow_control = parameters.is_none_or(|parameters| parameters.flow_control);
        self.sq_head.advance(parameters);
        let mut answered = false;
        match (data, wanted) {
            (None, _) => {}
            (Some(data), CommandData::ToHost(limit)) if data.len() <= limit as usize => {
                // T-43, T-44: only for a plain success, and only when the host does not wait for SQHD.
                answered = completion.result == 0
                    && completion.status == Status::SUCCESS
                    && (self.success_flag || !flow_control);
                self.data(cid, &data, answered);
            }
            // T-26: never more than the SGL says, and nothing to a command that reads nothing.
            (Some(_), _) => completion = Completion::error(Status::INTERNAL_ERROR),
        }
        if !answered {
            let cqe = self.sq_head.entry(parameters, cid, &completion);
            let encoder = self.encoder;
            self.transmit.headers(|out| encoder.response(out, cqe));
        }
        self.leaving.push_back((self.transmit.queued(), slot));
    }

    /// The next command whose completion has left: its slot may be used again.
    pub(super) fn next_left(&mut self) -> Option<u16> {
        let (position, slot) = *self.leaving.front()?;
        if position > self.transmit.sent() {
            return None;
        }
        self.leaving.pop_front();
        Some(slot)
    }

    /// CONFORMANCE T-40, T-41, T-45, T-47.
    fn data(&mut self, cid: u16, data: &Buffer, success: bool) {
        let mut offset = 0;
        while offset < data.len() {
            let end = data.len().min(offset + self.data_pdu_bytes);
            let last = end == data.len();
            let mut piece_flags = if last { flags::LAST } else { 0 };
            if last && success {
                piece_flags |= flags::SUCCESS;
            }
            let piece = data.slice(offset..end);
            let header = DataPiece {
                cid,
                ttag: 0,
                offset: u32::try_from(offset).unwrap_or(u32::MAX),
                length: u32::try_from(end - offset).unwrap_or(u32::MAX),
                flags: piece_flags,
            };
            let encoder = self.encoder;
            self.transmit.headers(|out| encoder.data(out, PduType::C2hData, header));
            self.transmit.data(piece.clone());
            self.transmit.headers(|out| encoder.data_digest(out, &piece));
            offset = end;
        }
    }
}
