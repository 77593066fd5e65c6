//! A controller over a few MiB of memory: just enough of NVMe to drive the fabric.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use tokio::sync::Semaphore;

use afs_fabric::{CloseReason, Completion, Queue, QueueParameters, Request, Service};
use afs_nvme::command::{AdminCommand, Connect, FabricsCommand, IoCommand, Rw};
use afs_nvme::feature::QueueCounts;
use afs_nvme::identify::IdentifyController;
use afs_nvme::log::{DiscoveryEntry, DiscoveryHeader};
use afs_nvme::property::{Cap, Cc, Csts, PropertyOffset, ShutdownNotice, ShutdownStatus};
use afs_nvme::{Sqe, Status};
use afs_reactor::Local;
use zerocopy::{FromZeros, IntoBytes};

pub const BLOCK: usize = 4096;
pub const BLOCKS: u64 = 2048;
/// Reads and writes from here on wait for something that only the loss of their connection ends.
pub const STUCK_LBA: u64 = 1 << 40;
/// Reads and writes from here on end when [`Shared::disk`] lets them, connection or not: a slow disk.
pub const SLOW_LBA: u64 = 1 << 42;
/// Writes from here on fail while their data is still on its way.
pub const FAILING_LBA: u64 = 1 << 41;
/// A write here makes the reactor stand still, as if the process were stopped, until [`Shared::go_on`].
pub const STANDSTILL_LBA: u64 = 1 << 43;
/// A write here notes in [`Shared::host_there`] whether its host is still there.
pub const ASKING_LBA: u64 = STANDSTILL_LBA + 1;
/// The same, but first it waits for the slow disk.
pub const ASKING_LATE_LBA: u64 = ASKING_LBA + 1;

thread_local! {
    static QUEUES: RefCell<Vec<Queue>> = const { RefCell::new(Vec::new()) };
}

/// How often a socket of a toy on this reactor was not read because there was no buffer.
pub fn pool_waits() -> u64 {
    QUEUES.with_borrow(|queues| queues.iter().map(|queue| queue.counters().pool_waits).sum())
}

/// Entries of its discovery log.
pub const DISCOVERY_ENTRIES: u64 = 10;

/// What all queue pairs of a toy share, and what tests look at.
pub struct Shared {
    pub memory: Mutex<Vec<u8>>,
    pub closed: Mutex<Vec<CloseReason>>,
    pub refused: Mutex<Vec<Status>>,
    pub queues: Mutex<Vec<afs_fabric::QueueCloser>>,
    pub in_flight: AtomicUsize,
    pub log_reads: AtomicUsize,
    pub stands_still: AtomicBool,
    pub go_on: AtomicBool,
    pub host_there: Mutex<Vec<bool>>,
    /// Permits for commands on the slow disk to end.
    pub disk: Semaphore,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            memory: Mutex::new(vec![0; BLOCK * BLOCKS as usize]),
            closed: Mutex::default(),
            refused: Mutex::default(),
            queues: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            log_reads: AtomicUsize::new(0),
            stands_still: AtomicBool::new(false),
            go_on: AtomicBool::new(false),
            host_there: Mutex::default(),
            disk: Semaphore::new(0),
        }
    }
}

