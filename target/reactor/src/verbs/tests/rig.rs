//! A reactor with a connection over the fake provider.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use afs_verbs_sys as sys;

use crate::verbs::fake::World;
use crate::verbs::{
    CmChannel, CmEventKind, CmId, ConnectRequest, DeviceOptions, QueuePair, QueuePairEvent,
    QueuePairOptions, RdmaDevice,
};
use crate::{Buffer, Local, ReactorConfig, Reactors};

pub(super) const DATA: usize = 8192;

/// Runs a test on a reactor with a pool of 4 MiB.
pub(super) fn on_reactor<F, Fut>(test: F)
where
    F: FnOnce(Local) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let config =
        ReactorConfig { ring_entries: 0, buffer_bytes: 4 << 20, ..ReactorConfig::default() };
    let reactors = Reactors::start(config).unwrap();
    reactors.handle(0).run(test).expect("no assertion failed");
}

pub(super) struct Rig {
    pub(super) world: &'static World,
    pub(super) local: Local,
    pub(super) channel: CmChannel,
    pub(super) listener: CmId,
}

impl Rig {
    pub(super) fn new(local: &Local) -> Rig {
        Rig::with_completions(local, 4096)
    }

    pub(super) fn with_completions(local: &Local, max: i32) -> Rig {
        let (world, verbs) = World::new(max);
        let channel = CmChannel::open(&verbs).unwrap();
        let listener = channel.listen("10.0.0.1:4420".parse().unwrap(), 8).unwrap();
        Rig { world, local: local.clone(), channel, listener }
    }

    pub(super) async fn request(&self) -> ConnectRequest {
        let id = self.world.fresh_id();
        self.world.cm_event(sys::RDMA_CM_EVENT_CONNECT_REQUEST, id, self.listener.inner.raw());
        let event = self.channel.next().await.unwrap();
        assert_eq!(event.key, self.listener.key());
        match event.kind {
            CmEventKind::ConnectRequest(request) => request,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn device(&self, receives_max: u32) -> (RdmaDevice, CmId) {
        let request = self.request().await;
        let options = DeviceOptions { capsule_data_bytes: DATA, receives_max };
        (RdmaDevice::of(&self.local, &request.id, &options, &[]).unwrap(), request.id)
    }

    /// A connection that a peer made, and the number of its queue pair.
    pub(super) async fn accept(&self, depth: u16, initiator_depth: u8) -> Pair {
        let (device, id) = self.device(256).await;
        let options = QueuePairOptions { depth, initiator_depth, private_data: b"" };
        let pair = QueuePair::accept(&device, id, &options).unwrap();
        let number = pair.core.number();
        Pair { pair, device, number }
    }

    pub(super) fn buffer(&self, len: usize) -> Buffer {
        let mut buffer = self.local.pool().try_alloc(len).unwrap();
        buffer.fill(0x5a);
        buffer.freeze()
    }

    pub(super) fn pool_is_whole(&self) -> bool {
        self.local.pool().free_bytes() == self.local.pool().total_bytes()
    }
}

pub(super) struct Pair {
    pub(super) pair: QueuePair,
    pub(super) device: RdmaDevice,
    pub(super) number: u32,
}

impl Pair {
    /// The next event, which must come soon.
    pub(super) async fn event(&self) -> QueuePairEvent {
        let event = poll_fn(|cx| self.pair.poll_event(cx));
        tokio::time::timeout(Duration::from_secs(5), event).await.expect("an event")
    }

    /// Is there nothing to tell, also after the device was looked at?
    pub(super) async fn is_silent(&self) -> bool {
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.pair.poll_event(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pair.poll_idle(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }
}

/// The device's part of a dropped queue pair is given up in its task's next turn.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}
