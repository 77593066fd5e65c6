//! A controller, from its admin queue: enable it, ask it, open I/O queues on it, shut it down.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use afs_nvme::command::{AdminCommand, FabricsCommand};
use afs_nvme::feature::{QueueCounts, fid};
use afs_nvme::identify::{
    IDENTIFY_BYTES, IdentifyController, IdentifyNamespace, NamespaceList, cns,
};
use afs_nvme::property::{Cap, Cc, Csts, PropertyOffset};
use afs_nvme::{ControllerId, HostId, Nqn};
use afs_reactor::{BufferMut, Local};
use zerocopy::FromBytes;

use super::connect::ConnectRequest;
use super::endpoint::Endpoint;
use super::error::HostError;
use super::options::HostOptions;
use super::queue::{HostData, HostQueue, WeakQueue};

/// How often CSTS is read while waiting for it (CONFORMANCE F-22).
const STATUS_POLL: Duration = Duration::from_millis(2);
/// Longest wait for a shutdown (CONFORMANCE F-26).
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Who connects to what, and how.
#[derive(Clone, Debug)]
pub struct ControllerOptions {
    /// Subsystem; [`Nqn::discovery`] for a discovery controller.
    pub subsystem: Nqn,
    /// Name of this host.
    pub host_nqn: Nqn,
    /// Identity of this host.
    pub host_id: HostId,
    /// Keep-alive timeout in milliseconds; 0 for none. A task keeps it alive every half of it. When that is not answered for all of
    /// it, all queues of the controller end: a connection may be dead and not know it.
    pub kato_ms: u32,
    /// Entries of the admin queue.
    pub admin_entries: u16,
    /// Options of all queue pairs; `entries` is that of I/O queues. The in-capsule limit is taken from the
    /// controller's IOCCSZ when that is smaller.
    pub queue: HostOptions,
}

impl ControllerOptions {
    /// Usual options: keep-alive 5 s, admin queue of 32, I/O queues of 128.
    #[must_use]
    pub fn new(subsystem: Nqn, host_nqn: Nqn, host_id: HostId) -> ControllerOptions {
        let queue = HostOptions::default();
        ControllerOptions { subsystem, host_nqn, host_id, kato_ms: 5000, admin_entries: 32, queue }
    }
}

/// A connected and enabled controller. Dropping it closes its admin queue, which ends the association.
pub struct HostController {
    admin: HostQueue,
    endpoint: Endpoint,
    options: ControllerOptions,
    id: ControllerId,
    keep_alive: Option<tokio::task::JoinHandle<()>>,
    /// Its I/O queues.
    queues: Rc<RefCell<Vec<WeakQueue>>>,
}

impl Drop for HostController {
    fn drop(&mut self) {
        if let Some(task) = self.keep_alive.take() {
            task.abort();
        }
    }
}

impl HostController {
    /// Connects the admin queue and enables the controller in the order of CONFORMANCE F-22.
    ///
    /// # Errors
    /// [`HostError::Status`] when the controller refuses, [`HostError::Unusable`] when it does not get ready.
    pub async fn connect(
        endpoint: impl Into<Endpoint>,
        local: &Local,
        options: ControllerOptions,
    ) -> Result<HostController, HostError> {
        let admin_options = HostOptions { entries: options.admin_entries, ..options.queue.clone() };
        let endpoint = endpoint.into();
        let admin = HostQueue::open(&endpoint, local, admin_options, (0, None)).await?;
        let id = admin.connect(&request(&options, 0, ControllerId::DYNAMIC)).await?;
        let mut controller = HostController {
            admin,
            endpoint,
            options,
            id,
            keep_alive: None,
            queues: Rc::default(),
        };
        controller.enable().await?;
        controller.start_keep_alive();
        if !controller.options.subsystem.is_discovery() {
            let identity = controller.identify().await?;
            let limit = (identity.ioccsz.get().saturating_mul(16)).saturating_sub(64);
            let queue = &mut controller.options.queue;
            queue.in_capsule_bytes = queue.in_capsule_bytes.min(limit);
        }
        Ok(controller)
    }

    /// Id that the controller was given.
    #[must_use]
    pub fn id(&self) -> ControllerId {
        self.id
    }

    /// The admin queue, for commands that have no method here.
    #[must_use]
    pub fn admin(&self) -> &HostQueue {
        &self.admin
    }

