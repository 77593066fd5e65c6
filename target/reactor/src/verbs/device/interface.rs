//! What others see of a device: how to open it, what it can do, what is happening on it.

use std::io;
use std::rc::Rc;

use super::{DeviceInner, driver};
use crate::buffer::{Buffer, BufferMut, BufferPool};
use crate::reactor::Local;
use crate::verbs::RemoteMemory;
use crate::verbs::cm::CmId;

/// How a device is to be used. Connections for which it differs have the device opened twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Room for data behind the 64 bytes of a message, in each receive; at most
    /// [`MAX_BUFFER_BYTES`](crate::MAX_BUFFER_BYTES).
    pub capsule_data_bytes: usize,
    /// How many receives one reactor keeps ready at most, for all its connections together. The
    /// device's own limit counts if it is lower.
    pub receives_max: u32,
}

/// What a device can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Commands outstanding on one queue pair.
    pub commands_max: u16,
    /// RDMA READs under way on one queue pair.
    pub initiator_depth: u8,
    /// RDMA READs of a peer that one queue pair serves at once.
    pub responder_resources: u8,
}

/// What is happening on a device, as one reactor uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceFigures {
    /// Bytes of registered memory; what a peer may access counts twice.
    pub registered_bytes: u64,
    /// Queue pairs.
    pub queue_pairs: usize,
    /// Receives that are ready for messages.
    pub receives_posted: u32,
    /// How many should be: fewer are posted while the pool is empty.
    pub receives_wanted: u32,
    /// Receives that dying queue pairs took with them; their memory comes back when the device is
    /// closed.
    pub receives_lost: u32,
    /// Calls that handed requests to the device, since it was opened.
    pub doorbells: u64,
    /// Looks at the completion queues.
    pub polls: u64,
    /// Completions seen.
    pub completions: u64,
    /// Times that the reactor asked a completion queue to wake it, before it slept.
    pub armings: u64,
}

/// A device, as one reactor uses it. Cloning it makes another handle.
#[derive(Clone)]
pub struct RdmaDevice {
    pub(in crate::verbs) inner: Rc<DeviceInner>,
}

/// Memory that a peer can be let in to.
pub trait RemoteAccess {
    /// Where it lies, and the pool that it is of.
    fn place(&self) -> (&BufferPool, *const u8);
}

impl RemoteAccess for Buffer {
    fn place(&self) -> (&BufferPool, *const u8) {
        (self.pool(), self.as_ptr())
    }
}

impl RemoteAccess for BufferMut {
    fn place(&self) -> (&BufferPool, *const u8) {
        (self.pool(), self.as_ptr())
    }
}

impl RdmaDevice {
    /// The device of a connection, opened unless this reactor has it open. The reactor's pool and
    /// `pools` are registered with it.
    ///
    /// # Errors
    /// When it is not known yet which device it is, or the device or its limits do not allow it;
    /// the message says what to change.
    pub fn of(
        local: &Local,
        id: &CmId,
        options: &DeviceOptions,
        pools: &[BufferPool],
    ) -> io::Result<RdmaDevice> {
        let context = id.inner.context().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotConnected, "the RDMA connection has no device yet")
        })?;
        let devices = local.rdma();
        let inner = match devices.find(context, options) {
            Some(inner) => inner,
            None => {
                let inner = Rc::new(DeviceInner::open(local, id, context.clone(), options)?);
                devices.enter(&inner);
                local.spawn_local(driver::drive(Rc::downgrade(&inner)));
                inner
            }
        };
        inner.memory.register(pools)?;
        Ok(RdmaDevice { inner })
    }

    /// What the device can do.
    pub fn limits(&self) -> DeviceLimits {
        self.inner.limits()
    }

    /// What is happening on it.
    pub fn figures(&self) -> DeviceFigures {
        self.inner.figures()
    }

    /// What a peer of the active side needs to read and write this buffer. `None` when no queue pair
    /// of the active side was made on the device, or the buffer's pool cannot be registered.
    pub fn remote_key(&self, buffer: &impl RemoteAccess) -> Option<RemoteMemory> {
        let (pool, address) = buffer.place();
        self.inner.memory.remote(pool, address)
    }
}
