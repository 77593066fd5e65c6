//! The Connect command, which makes a queue pair a queue of a controller (CONFORMANCE 3.1).

use afs_nvme::command::Connect;
use afs_nvme::fabrics::ConnectData;
use afs_nvme::{ControllerId, HostId, Nqn};
use zerocopy::IntoBytes;

use super::error::HostError;
use super::queue::{HostData, HostQueue};

/// Who connects a queue, and to what.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// Queue id; 0 makes a new controller.
    pub qid: u16,
    /// Keep-alive timeout in milliseconds, for the admin queue; 0 for none.
    pub kato_ms: u32,
    /// Identity of the host.
    pub host_id: HostId,
    /// Name of the host.
    pub host_nqn: Nqn,
    /// Subsystem.
    pub subsystem: Nqn,
    /// Controller to join, or [`ControllerId::DYNAMIC`] for the admin queue.
    pub controller: ControllerId,
}

impl HostQueue {
    /// Connects this queue pair to a controller; returns the controller's id.
    ///
    /// # Errors
    /// [`HostError::Status`] when the controller refuses; `result` says which field was wrong.
    pub async fn connect(&self, request: &ConnectRequest) -> Result<ControllerId, HostError> {
        let data = ConnectData::new(
            request.host_id,
            request.controller,
            &request.subsystem,
            &request.host_nqn,
        );
        let mut buffer = self.local().pool().alloc(size_of::<ConnectData>()).await;
        buffer.copy_from_slice(data.as_bytes());
        let command = Connect {
            qid: request.qid,
            sqsize: self.options().entries.saturating_sub(1),
            disable_sq_flow: self.options().disable_flow_control,
            kato_ms: request.kato_ms,
        };
        let (cqe, _) = self.command(command.to_sqe(), HostData::Out(buffer.freeze())).await?;
        if request.qid != 0 {
            self.set_io();
        }
        let [low, high, ..] = cqe.dw0().to_le_bytes();
        Ok(ControllerId(u16::from_le_bytes([low, high])))
    }
}
