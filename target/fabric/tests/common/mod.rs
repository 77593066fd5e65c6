//! What the tests of this crate share: a toy controller over a memory namespace, a server of it on a reactor
//! of its own, and a raw connection that sends any bytes.
#![allow(dead_code, clippy::unwrap_used)]
#![allow(clippy::cast_possible_truncation, reason = "lengths of tests are small")]

pub mod raw;
pub mod toy;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afs_fabric::{
    CloseReason, ControllerOptions, HostController, HostError, HostOptions, Limits, listen_tcp,
};
use afs_nvme::{HostId, Nqn};
use afs_reactor::{Local, ReactorConfig, ReactorHandle, Reactors};

use toy::{Shared, Toy};

/// Time after which a test that waits for something has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A target on a reactor of its own, and a reactor for hosts.
pub struct Server {
    reactors: Reactors,
    hosts: Reactors,
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
}

impl Server {
    pub fn start(limits: Limits) -> Server {
        Server::with_pool(limits, 16 << 20)
    }

    pub fn with_pool(limits: Limits, buffer_bytes: usize) -> Server {
        let config = ReactorConfig { buffer_bytes, ring_entries: 0, ..ReactorConfig::default() };
        let reactors = Reactors::start(config.clone()).unwrap();
        let hosts = Reactors::start(ReactorConfig { buffer_bytes: 64 << 20, ..config }).unwrap();
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), 1024).unwrap();
        let address = listener.local_address();
        let shared = Arc::new(Shared::default());
        let (service, handle) = (Arc::clone(&shared), reactors.handle(0));
        reactors.handle(0).spawn(move |_| async move {
            let make = move |queue: &_, local: &_| Toy::new(queue, local, &service);
            listener.serve(vec![handle], limits, make).await.unwrap();
        });
        Server { reactors, hosts, address, shared }
    }

    /// Runs a host's part of a test on the host reactor.
    pub fn host<F, Fut, T>(&self, f: F) -> T
    where
        F: FnOnce(Local, SocketAddr) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let address = self.address;
        let run = move |local: Local| async move {
            tokio::time::timeout(Duration::from_secs(60), f(local, address)).await.unwrap()
        };
        self.hosts.handle(0).run(run).unwrap()
    }

    pub fn target(&self) -> ReactorHandle {
        self.reactors.handle(0)
    }

    /// Waits until `count` queue pairs have closed; their reasons.
    pub fn closed(&self, count: usize) -> Vec<CloseReason> {
        wait_for("queue pairs to close", || {
            let closed = self.shared.closed.lock().unwrap();
            (closed.len() >= count).then(|| closed.clone())
        })
    }

    /// Waits until all buffers are back in the target's pool.
    pub fn wait_for_full_pool(&self) {
        wait_for("all buffers to return", || {
            let full = self.target().run(|local| async move {
                local.pool().free_bytes() == local.pool().total_bytes()
            });
            full.unwrap().then_some(())
        });
    }
}

/// Polls `check` until it gives something; fails after [`DEADLINE`].
pub fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited too long for {what}");
        std::thread::yield_now();
    }
}

pub fn subsystem() -> Nqn {
    Nqn::new("nqn.2024-01.example:toy").unwrap()
}

pub fn options(queue: HostOptions) -> ControllerOptions {
    let host = Nqn::new("nqn.2014-08.org.nvmexpress:uuid:0").unwrap();
    let mut options = ControllerOptions::new(subsystem(), host, HostId([7; 16]));
    options.kato_ms = 0;
    options.queue = queue;
    options
}

pub async fn connect(
    address: SocketAddr,
    local: &Local,
    queue: HostOptions,
) -> Result<HostController, HostError> {
    HostController::connect(address, local, options(queue)).await
}