    /// Reads a property.
    ///
    /// # Errors
    /// See [`HostQueue::command`].
    pub async fn property(&self, property: PropertyOffset) -> Result<u64, HostError> {
        let command =
            FabricsCommand::PropertyGet { offset: property as u32, size: property.size() };
        self.admin.command(command.to_sqe(), HostData::None).await.map(|(cqe, _)| cqe.result())
    }

    /// Writes a property.
    ///
    /// # Errors
    /// See [`HostQueue::command`].
    pub async fn set_property(
        &self,
        property: PropertyOffset,
        value: u64,
    ) -> Result<(), HostError> {
        let command =
            FabricsCommand::PropertySet { offset: property as u32, size: property.size(), value };
        self.admin.command(command.to_sqe(), HostData::None).await.map(drop)
    }

    /// Identify Controller.
    ///
    /// # Errors
    /// See [`HostQueue::command`].
    pub async fn identify(&self) -> Result<Box<IdentifyController>, HostError> {
        let data = self.identify_bytes(cns::CONTROLLER, 0).await?;
        IdentifyController::read_from_bytes(&data)
            .map(Box::new)
            .map_err(|_| HostError::Unusable("Identify Controller of the wrong length"))
    }

    /// Identify Namespace.
    ///
    /// # Errors
    /// See [`HostQueue::command`].
    pub async fn identify_namespace(&self, nsid: u32) -> Result<Box<IdentifyNamespace>, HostError> {
        let data = self.identify_bytes(cns::NAMESPACE, nsid).await?;
        IdentifyNamespace::read_from_bytes(&data)
            .map(Box::new)
            .map_err(|_| HostError::Unusable("Identify Namespace of the wrong length"))
    }

