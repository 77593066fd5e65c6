//! How connections begin and end, and what they leave behind.

use std::task::{Context, Poll, Waker};

use afs_verbs_sys as sys;

use super::rig::{Pair, Rig, on_reactor, settle};
use crate::BufferPool;
use crate::verbs::fake::Call;
use crate::verbs::{
    CmEventKind, DeviceOptions, QueuePair, QueuePairEvent, QueuePairOptions, RdmaDevice,
    RemoteMemory, Unavailable, Verbs, WorkCause,
};

const REMOTE: RemoteMemory = RemoteMemory { address: 0xabcd_0000, key: 0x77 };

#[test]
fn a_machine_without_rdma_says_so_in_one_line() {
    match Verbs::load() {
        Ok(verbs) => assert!(!verbs.devices().unwrap().is_empty()),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{text}");
            assert!(!matches!(error, Unavailable::Refused(_)), "{text}");
        }
    }
}

#[test]
fn receives_are_posted_before_the_peer_is_accepted() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let _it = rig.accept(8, 4).await;
        let states = [sys::IBV_QPS_INIT, sys::IBV_QPS_RTR, sys::IBV_QPS_RTS].map(Call::Modify);
        let [init, receive, send] = states;
        let expected = [init, Call::PostReceive(8), receive, send, Call::Accept];
        assert_eq!(rig.world.calls(), expected);
        let remote = sys::IBV_ACCESS_REMOTE_READ | sys::IBV_ACCESS_REMOTE_WRITE;
        assert!(rig.world.state.lock().access.iter().all(|access| access & remote == 0));
    });
}

#[test]
fn the_active_side_is_connected_when_the_peer_has_answered() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let id = rig.channel.resolve("10.0.0.2:4420".parse().unwrap(), settle_time()).unwrap();
        let (raw, key) = (id.inner.raw(), id.key());
        rig.world.cm_event(sys::RDMA_CM_EVENT_ADDR_RESOLVED, raw, std::ptr::null_mut());
        let event = rig.channel.next().await.unwrap();
        assert!(event.key == key && matches!(event.kind, CmEventKind::AddressResolved));
        let options = DeviceOptions { capsule_data_bytes: 0, receives_max: 64 };
        let device = RdmaDevice::of(&local, &id, &options, &[]).unwrap();
        let buffer = rig.buffer(10);
        assert_eq!(device.remote_key(&buffer), None, "no peer gets a key before one connects");
        let options = QueuePairOptions { depth: 4, initiator_depth: 0, private_data: b"hello" };
        let pair = QueuePair::connect(&device, id, &options).unwrap();
        let key = device.remote_key(&buffer).unwrap();
        assert_eq!(key.address, buffer.as_ptr().addr() as u64);
        let other = BufferPool::new(1 << 20).unwrap();
        let kept_back = other.try_alloc(8192).unwrap();
        let key = device.remote_key(&kept_back).expect("a pool that came later has a key too");
        assert_eq!(key.address, kept_back.as_ptr().addr() as u64);
        rig.world.forget_calls();
        rig.world.cm_event(sys::RDMA_CM_EVENT_CONNECT_RESPONSE, raw, std::ptr::null_mut());
        let event = rig.channel.next().await.unwrap();
        assert!(event.key == pair.key() && matches!(event.kind, CmEventKind::Established { .. }));
        let states = [sys::IBV_QPS_RTR, sys::IBV_QPS_RTS].map(Call::Modify);
        assert_eq!(rig.world.calls(), [&states[..], &[Call::Establish]].concat());
    });
}

#[test]
fn a_channel_is_quiet_when_its_last_event_was_passed_on() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let watch = rig.channel.watch();
        assert!(watch.is_quiet());
        let id = rig.channel.resolve("10.0.0.2:4420".parse().unwrap(), settle_time()).unwrap();
        let raw = id.inner.raw();
        rig.world.cm_event(sys::RDMA_CM_EVENT_ADDR_RESOLVED, raw, std::ptr::null_mut());
        assert!(!watch.is_quiet(), "an event waits");
        rig.channel.next().await.unwrap();
        assert!(
            !watch.is_quiet(),
            "it was taken, but whoever took it may not have told anybody yet"
        );
        let mut next = std::pin::pin!(rig.channel.next());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        assert!(watch.is_quiet());
    });
}

