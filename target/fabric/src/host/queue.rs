//! A queue pair as its users see it: submit a command, await its completion.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::Waker;

use afs_nvme::command::{IoCommand, Rw};
use afs_nvme::{ControllerId, Cqe, Sqe};
use afs_reactor::{Buffer, BufferMut, Local};
use tokio::sync::{Notify, Semaphore};

use super::endpoint::Endpoint;
use super::error::HostError;
use super::options::HostOptions;
use super::rdma::{self, RdmaLink};
use super::table::Table;
use super::tcp::{self, TcpLink};

/// Bytes of a logical block of the namespaces that the helpers read and write.
const BLOCK_BYTES: usize = 4096;

/// Data of a command.
#[derive(Debug)]
pub enum HostData {
    /// None.
    None,
    /// Host to controller.
    Out(Buffer),
    /// Controller to host, straight into this buffer, which comes back with the completion.
    In(BufferMut),
}

impl HostData {
    pub(super) fn len(&self) -> usize {
        match self {
            HostData::None => 0,
            HostData::Out(buffer) => buffer.len(),
            HostData::In(buffer) => buffer.len(),
        }
    }
}

/// What a queue pair has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Commands submitted.
    pub commands: u64,
    /// Receive calls to the kernel; none over RDMA.
    pub receive_calls: u64,
    /// Send calls to the kernel, or doorbells of an RDMA device.
    pub send_calls: u64,
}

/// What carries the commands.
pub(super) enum Link {
    Tcp(Rc<RefCell<TcpLink>>),
    Rdma(Rc<RdmaLink>),
}

/// What the handles and the driver of a queue pair share.
pub(super) struct Shared {
    pub(super) table: RefCell<Table>,
    pub(super) link: Link,
    pub(super) permits: Semaphore,
    pub(super) ended: Notify,
    /// The driver's waker while it waits.
    pub(super) driver: RefCell<Option<Waker>>,
    /// The last handle is gone, or somebody wants its end.
    pub(super) ending: Cell<bool>,
    pub(super) peer: SocketAddr,
}

impl Shared {
    /// Of a queue pair with `entries` entries, one less of which may be outstanding.
    pub(super) fn new(table: Table, link: Link, entries: u16, peer: SocketAddr) -> Rc<Shared> {
        Rc::new(Shared {
            table: RefCell::new(table),
            link,
            permits: Semaphore::new(usize::from(entries) - 1),
            ended: Notify::new(),
            driver: RefCell::new(None),
            ending: Cell::new(false),
            peer,
        })
    }

    /// Ends everything; no buffer of an outstanding command is in use by anybody else any more.
    pub(super) fn close(&self, error: &HostError) {
        self.table.borrow_mut().close(error);
        self.permits.close();
        self.ended.notify_waiters();
    }

    fn submit(&self, mut sqe: Sqe, data: HostData) -> Result<u16, HostError> {
        let too_long = HostError::Argument("data of a command is limited to 4 GiB");
        let length = u32::try_from(data.len()).map_err(|_| too_long)?;
        let mut table = self.table.borrow_mut();
        let (slot, cid) = table.begin()?;
        sqe.cid.set(cid);
        match &self.link {
            Link::Tcp(link) => link.borrow_mut().submit(&mut table, sqe, length, data),
            Link::Rdma(link) => link.submit(&mut table, sqe, length, data),
        }
        Ok(slot)
    }

    pub(super) fn wake_driver(&self) {
        let driver = self.driver.borrow_mut().take();
        if let Some(waker) = driver {
            waker.wake();
        }
    }
}

/// Ends the connection when the last [`HostQueue`] of it is dropped.
struct Handle {
    shared: Rc<Shared>,
    options: HostOptions,
    local: Local,
}