/// One queue pair.
pub struct Toy {
    queue: Queue,
    local: Local,
    shared: Arc<Shared>,
    cc: Cell<u32>,
    lost: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

struct InFlight(Arc<Shared>);

impl InFlight {
    fn new(shared: &Arc<Shared>) -> InFlight {
        shared.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for Toy {
    async fn call(self: Rc<Self>, request: Request) -> Completion {
        let _in_flight = InFlight::new(&self.shared);
        let sqe = *request.sqe();
        let result = if sqe.is_fabrics() {
            self.fabrics(&sqe, request).await
        } else {
            match self.queue.parameters() {
                None => Err(Status::COMMAND_SEQUENCE_ERROR),
                Some(QueueParameters { admin: true, .. }) => self.admin(&sqe, request).await,
                Some(_) => self.io(&sqe, request).await,
            }
        };
        result.unwrap_or_else(Completion::error)
    }

    fn refused(&self, _: &Sqe, status: Status) {
        self.shared.refused.lock().unwrap().push(status);
    }

    fn closing(&self, _: &CloseReason) {
        self.lost.set(true);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    fn closed(&self, reason: &CloseReason) {
        self.shared.closed.lock().unwrap().push(reason.clone());
    }
}

impl Toy {
    pub fn new(queue: &Queue, local: &Local, shared: &Arc<Shared>) -> Rc<Toy> {
        shared.queues.lock().unwrap().push(queue.closer());
        QUEUES.with_borrow_mut(|queues| queues.push(queue.clone()));
        Rc::new(Toy {
            queue: queue.clone(),
            local: local.clone(),
            shared: Arc::clone(shared),
            cc: Cell::new(0),
            lost: Cell::new(false),
            waiting: RefCell::default(),
        })
    }

    /// Waits until the connection is lost.
    async fn until_lost(&self) {
        poll_fn(|cx| {
            if self.lost.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn fabrics(&self, sqe: &Sqe, mut request: Request) -> Result<Completion, Status> {
        match FabricsCommand::parse(sqe)? {
            FabricsCommand::Connect(Connect { qid, sqsize, disable_sq_flow, .. }) => {
                let data = request.receive().await.map_err(|error| error.status())?;
                if data.len() != 1024 {
                    return Err(Status::DATA_SGL_LENGTH_INVALID.dnr());
                }
                let flow_control = !disable_sq_flow;
                let parameters = QueueParameters { qid, sqsize, flow_control, admin: qid == 0 };
                self.queue.set_connected(parameters);
                Ok(Completion::with_result(1))
            }
            FabricsCommand::PropertyGet { offset, .. } => {
                let value = match PropertyOffset::from_offset(offset) {
                    Some(PropertyOffset::Cap) => {
                        Cap(0).with_mqes(1023).with_timeout_500ms(15).get()
                    }
                    Some(PropertyOffset::Csts) => {
                        let cc = Cc(self.cc.get());
                        let down = cc.shutdown() == ShutdownNotice::Normal;
                        let shutdown =
                            if down { ShutdownStatus::Complete } else { ShutdownStatus::Normal };
                        u64::from(Csts(0).with_ready(cc.enabled()).with_shutdown(shutdown).get())
                    }
                    _ => return Err(Status::INVALID_FIELD),
                };
                Ok(Completion::with_result(value))
            }
            FabricsCommand::PropertySet { value, .. } => {
                self.cc.set(value as u32);
                Ok(Completion::success())
            }
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    async fn admin(&self, sqe: &Sqe, mut request: Request) -> Result<Completion, Status> {
        match AdminCommand::parse(sqe)? {
            AdminCommand::Identify { .. } => {
                let mut identity = IdentifyController::new_zeroed();
                identity.ioccsz.set((64 + 16384) / 16);
                let mut buffer = request.pool().alloc(4096).await;
                buffer.copy_from_slice(identity.as_bytes());
                Ok(Completion::with_data(buffer.freeze()))
            }
            AdminCommand::SetFeatures { cdw11, .. } => {
                if request.data_len() > 0 {
                    request.receive().await.map_err(|error| error.status())?;
                }
                let counts = QueueCounts::from_dword(cdw11).ok_or(Status::INVALID_FIELD)?;
                Ok(Completion::with_result(u64::from(counts.to_dword())))
            }
            AdminCommand::GetLogPage { bytes, offset, .. } => {
                let mut buffer = request.pool().alloc(bytes as usize).await;
                let log = self.discovery_log();
                buffer.copy_from_slice(&log[offset as usize..(offset + bytes) as usize]);
                Ok(Completion::with_data(buffer.freeze()))
            }
            AdminCommand::AsyncEventRequest => {
                self.until_lost().await;
                Err(Status::ABORTED_SQ_DELETION)
            }
            AdminCommand::KeepAlive => Ok(Completion::success()),
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    /// A log of [`DISCOVERY_ENTRIES`] entries that changes once, while it is read for the first time.
    fn discovery_log(&self) -> Vec<u8> {
        let reads = self.shared.log_reads.fetch_add(1, Ordering::SeqCst);
        let generation = if reads == 0 { 1 } else { 2 };
        let mut log = DiscoveryHeader::new(generation, DISCOVERY_ENTRIES).as_bytes().to_vec();
        for port in 0..DISCOVERY_ENTRIES {
            let mut entry = DiscoveryEntry::new_zeroed();
            entry.portid.set(port as u16);
            log.extend_from_slice(entry.as_bytes());
        }
        log
    }

    async fn io(&self, sqe: &Sqe, mut request: Request) -> Result<Completion, Status> {
        match IoCommand::parse(sqe)? {
            IoCommand::Flush => Ok(Completion::success()),
            IoCommand::Read(rw) => {
                let range = self.range(&rw, request.data_len()).await?;
                let mut buffer = request.pool().alloc(range.len()).await;
                buffer.copy_from_slice(&self.shared.memory.lock().unwrap()[range]);
                Ok(Completion::with_data(buffer.freeze()))
            }
            IoCommand::Write(rw) if (FAILING_LBA..SLOW_LBA).contains(&rw.lba) => {
                // The data is asked for, and the command fails before it comes (CONFORMANCE T-33).
                let mut receive = pin!(request.receive());
                poll_fn(|cx| {
                    let _ = receive.as_mut().poll(cx);
                    Poll::Ready(())
                })
                .await;
                Err(Status::WRITE_FAULT)
            }
            IoCommand::Write(rw) if rw.lba == STANDSTILL_LBA => {
                self.shared.stands_still.store(true, Ordering::SeqCst);
                while !self.shared.go_on.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                Ok(Completion::success())
            }
            IoCommand::Write(rw) if (ASKING_LBA..=ASKING_LATE_LBA).contains(&rw.lba) => {
                if rw.lba == ASKING_LATE_LBA {
                    let _ = self.shared.disk.acquire().await;
                }
                let there = self.queue.is_host_there(&self.local).await;
                assert_eq!(there, !self.queue.may_be_given_up(&self.local));
                self.shared.host_there.lock().unwrap().push(there);
                Ok(Completion::success())
            }
            IoCommand::Write(rw) => {
                let data = request.receive().await.map_err(|error| error.status())?;
                let range = self.range(&rw, data.len() as u32).await?;
                self.shared.memory.lock().unwrap()[range].copy_from_slice(&data);
                Ok(Completion::success())
            }
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    async fn range(&self, rw: &Rw, bytes: u32) -> Result<std::ops::Range<usize>, Status> {
        if rw.lba >= SLOW_LBA {
            let _ = self.shared.disk.acquire().await;
            return Err(Status::INTERNAL_ERROR);
        }
        if rw.lba >= STUCK_LBA {
            self.until_lost().await;
            return Err(Status::INTERNAL_ERROR);
        }
        if rw.blocks as usize * BLOCK != bytes as usize {
            return Err(Status::DATA_SGL_LENGTH_INVALID.dnr());
        }
        let blocks = rw.within(BLOCKS)?;
        Ok(blocks.start as usize * BLOCK..blocks.end as usize * BLOCK)
    }
}