#[test]
fn an_answer_to_a_connection_that_was_given_up_is_no_connection() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let id = rig.channel.resolve("10.0.0.2:4420".parse().unwrap(), settle_time()).unwrap();
        rig.world.cm_event(
            sys::RDMA_CM_EVENT_CONNECT_RESPONSE,
            id.inner.raw(),
            std::ptr::null_mut(),
        );
        let event = rig.channel.next().await.unwrap();
        assert!(matches!(event.kind, CmEventKind::ConnectError(_)), "{:?}", event.kind);
    });
}

#[test]
fn everything_is_destroyed_in_order_and_then_given_back() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let alive = rig.world.state.lock().alive;
        let it = rig.accept(8, 4).await;
        it.pair.send(0, &[0; 16], None, Some((rig.buffer(4096), REMOTE)), None);
        it.pair.flush().unwrap();
        rig.world.forget_calls();
        drop(it);
        settle().await;
        let expected = [
            Call::Modify(sys::IBV_QPS_ERR),
            Call::Disconnect,
            Call::DestroyPair,
            Call::DestroyReceives,
            Call::DestroyCompletions,
            Call::DestroyCompletions,
        ];
        let calls = rig.world.calls();
        let calls: Vec<_> = calls.into_iter().filter(|call| *call != Call::ArmArrivals).collect();
        assert_eq!(calls, expected);
        assert_eq!(rig.world.state.lock().alive, alive);
        assert!(rig.pool_is_whole());
    });
}

#[test]
fn a_closed_queue_pair_tells_no_failure_and_is_idle_when_all_is_flushed() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        it.pair.read(0, rig.buffer(4096).try_into_mut().unwrap(), REMOTE);
        it.pair.flush().unwrap();
        it.pair.disconnect();
        it.pair.disconnect();
        let calls = rig.world.calls();
        assert_eq!(calls.iter().filter(|call| **call == Call::Disconnect).count(), 1);
        assert!(!it.is_idle());
        rig.world.complete(sys::IBV_WC_WR_FLUSH_ERR);
        assert!(it.is_silent().await);
        std::future::poll_fn(|cx| it.pair.poll_idle(cx)).await;
        assert_eq!(it.pair.outstanding(), 0);
    });
}

#[test]
fn completions_of_a_queue_pair_that_is_gone_touch_no_other() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let kept = rig.accept(8, 4).await;
        let gone = rig.accept(8, 4).await;
        gone.pair.send(0, &[0; 16], None, None, None);
        gone.pair.flush().unwrap();
        let number = gone.number;
        drop(gone);
        let successor = rig.accept(8, 4).await;
        successor.pair.send(1, &[0; 16], None, None, None);
        successor.pair.flush().unwrap();
        rig.world.complete(sys::IBV_WC_WR_FLUSH_ERR);
        rig.world.deliver(number, &[1; 64]);
        assert!(successor.is_silent().await && kept.is_silent().await);
        assert_eq!(successor.pair.outstanding(), 1);
        rig.world.complete(sys::IBV_WC_SUCCESS);
        assert!(matches!(successor.event().await, QueuePairEvent::Sent { tag: 1 }));
    });
}

#[test]
fn a_receive_that_was_lost_with_its_queue_pair_is_replaced() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let (first, second) = (rig.accept(4, 4).await, rig.accept(4, 4).await);
        assert_eq!(first.device.figures().receives_posted, 8);
        // The queue pair that dies had begun to receive into the oldest.
        let lost = rig.world.state.lock().receives.pop_front().unwrap();
        let device = first.device.clone();
        drop(first);
        assert_eq!(device.figures().receives_posted, 8, "nothing tells yet that it is lost");
        for _ in 0..4 {
            rig.world.deliver(second.number, &[0; 64]);
            second.event().await;
        }
        let third = rig.accept(4, 4).await;
        drop(third);
        let figures = device.figures();
        assert_eq!(figures.receives_lost, 1);
        assert_eq!(figures.receives_posted as usize, rig.world.state.lock().receives.len());
        // Should the device complete it after all, it is a message as any other.
        rig.world.state.lock().receives.push_front(lost);
        rig.world.deliver(second.number, &[3; 70]);
        let event = second.event().await;
        assert!(matches!(event, QueuePairEvent::Received { len: 70, .. }));
        assert_eq!(device.figures().receives_lost, 0);
        drop((event, second, device));
        settle().await;
        assert!(rig.pool_is_whole());
    });
}

