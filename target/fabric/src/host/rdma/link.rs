//! Commands as work requests.

use std::cell::RefCell;

use afs_nvme::{Cqe, Sgl, SglDescriptor, Sqe};
use afs_reactor::verbs::{QueuePair, RdmaDevice, RemoteMemory};
use zerocopy::IntoBytes;

use super::super::error::HostError;
use super::super::queue::HostData;
use super::super::table::Table;

/// See the module.
pub(in super::super) struct RdmaLink {
    /// Until the connection has ended. A queue that nobody uses may be kept for long after that, and must not keep a device open
    /// that was removed.
    ends: RefCell<Option<Ends>>,
    /// Longest in-capsule data in bytes; 0 on the admin queue (CONFORMANCE R-11).
    in_capsule_bytes: u32,
}

/// What a connection rests on.
struct Ends {
    pair: QueuePair,
    device: RdmaDevice,
}

impl RdmaLink {
    pub(super) fn new(pair: QueuePair, device: RdmaDevice, in_capsule_bytes: u32) -> RdmaLink {
        RdmaLink { ends: RefCell::new(Some(Ends { pair, device })), in_capsule_bytes }
    }

    /// Queues a command whose slot was taken. Data that no key covers ends the command at once.
    pub(in super::super) fn submit(
        &self,
        table: &mut Table,
        mut sqe: Sqe,
        length: u32,
        data: HostData,
    ) {
        let cid = sqe.cid();
        let Some(slot) = table.slot(cid) else { return };
        let ends = self.ends.borrow();
        let Some(Ends { pair, device }) = ends.as_ref() else {
            return table.complete(cid, Err(HostError::Closed));
        };
        let mut payload = None;
        let sgl = match data {
            HostData::None => Some(keyed(RemoteMemory { address: 0, key: 0 }, 0)),
            HostData::Out(buffer) if length > 0 && length <= self.in_capsule_bytes => {
                payload = Some(buffer);
                Some(Sgl::in_capsule(length))
            }
            HostData::Out(buffer) => {
                let memory = device.remote_key(&buffer);
                slot.output = Some(buffer);
                memory.map(|memory| keyed(memory, length))
            }
            HostData::In(buffer) => {
                let memory = device.remote_key(&buffer);
                slot.input = Some(buffer);
                memory.map(|memory| keyed(memory, length))
            }
        };
        match sgl {
            Some(sgl) => {
                sqe.sgl = sgl;
                pair.send(cid, sqe.as_bytes(), payload, None, None);
            }
            None => {
                let why =
                    HostError::Argument("the buffer cannot be registered with the RDMA device");
                table.complete(cid, Err(why));
            }
        }
    }

    /// Lets `action` use the queue pair, if it is still there.
    pub(super) fn with_pair<T>(&self, action: impl FnOnce(&QueuePair) -> T) -> Option<T> {
        self.ends.borrow().as_ref().map(|ends| action(&ends.pair))
    }

    /// Destroys the queue pair: from now on the controller cannot write to any buffer. Lets go of the device, too.
    pub(super) fn destroy(&self) {
        let ends = self.ends.take();
        drop(ends);
    }

    /// Ends a command with the completion that came in a message of `len` bytes.
    pub(super) fn complete(
        &self,
        table: &mut Table,
        message: &[u8],
        len: usize,
    ) -> Result<(), HostError> {
        let entry = message.get(..len.min(message.len())).unwrap_or_default();
        let (cqe, _) = zerocopy::FromBytes::read_from_prefix(entry).map_err(
            |_: zerocopy::SizeError<&[u8], Cqe>| HostError::Unusable("a short response"),
        )?;
        let cid = Cqe::cid(&cqe);
        if !table.is_outstanding(cid) {
            return Err(HostError::Unusable("a response to no command"));
        }
        let input = table.slot(cid).and_then(|slot| slot.input.take());
        table.complete(cid, Ok((cqe, input)));
        Ok(())
    }
}

fn keyed(memory: RemoteMemory, length: u32) -> Sgl {
    let RemoteMemory { address, key } = memory;
    SglDescriptor::Keyed { address, length, key, invalidate: false }.to_sgl()
}
