//! The head of a submission queue, as completions report it.

use afs_nvme::Cqe;
use afs_nvme::cqe::SQ_HEAD_NO_FLOW_CONTROL;

use super::queue::QueueParameters;
use super::service::Completion;

/// Counts the entries that were completed, modulo the size of the queue (CONFORMANCE 0, CQE).
#[derive(Default)]
pub(super) struct SqHead(u16);

impl SqHead {
    /// One more command is completed.
    pub(super) fn advance(&mut self, parameters: Option<QueueParameters>) {
        let last = parameters.map_or(u16::MAX, |parameters| parameters.sqsize);
        self.0 = if self.0 >= last { 0 } else { self.0 + 1 };
    }

    /// The completion queue entry of a command.
    pub(super) fn entry(
        &self,
        parameters: Option<QueueParameters>,
        cid: u16,
        completion: &Completion,
    ) -> Cqe {
        let flow_control = parameters.is_none_or(|parameters| parameters.flow_control);
        let mut cqe = Cqe::new(cid, completion.status, completion.result);
        cqe.sq_head.set(if flow_control { self.0 } else { SQ_HEAD_NO_FLOW_CONTROL });
        cqe.sq_id.set(parameters.map_or(0, |parameters| parameters.qid));
        cqe
    }
}