    /// NSIDs of all active namespaces.
    ///
    /// # Errors
    /// See [`HostQueue::command`].
    pub async fn active_namespaces(&self) -> Result<Vec<u32>, HostError> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let data = self.identify_bytes(cns::ACTIVE_NAMESPACES, after).await?;
            let list = NamespaceList::ref_from_bytes(&data)
                .map_err(|_| HostError::Unusable("namespace list of the wrong length"))?;
            let before = all.len();
            all.extend(list.iter());
            match all.last() {
                Some(last) if all.len() - before == list.nsids.len() && *last > after => {
                    after = *last
                }
                _ => return Ok(all),
            }
        }
    }

    /// The bytes of any Identify structure.
    ///
    /// # Errors
    /// See [`HostQueue::command`].
    pub async fn identify_bytes(&self, cns: u8, nsid: u32) -> Result<BufferMut, HostError> {
        let command = AdminCommand::Identify { cns, cntid: 0, csi: 0 };
        let buffer = self.admin.local().pool().alloc(IDENTIFY_BYTES).await;
        let (_, buffer) = self.admin.command(command.to_sqe(nsid), HostData::In(buffer)).await?;
        buffer.ok_or(HostError::Unusable("Identify gave its buffer away"))
    }

    /// Reads `bytes` (a multiple of 4, at most 1 MiB) of a log page from `offset`.
    ///
    /// # Errors
    /// See [`HostQueue::command`].
    pub async fn log_page(
        &self,
        lid: u8,
        nsid: u32,
        offset: u64,
        bytes: usize,
    ) -> Result<BufferMut, HostError> {
        if bytes == 0 || bytes > afs_reactor::MAX_BUFFER_BYTES || !bytes.is_multiple_of(4) {
            return Err(HostError::Argument("a log page is read in pieces of 4 bytes to 1 MiB"));
        }
        let command = AdminCommand::GetLogPage {
            lid,
            lsp: 0,
            rae: true,
            bytes: bytes as u64,
            offset,
            csi: 0,
        };
        let buffer = self.admin.local().pool().alloc(bytes).await;
        let (_, buffer) = self.admin.command(command.to_sqe(nsid), HostData::In(buffer)).await?;
        buffer.ok_or(HostError::Unusable("a log page gave its buffer away"))
    }

    /// Waits for the next asynchronous event; its dword 0.
    ///
    /// # Errors
    /// See [`HostQueue::command`].
    pub async fn next_event(&self) -> Result<u32, HostError> {
        let sqe = AdminCommand::AsyncEventRequest.to_sqe(0);
        self.admin.command(sqe, HostData::None).await.map(|(cqe, _)| cqe.dw0())
    }

    /// Opens I/O queues 1 to `count`, or as many as the controller grants.
    ///
    /// # Errors
    /// See [`HostQueue::command`]; any queue that cannot be opened fails all.
    pub async fn io_queues(&self, count: u16) -> Result<Vec<HostQueue>, HostError> {
        let wanted = QueueCounts { submission: count.max(1), completion: count.max(1) };
        let command = AdminCommand::SetFeatures {
            fid: fid::NUMBER_OF_QUEUES,
            save: false,
            cdw11: wanted.to_dword(),
            cdw12: 0,
        };
        let (cqe, _) = self.admin.command(command.to_sqe(0), HostData::None).await?;
        let granted = QueueCounts::from_dword(cqe.dw0())
            .ok_or(HostError::Unusable("number of queues granted"))?;
        let mut queues = Vec::new();
        for qid in 1..=count.max(1).min(granted.submission).min(granted.completion) {
            queues.push(self.io_queue(qid, self.admin.local()).await?);
        }
        Ok(queues)
    }

    /// Opens one I/O queue on `local`. How many there may be is settled by [`HostController::io_queues`].
    ///
    /// # Errors
    /// See [`HostQueue::open`] and [`HostQueue::connect`].
    pub async fn io_queue(&self, qid: u16, local: &Local) -> Result<HostQueue, HostError> {
        let options = self.options.queue.clone();
        let queue = HostQueue::open(&self.endpoint, local, options, (qid, Some(self.id))).await?;
        queue.connect(&request(&self.options, qid, self.id)).await?;
        if let Some(error) = self.admin.closed() {
            return Err(error);
        }
        let mut queues = self.queues.borrow_mut();
        queues.retain(|known| known.upgrade().is_some());
        queues.push(queue.downgrade());
        Ok(queue)
    }

    /// Shuts the controller down and waits until it says that it is (CONFORMANCE F-26).
    ///
    /// # Errors
    /// See [`HostQueue::command`]; [`HostError::Timeout`] after 5 s.
    pub async fn shutdown(self) -> Result<(), HostError> {
        let request = Cc::for_host(true).with_shutdown();
        self.set_property(PropertyOffset::Cc, u64::from(request.get())).await?;
        let done = self.wait_for_status(Csts::shutdown_complete);
        tokio::time::timeout(SHUTDOWN_TIMEOUT, done)
            .await
            .map_err(|_| HostError::Timeout("shutdown"))?
    }

    async fn enable(&self) -> Result<(), HostError> {
        let cap = Cap(self.property(PropertyOffset::Cap).await?);
        for enabled in [false, true] {
            let value = u64::from(Cc::for_host(enabled).get());
            self.set_property(PropertyOffset::Cc, value).await?;
        }
        let limit = Duration::from_millis(500) * (u32::from(cap.timeout_500ms()) + 1);
        tokio::time::timeout(limit, self.wait_for_status(Csts::ready))
            .await
            .map_err(|_| HostError::Timeout("waiting for CSTS.RDY"))?
    }

    async fn wait_for_status(&self, reached: impl Fn(Csts) -> bool) -> Result<(), HostError> {
        loop {
            let raw = self.property(PropertyOffset::Csts).await?;
            let status = Csts(u32::try_from(raw & 0xffff_ffff).unwrap_or(0));
            if status.fatal() {
                return Err(HostError::Unusable("the controller reports a fatal status"));
            }
            if reached(status) {
                return Ok(());
            }
            tokio::time::sleep(STATUS_POLL).await;
        }
    }

    fn start_keep_alive(&mut self) {
        if self.options.kato_ms == 0 {
            return;
        }
        let limit = Duration::from_millis(u64::from(self.options.kato_ms));
        let period = limit / 2;
        let (admin, queues) = (self.admin.clone(), Rc::clone(&self.queues));
        let task = self.admin.local().spawn_local(async move {
            let sqe = AdminCommand::KeepAlive.to_sqe(0);
            while let Ok(Ok(_)) =
                tokio::time::timeout(limit, admin.submit(sqe, HostData::None)).await
            {
                tokio::time::sleep(period).await;
            }
            admin.end();
            queues.borrow().iter().filter_map(WeakQueue::upgrade).for_each(|queue| queue.end());
        });
        self.keep_alive = Some(task);
    }
}

fn request(options: &ControllerOptions, qid: u16, controller: ControllerId) -> ConnectRequest {
    ConnectRequest {
        qid,
        kato_ms: if qid == 0 { options.kato_ms } else { 0 },
        host_id: options.host_id,
        host_nqn: options.host_nqn.clone(),
        subsystem: options.subsystem.clone(),
        controller,
    }
}
