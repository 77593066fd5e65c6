//! A disk that remembers, for every sector, what is on stable media and what is not yet. Used
//! through [`afs_env::Disk`] by the store, and directly by tests that cut the power or break
//! things.

mod faults;
mod image;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use afs_env::{Buffer, BufferMut, BufferPool, Disk, DiskError};

use image::{Image, Version};
pub use image::{Loss, Snapshot};

use crate::clock::SimClock;
use crate::random::SimRandom;

/// What a disk is like.
#[derive(Clone, Copy, Debug)]
pub struct DiskConfig {
    /// Bytes.
    pub size: u64,
    /// Bytes that a power cut leaves whole: 512 or 4096.
    pub atomic: u32,
    /// Plain writes are durable only after a sync. Without a cache they are durable when they end.
    pub volatile_cache: bool,
    /// Writes that begin in this range (first byte, length) mostly let others go first.
    pub slow: (u64, u64),
}

#[derive(Clone)]
enum Operation {
    Read { offset: u64, length: usize },
    Write { offset: u64, data: Rc<Vec<u8>>, durable: bool },
    Sync { ended: u64 },
    Nothing,
}

/// Where the result of an operation is left for whoever waits for it.
#[derive(Default)]
struct Ticket {
    result: Option<Result<Vec<u8>, DiskError>>,
    waker: Option<Waker>,
}

struct Pending {
    id: u64,
    operation: Operation,
    ticket: Rc<RefCell<Ticket>>,
}

#[derive(Default)]
struct Faults {
    writes: usize,
    /// Where those writes are: first byte and length.
    writes_at: (u64, u64),
    syncs: usize,
    reads: Vec<(u64, u64)>,
    dead: bool,
}

/// How long operations take.
struct Timing {
    clock: SimClock,
    random: SimRandom,
    /// Every operation takes so many times what it would.
    slowness: u32,
}

struct Inner {
    config: DiskConfig,
    image: Image,
    pending: Vec<Pending>,
    next_id: u64,
    faults: Faults,
    sync_failed: bool,
    timing: Option<Timing>,
}

/// See the module documentation. Clones are handles to the same disk.
#[derive(Clone)]
pub struct SimDisk {
    inner: Rc<RefCell<Inner>>,
    pool: BufferPool,
    operations: Rc<Cell<u64>>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(config: DiskConfig, pool: &BufferPool) -> Self {
        let image = Image::new(config.size);
        Self::with_image(config, image, pool)
    }

    /// A disk that holds what a cut left.
    pub fn from_snapshot(config: DiskConfig, snapshot: &Snapshot, pool: &BufferPool) -> Self {
        Self::with_image(config, Image::from_snapshot(snapshot), pool)
    }

    fn with_image(config: DiskConfig, image: Image, pool: &BufferPool) -> Self {
        let inner = Inner {
            config,
            image,
            pending: Vec::new(),
            next_id: 0,
            faults: Faults::default(),
            sync_failed: false,
            timing: None,
        };
        Self { inner: Rc::new(RefCell::new(inner)), pool: pool.clone(), operations: Rc::default() }
    }

    /// What the disk is like.
    pub fn config(&self) -> DiskConfig {
        self.inner.borrow().config
    }

    /// Operations that have ended so far.
    pub fn operations(&self) -> u64 {
        self.operations.get()
    }

    /// Operations under way.
    pub fn under_way(&self) -> usize {
        self.inner.borrow().pending.len()
    }

    /// The next `count` writes that begin in this range fail.
    pub fn fail_writes_at(&self, offset: u64, length: u64, count: usize) {
        let faults = &mut self.inner.borrow_mut().faults;
        faults.writes = count;
        faults.writes_at = (offset, length);
    }

    /// The next `count` syncs fail.
    pub fn fail_syncs(&self, count: usize) {
        self.inner.borrow_mut().faults.syncs = count;
    }

    /// Reads of this range fail.
    pub fn fail_reads(&self, offset: u64, length: u64) {
        self.inner.borrow_mut().faults.reads.push((offset, length));
    }

    /// What would be found after a power cut now.
    pub fn cut(&self, loss: Loss, random: &SimRandom) -> Snapshot {
        let inner = self.inner.borrow();
        let in_flight = inner.pending.iter().filter_map(|pending| match &pending.operation {
            Operation::Write { offset, data, .. } => Some(Version::new(*offset, data.clone())),
            _ => None,
        });
        inner.image.cut(in_flight.collect(), inner.config.atomic as usize, loss, random)
    }

