//! Registered memory: the protection domain of one reactor on one device, and the registrations
//! of its buffer pools.
//!
//! Pools are registered for local use. Keys for a peer exist only once [`Memory::open_remote`] was
//! called, which the active side does; queue pairs of the passive side refuse remote access
//! whatever the registration says.

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use afs_verbs_sys as sys;

use crate::buffer::{BufferPool, REGISTRATION_BYTES};
use crate::verbs::RemoteMemory;
use crate::verbs::context::SharedContext;
use crate::verbs::error::{check, registration};

/// A protection domain and the pools registered in it.
pub(in crate::verbs) struct Memory {
    /// Dropped before the domain that they are registered in.
    pools: RefCell<Vec<RegisteredPool>>,
    remote: RefCell<Vec<RegisteredPool>>,
    registered: Cell<u64>,
    domain: Domain,
}

/// One pool's registrations: one for each of its pieces, in order.
struct RegisteredPool {
    /// Before the pool, which keeps the memory mapped.
    regions: Vec<Region>,
    base: usize,
    pool: BufferPool,
}

impl RegisteredPool {
    fn region(&self, address: usize) -> Option<&Region> {
        self.regions.get(address.checked_sub(self.base)? / REGISTRATION_BYTES)
    }
}

impl Memory {
    pub(super) fn new(context: Arc<SharedContext>) -> io::Result<Memory> {
        // SAFETY: the context is open.
        let raw = NonNull::new(unsafe { context.verbs().ib().ibv_alloc_pd(context.raw()) })
            .ok_or_else(io::Error::last_os_error)?;
        Ok(Memory {
            pools: RefCell::default(),
            remote: RefCell::default(),
            registered: Cell::new(0),
            domain: Domain { raw, context },
        })
    }

    /// Does anybody wait for memory of a pool that requests may hold buffers of?
    pub(super) fn has_waiters(&self) -> bool {
        self.pools.borrow().iter().any(|known| known.pool.has_waiters())
    }