impl Handle {
    fn end(&self) {
        self.shared.ending.set(true);
        self.shared.wake_driver();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

/// A queue pair to a controller; cheap to clone, bound to its reactor. It closes with its last clone.
#[derive(Clone)]
pub struct HostQueue(Rc<Handle>);

/// A [`HostQueue`] that does not keep its connection.
pub(super) struct WeakQueue(Weak<Handle>);

impl WeakQueue {
    pub(super) fn upgrade(&self) -> Option<HostQueue> {
        self.0.upgrade().map(HostQueue)
    }
}

impl HostQueue {
    /// Opens a connection and shakes hands (ICReq, ICResp). The queue pair is of no use before
    /// [`HostQueue::connect`].
    ///
    /// # Errors
    /// [`HostError::Socket`], [`HostError::Timeout`], [`HostError::Violation`] or [`HostError::Terminated`].
    pub async fn connect_tcp(
        address: SocketAddr,
        local: &Local,
        options: HostOptions,
    ) -> Result<HostQueue, HostError> {
        tcp::open(address, local, options).await
    }

    /// Opens queue `qid` of a controller that will be joined with [`HostQueue::connect`], over whatever carries `endpoint`.
    /// `controller` is the one to join, if it is known.
    ///
    /// # Errors
    /// As [`HostQueue::connect_tcp`], or [`HostError::Rejected`].
    pub async fn open(
        endpoint: &Endpoint,
        local: &Local,
        options: HostOptions,
        (qid, controller): (u16, Option<ControllerId>),
    ) -> Result<HostQueue, HostError> {
        match endpoint {
            Endpoint::Tcp(address) => tcp::open(*address, local, options).await,
            Endpoint::Rdma { verbs, address } => {
                rdma::open(verbs, *address, local, options, (qid, controller)).await
            }
        }
    }

    pub(super) fn new(shared: Rc<Shared>, options: HostOptions, local: Local) -> HostQueue {
        HostQueue(Rc::new(Handle { shared, options, local }))
    }

    pub(super) fn downgrade(&self) -> WeakQueue {
        WeakQueue(Rc::downgrade(&self.0))
    }

    /// The reactor that this queue pair lives on.
    #[must_use]
    pub fn local(&self) -> &Local {
        &self.0.local
    }

    /// Submits a command and waits for its completion. Command id and SGL are filled in. While the queue is
    /// full it waits its turn. The status of the completion is not looked at; see [`HostQueue::command`].
    ///
    /// # Errors
    /// When the connection is lost, or its data did not arrive whole.
    pub async fn submit(
        &self,
        sqe: Sqe,
        data: HostData,
    ) -> Result<(Cqe, Option<BufferMut>), HostError> {
        self.submit_unless(|| false, sqe, data).await
    }

    /// As [`HostQueue::submit`], but sends nothing if `withdrawn` when its turn has come.
    ///
    /// # Errors
    /// Also [`HostError::Withdrawn`].
    pub async fn submit_unless(
        &self,
        withdrawn: impl Fn() -> bool,
        sqe: Sqe,
        data: HostData,
    ) -> Result<(Cqe, Option<BufferMut>), HostError> {
        let shared = &self.0.shared;
        let permit = match shared.permits.acquire().await {
            Ok(permit) => permit,
            Err(_) => return Err(self.closed().unwrap_or(HostError::Closed)),
        };
        if withdrawn() {
            return Err(HostError::Withdrawn);
        }
        permit.forget();
        let begun = shared.submit(sqe, data);
        let slot = match begun {
            Ok(slot) => slot,
            Err(error) => {
                shared.permits.add_permits(1);
                return Err(error);
            }
        };
        shared.wake_driver();
        let mut pending = Pending { shared, slot, over: false };
        poll_fn(|cx| {
            let outcome = shared.table.borrow_mut().poll_outcome(slot, cx.waker());
            if outcome.is_ready() {
                pending.over = true;
                shared.permits.add_permits(1);
            }
            outcome
        })
        .await
    }

    /// As [`HostQueue::submit`], with an unsuccessful completion as [`HostError::Status`].
    ///
    /// # Errors
    /// See there.
    pub async fn command(
        &self,
        sqe: Sqe,
        data: HostData,
    ) -> Result<(Cqe, Option<BufferMut>), HostError> {
        let (cqe, buffer) = self.submit(sqe, data).await?;
        if cqe.status().is_success() {
            return Ok((cqe, buffer));
        }
        Err(HostError::Status { status: cqe.status(), result: cqe.dw0() })
    }

    /// Reads blocks of 4 KiB into the whole of `buffer`.
    ///
    /// # Errors
    /// See [`HostQueue::command`]; the buffer is lost with an error.
    pub async fn read(
        &self,
        nsid: u32,
        lba: u64,
        buffer: BufferMut,
    ) -> Result<BufferMut, HostError> {
        let range = blocks(lba, buffer.len())?;
        let (_, buffer) =
            self.command(IoCommand::Read(range).to_sqe(nsid), HostData::In(buffer)).await?;
        buffer.ok_or(HostError::Unusable("a read gave its buffer away"))
    }

    /// Writes blocks of 4 KiB.
    ///
    /// # Errors
    /// See [`HostQueue::command`].
    pub async fn write(&self, nsid: u32, lba: u64, data: Buffer) -> Result<(), HostError> {
        let range = blocks(lba, data.len())?;
        self.command(IoCommand::Write(range).to_sqe(nsid), HostData::Out(data)).await.map(drop)
    }

    /// Makes all completed writes durable.
    ///
    /// # Errors
    /// See [`HostQueue::command`].
    pub async fn flush(&self, nsid: u32) -> Result<(), HostError> {
        self.command(IoCommand::Flush.to_sqe(nsid), HostData::None).await.map(drop)
    }

    /// Ends the connection, and all that is outstanding on it with [`HostError::Closed`], soon.
    pub(super) fn end(&self) {
        self.0.end();
    }

    /// Why the connection ended, if it did.
    #[must_use]
    pub fn closed(&self) -> Option<HostError> {
        self.0.shared.table.borrow().closed.clone()
    }

    /// Waits until the connection has ended, and says why.
    pub async fn wait_closed(&self) -> HostError {
        loop {
            let ended = self.0.shared.ended.notified();
            if let Some(error) = self.closed() {
                return error;
            }
            ended.await;
        }
    }

    /// What the queue pair has done so far.
    #[must_use]
    pub fn counters(&self) -> HostCounters {
        self.0.shared.table.borrow().counters
    }

    /// MAXH2CDATA of the controller, in bytes; TCP only.
    #[must_use]
    pub fn max_h2c_data(&self) -> Option<u32> {
        match &self.0.shared.link {
            Link::Tcp(link) => Some(link.borrow().max_h2c_data()),
            Link::Rdma(_) => None,
        }
    }

    /// Address of the controller.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.0.shared.peer
    }

    pub(super) fn options(&self) -> &HostOptions {
        &self.0.options
    }

    /// Says that this became an I/O queue: its in-capsule limit is that of IOCCSZ.
    pub(super) fn set_io(&self) {
        self.0.shared.table.borrow_mut().admin = false;
    }
}

/// A command under way. Dropping it leaves its slot and its buffers with the queue until the controller answers.
struct Pending<'a> {
    shared: &'a Shared,
    slot: u16,
    over: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.over && self.shared.table.borrow_mut().abandon(self.slot) {
            self.shared.permits.add_permits(1);
        }
    }
}

fn blocks(lba: u64, bytes: usize) -> Result<Rw, HostError> {
    let argument =
        HostError::Argument("a transfer is whole blocks of 4 KiB, at most 65536 of them");
    let count = u32::try_from(bytes / BLOCK_BYTES).map_err(|_| argument.clone())?;
    if count == 0 || count > 1 << 16 || !bytes.is_multiple_of(BLOCK_BYTES) {
        return Err(argument);
    }
    Ok(Rw { lba, blocks: count, fua: false })
}