    /// Everything that was written, as if it were durable.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.borrow().image.latest()
    }

    /// Makes an operation that is chosen by chance happen.
    pub(crate) fn step(&self, random: &SimRandom) {
        let id = {
            let inner = self.inner.borrow();
            let mut index = random.below(inner.pending.len());
            for _ in 0..4 {
                if inner.is_slow(index) {
                    index = random.below(inner.pending.len());
                }
            }
            inner.pending.get(index).map(|pending| pending.id)
        };
        if let Some(id) = id {
            self.happen(id, random);
        }
    }

    /// An operation ends, unless a cut has already ended it.
    fn happen(&self, id: u64, random: &SimRandom) {
        let mut inner = self.inner.borrow_mut();
        let Some(index) = inner.pending.iter().position(|pending| pending.id == id) else { return };
        let pending = inner.pending.swap_remove(index);
        let result = inner.perform(&pending.operation, random);
        drop(inner);
        self.operations.set(self.operations.get() + 1);
        let mut ticket = pending.ticket.borrow_mut();
        ticket.result = Some(result);
        if let Some(waker) = ticket.waker.take() {
            waker.wake();
        }
    }

    fn in_range(&self, offset: u64, length: u64) -> bool {
        let aligned = offset.is_multiple_of(4096) && length.is_multiple_of(4096);
        aligned && offset.checked_add(length).is_some_and(|end| end <= self.size())
    }

    async fn submit(&self, operation: Operation) -> Result<Vec<u8>, DiskError> {
        let ticket = Rc::new(RefCell::new(Ticket::default()));
        self.begin(operation, ticket.clone());
        poll_fn(|context| {
            let mut ticket = ticket.borrow_mut();
            match ticket.result.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    ticket.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn begin(&self, operation: Operation, ticket: Rc<RefCell<Ticket>>) {
        let mut inner = self.inner.borrow_mut();
        let id = inner.next_id;
        inner.next_id += 1;
        inner.pending.push(Pending { id, operation, ticket });
        if let Some(timing) = &inner.timing {
            let (disk, random) = (self.clone(), timing.random.clone());
            timing.clock.after(timing.latency(), move || disk.happen(id, &random));
        }
    }

    async fn submit_write(
        &self,
        offset: u64,
        data: Vec<u8>,
        durable: bool,
    ) -> Result<(), DiskError> {
        if !self.in_range(offset, data.len() as u64) {
            return Err(DiskError::OutOfRange);
        }
        let data = Rc::new(data);
        self.submit(Operation::Write { offset, data, durable }).await.map(drop)
    }
}

impl Inner {
    fn is_slow(&self, index: usize) -> bool {
        let (first, length) = self.config.slow;
        match self.pending.get(index).map(|pending| &pending.operation) {
            Some(Operation::Write { offset, .. }) => {
                offset.checked_sub(first).is_some_and(|at| at < length)
            }
            _ => false,
        }
    }

    fn perform(&mut self, operation: &Operation, random: &SimRandom) -> Result<Vec<u8>, DiskError> {
        const EIO: DiskError = DiskError::Io { errno: 5 };
        if self.faults.dead {
            return Err(DiskError::Gone);
        }
        match operation {
            Operation::Read { offset, length } => {
                let end = offset + *length as u64;
                if self.faults.reads.iter().any(|(at, n)| *offset < at + n && *at < end) {
                    return Err(EIO);
                }
                Ok(self.image.read(*offset, *length))
            }
            Operation::Write { offset, data, durable } => {
                let (first, length) = self.faults.writes_at;
                let hit = offset.checked_sub(first).is_some_and(|at| at < length);
                if hit && self.faults.writes > 0 {
                    self.faults.writes -= 1;
                    // A failed write may have changed some of what it was to change.
                    let unit = self.config.atomic as usize;
                    let units = random.below(data.len() / unit + 1);
                    let part = data.get(..units * unit).unwrap_or_default().to_vec();
                    self.image.write(Version::new(*offset, Rc::new(part)), false);
                    return Err(EIO);
                }
                let version = Version::new(*offset, data.clone());
                self.image.write(version, *durable || !self.config.volatile_cache);
                Ok(Vec::new())
            }
            Operation::Sync { ended } => {
                if self.sync_failed || self.faults.syncs > 0 {
                    self.faults.syncs = self.faults.syncs.saturating_sub(1);
                    self.sync_failed = true;
                    return Err(EIO);
                }
                self.image.sync(*ended);
                Ok(Vec::new())
            }
            Operation::Nothing => Ok(Vec::new()),
        }
    }
}

impl Disk for SimDisk {
    fn size(&self) -> u64 {
        self.inner.borrow().config.size
    }

    fn block_size(&self) -> u32 {
        self.inner.borrow().config.atomic
    }

    fn pool(&self) -> &BufferPool {
        &self.pool
    }

    async fn read(&self, offset: u64, mut buffer: BufferMut) -> (BufferMut, Result<(), DiskError>) {
        let length = buffer.len();
        if !self.in_range(offset, length as u64) {
            return (buffer, Err(DiskError::OutOfRange));
        }
        let result = self.submit(Operation::Read { offset, length }).await;
        let result = result.map(|bytes| buffer.copy_from_slice(&bytes));
        (buffer, result)
    }

    async fn write(&self, offset: u64, data: Buffer) -> Result<(), DiskError> {
        self.submit_write(offset, data.to_vec(), false).await
    }

    async fn write_durable(&self, offset: u64, data: Buffer) -> Result<(), DiskError> {
        self.submit_write(offset, data.to_vec(), true).await
    }

    async fn sync(&self) -> Result<(), DiskError> {
        // Covers what had ended when it was asked for, and not what ends while it is under way.
        let ended = self.inner.borrow().image.ended();
        self.submit(Operation::Sync { ended }).await.map(drop)
    }

    async fn discard(&self, _: u64, _: u64) -> Result<(), DiskError> {
        self.submit(Operation::Nothing).await.map(drop)
    }

    async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        let length = usize::try_from(len).map_err(|_| DiskError::OutOfRange)?;
        self.submit_write(offset, vec![0; length], false).await
    }
}