#[test]
fn there_are_never_more_queue_pairs_than_the_completion_queue_has_room_for() {
    on_reactor(|local| async move {
        // Room for 256 receives and 32 lost ones; in the other queue for two queue
        // pairs of 40 commands.
        let rig = Rig::with_completions(&local, 256 + 32);
        let (first, second) = (rig.accept(40, 4).await, rig.accept(40, 4).await);
        let (device, id) = rig.device(256).await;
        let options = QueuePairOptions { depth: 40, initiator_depth: 4, private_data: b"" };
        let refused = QueuePair::accept(&device, id, &options);
        assert!(refused.is_err_and(|error| error.to_string().contains("completion queue")));
        drop(first);
        rig.accept(40, 4).await;
        drop(second);
    });
}

#[test]
fn a_completion_wakes_a_reactor_that_sleeps() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        settle().await;
        assert!(rig.world.calls().contains(&Call::ArmArrivals), "asleep with notification on");
        let world = rig.world;
        let number = it.number;
        let peer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            world.deliver(number, &[0; 64]);
        });
        assert!(matches!(it.event().await, QueuePairEvent::Received { .. }));
        peer.join().unwrap();
    });
}

#[test]
fn a_reactor_that_never_pauses_still_sees_completions() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        rig.world.deliver(it.number, &[0; 64]);
        for _ in 0..1000 {
            local.counters().note_work();
            another_turn().await;
            if !it.pair.poll_event(&mut Context::from_waker(Waker::noop())).is_pending() {
                return;
            }
        }
        panic!("the message was not seen");
    });
}

#[test]
fn a_device_that_fails_takes_its_queue_pairs_with_it() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let (first, second) = (rig.accept(8, 4).await, rig.accept(8, 4).await);
        rig.world.async_event(sys::IBV_EVENT_QP_FATAL, first.pair.core.raw());
        let QueuePairEvent::Failed(error) = first.event().await else { panic!("told to fail") };
        assert_eq!(error.cause, WorkCause::Device);
        assert!(second.is_silent().await);
        rig.world.async_event(sys::IBV_EVENT_DEVICE_FATAL, std::ptr::null_mut());
        assert!(matches!(second.event().await, QueuePairEvent::Failed(_)));
        assert!(first.is_silent().await, "told once");
    });
}

#[test]
fn a_closed_queue_pair_is_idle_as_soon_as_the_device_takes_no_more_receives() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        it.pair.disconnect();
        assert!(!it.is_idle());
        rig.world.async_event(sys::IBV_EVENT_QP_LAST_WQE_REACHED, it.pair.core.raw());
        settle().await;
        assert!(it.is_idle());
    });
}

#[test]
fn a_removed_device_is_closed_when_nobody_uses_it_any_more() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        let raw = rig.listener.inner.raw();
        rig.world.cm_event(sys::RDMA_CM_EVENT_DEVICE_REMOVAL, raw, std::ptr::null_mut());
        let event = rig.channel.next().await.unwrap();
        assert!(matches!(event.kind, CmEventKind::DeviceRemoval));
        let listed = || rig.world.calls().contains(&Call::ListDevices);
        let Pair { pair, device, .. } = it;
        drop(pair);
        drop(device);
        settle().await;
        assert!(!listed(), "the listener is still on it");
        let fds = rig.world.descriptors();
        assert_eq!(fds.map(opened)[0], "/dev/zero");
        drop(rig.listener);
        assert!(rig.world.calls().contains(&Call::ListDevices));
        // None is left, so librdmacm did not look: the descriptors lead nowhere now.
        assert_eq!(fds.map(opened), ["/dev/null"; 2]);
    });
}

/// The file that a descriptor of this process leads to.
fn opened(fd: i32) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    link.to_string_lossy().into_owned()
}

/// Lets others run. Unlike tokio's own, this leaves the reactor something to run at all times.
async fn another_turn() {
    let mut waited = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn settle_time() -> std::time::Duration {
    std::time::Duration::from_secs(1)
}