    /// Registers pools for local use, those of them that are not registered yet.
    pub(super) fn register<'a>(
        &self,
        pools: impl IntoIterator<Item = &'a BufferPool>,
    ) -> io::Result<()> {
        // The answer to an RDMA READ is a write of the peer's on iWARP.
        let iwarp = if self.domain.context.is_iwarp() { sys::IBV_ACCESS_REMOTE_WRITE } else { 0 };
        self.register_in(&self.pools, pools, sys::IBV_ACCESS_LOCAL_WRITE | iwarp)
    }

    /// Makes keys with which a peer may read and write all registered pools.
    pub(super) fn open_remote(&self) -> io::Result<()> {
        let pools: Vec<BufferPool> =
            self.pools.borrow().iter().map(|known| known.pool.clone()).collect();
        let access = sys::IBV_ACCESS_LOCAL_WRITE
            | sys::IBV_ACCESS_REMOTE_WRITE
            | sys::IBV_ACCESS_REMOTE_READ;
        self.register_in(&self.remote, &pools, access)
    }

    /// The key for local use of memory of `pool`.
    pub(in crate::verbs) fn local_key(&self, pool: &BufferPool, address: *const u8) -> Option<u32> {
        let pools = self.pools.borrow();
        let known = pools.iter().find(|known| known.pool.same_as(pool))?;
        known.region(address.addr()).map(Region::local_key)
    }

    /// As [`local_key`](Self::local_key) for memory of a pool that may not be registered yet: its first
    /// use registers it. Pools live as long as their reactor, so this happens a few times at most.
    pub(in crate::verbs) fn local_key_or_register(
        &self,
        pool: &BufferPool,
        address: *const u8,
    ) -> Option<u32> {
        if let Some(key) = self.local_key(pool, address) {
            return Some(key);
        }
        if let Err(error) = self.register([pool]) {
            tracing::warn!(%error, "a buffer pool cannot be registered with an RDMA device");
        }
        self.local_key(pool, address)
    }

    /// What a peer needs to access memory of `pool`; `None` before `open_remote`. A pool that was not registered by then is now,
    /// as in [`local_key_or_register`](Self::local_key_or_register).
    pub(super) fn remote(&self, pool: &BufferPool, address: *const u8) -> Option<RemoteMemory> {
        let is_open = !self.remote.borrow().is_empty();
        match self.remote_key(pool, address) {
            None if is_open => {
                if let Err(error) = self.register([pool]).and_then(|()| self.open_remote()) {
                    tracing::warn!(%error, "a buffer pool cannot be registered for peers with an RDMA device");
                }
                self.remote_key(pool, address)
            }
            known => known,
        }
    }

    fn remote_key(&self, pool: &BufferPool, address: *const u8) -> Option<RemoteMemory> {
        let remote = self.remote.borrow();
        let known = remote.iter().find(|known| known.pool.same_as(pool))?;
        let key = known.region(address.addr()).map(Region::remote_key)?;
        Some(RemoteMemory { address: address.addr() as u64, key })
    }

    /// Registers memory that is not a pool's.
    ///
    /// # Safety
    /// The memory stays mapped as long as the result, and nobody else uses it while the device
    /// may write there.
    pub(super) unsafe fn region(&self, base: NonNull<u8>, bytes: usize) -> io::Result<Region> {
        // SAFETY: as the caller promises.
        let region = unsafe { self.domain.region(base, bytes, sys::IBV_ACCESS_LOCAL_WRITE)? };
        self.count(bytes);
        Ok(region)
    }

    pub(in crate::verbs) fn domain(&self) -> *mut sys::ibv_pd {
        self.domain.raw.as_ptr()
    }

    /// Bytes registered so far; memory that is registered twice counts twice.
    pub(super) fn registered_bytes(&self) -> u64 {
        self.registered.get()
    }

    fn register_in<'a>(
        &self,
        table: &RefCell<Vec<RegisteredPool>>,
        pools: impl IntoIterator<Item = &'a BufferPool>,
        access: u32,
    ) -> io::Result<()> {
        for pool in pools {
            if table.borrow().iter().any(|known| known.pool.same_as(pool)) {
                continue;
            }
            let mut regions = Vec::new();
            for (base, bytes) in pool.pieces() {
                // SAFETY: the pool's memory stays mapped while the entry holds the pool, longer
                // than its regions. Who uses which part is the business of its buffers.
                regions.push(unsafe { self.domain.region(base, bytes, access)? });
            }
            let base = pool.pieces().next().map_or(0, |(base, _)| base.as_ptr().addr());
            table.borrow_mut().push(RegisteredPool { regions, base, pool: pool.clone() });
            self.count(pool.total_bytes());
        }
        Ok(())
    }

    fn count(&self, bytes: usize) {
        self.registered.set(self.registered.get() + bytes as u64);
    }
}

/// The protection domain; a key is good only in its own.
struct Domain {
    raw: NonNull<sys::ibv_pd>,
    context: Arc<SharedContext>,
}

impl Domain {
    /// # Safety
    /// As for [`Memory::region`].
    unsafe fn region(&self, base: NonNull<u8>, bytes: usize, access: u32) -> io::Result<Region> {
        let address = base.as_ptr();
        // SAFETY: the domain is live; the memory is as the caller promises.
        let raw = NonNull::new(unsafe {
            self.context.verbs().ib().ibv_reg_mr_iova2(
                self.raw.as_ptr(),
                address.cast(),
                bytes,
                // The device reaches the memory by number from now on.
                address.expose_provenance() as u64,
                access,
            )
        })
        .ok_or_else(|| registration(bytes, &io::Error::last_os_error()))?;
        Ok(Region { raw, context: self.context.clone() })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: all that was made in it is destroyed: `DeviceInner` drops its fields in order.
        let code = unsafe { self.context.verbs().ib().ibv_dealloc_pd(self.raw.as_ptr()) };
        super::warn_undestroyed("protection domain", check(code));
    }
}

/// One registration.
pub(super) struct Region {
    raw: NonNull<sys::ibv_mr>,
    context: Arc<SharedContext>,
}

impl Region {
    pub(super) fn local_key(&self) -> u32 {
        // SAFETY: live as long as this.
        unsafe { self.raw.as_ref() }.lkey
    }

    fn remote_key(&self) -> u32 {
        // SAFETY: live as long as this.
        unsafe { self.raw.as_ref() }.rkey
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: no queue that could use the key is left.
        let code = unsafe { self.context.verbs().ib().ibv_dereg_mr(self.raw.as_ptr()) };
        super::warn_undestroyed("registration", check(code));
    }
}
