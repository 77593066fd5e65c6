//! What wakes a reactor that sleeps, and what does not.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use afs_verbs_sys as sys;

use super::rig::{Pair, Rig, on_reactor, settle};
use crate::BufferPool;
use crate::verbs::fake::{Call, World};
use crate::verbs::{
    DeviceOptions, QueuePair, QueuePairEvent, QueuePairOptions, RdmaDevice, RemoteMemory, WorkCause,
};

const REMOTE: RemoteMemory = RemoteMemory { address: 0xabcd_0000, key: 0x77 };

/// How often the reactor asked to be woken by the end of a request.
fn armings_of_endings(rig: &Rig) -> usize {
    rig.world.calls().iter().filter(|call| **call == Call::ArmEndings).count()
}

fn events(rig: &Rig) -> u64 {
    rig.local.counters().shared().rdma_events.get()
}

/// Completes a request while the reactor sleeps, which only an event of the device can end: the
/// caller waits for nothing else.
fn complete_later(world: &'static World, status: u32) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        world.complete(status);
    })
}

/// The next event, with no timer that could make the reactor look.
async fn woken_by(it: &Pair) -> QueuePairEvent {
    std::future::poll_fn(|cx| it.pair.poll_event(cx)).await
}

#[test]
fn a_response_that_has_left_does_not_wake_the_reactor() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        for tag in 0..3 {
            let data = Some((rig.buffer(4096), REMOTE));
            it.pair.send(tag, &[0; 16], None, data, None);
            it.pair.flush().unwrap();
            settle().await;
        }
        let before = events(&rig);
        for _ in 0..6 {
            rig.world.complete(sys::IBV_WC_SUCCESS);
        }
        settle().await;
        assert_eq!((armings_of_endings(&rig), events(&rig)), (0, before));
        assert!(rig.world.calls().contains(&Call::ArmArrivals));
        // The reactor has looked since, for the timer's sake.
        assert!(matches!(it.event().await, QueuePairEvent::Sent { tag: 0 }));
    });
}

#[test]
fn the_end_of_a_read_wakes_the_reactor() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        it.pair.read(0, rig.buffer(4096).try_into_mut().unwrap(), REMOTE);
        it.pair.flush().unwrap();
        let device = complete_later(rig.world, sys::IBV_WC_SUCCESS);
        assert!(matches!(woken_by(&it).await, QueuePairEvent::ReadDone { tag: 0, .. }));
        device.join().unwrap();
        assert_eq!(armings_of_endings(&rig), 1);
        // With the READ the urgency has ended.
        it.pair.send(0, &[0; 16], None, None, None);
        it.pair.flush().unwrap();
        settle().await;
        assert_eq!(armings_of_endings(&rig), 1);
    });
}

#[test]
fn works_that_wait_for_room_are_handed_over_when_there_is_room() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        // A send queue of 11 requests.
        let it = rig.accept(1, 1).await;
        for tag in 0..12 {
            it.pair.send(tag, &[0; 16], None, None, None);
        }
        it.pair.flush().unwrap();
        assert_eq!(rig.world.state.lock().requests.len(), 11);
        let device = complete_later(rig.world, sys::IBV_WC_SUCCESS);
        assert!(matches!(woken_by(&it).await, QueuePairEvent::Sent { tag: 0 }));
        device.join().unwrap();
        assert_eq!(rig.world.state.lock().requests.len(), 11, "the last one too");
        settle().await;
        assert_eq!(armings_of_endings(&rig), 1, "nothing waits for room any more");
    });
}

#[test]
fn a_closing_queue_pair_is_drained() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        it.pair.send(0, &[0; 16], None, None, None);
        it.pair.flush().unwrap();
        settle().await;
        assert_eq!(armings_of_endings(&rig), 0);
        it.pair.disconnect();
        rig.world.async_event(sys::IBV_EVENT_QP_LAST_WQE_REACHED, it.pair.core.raw());
        let device = complete_later(rig.world, sys::IBV_WC_WR_FLUSH_ERR);
        std::future::poll_fn(|cx| it.pair.poll_idle(cx)).await;
        device.join().unwrap();
        assert_eq!(armings_of_endings(&rig), 1);
    });
}

#[test]
fn whoever_waits_for_the_last_answers_to_leave_is_woken() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        it.pair.send(0, &[0; 16], None, None, None);
        it.pair.flush().unwrap();
        let device = complete_later(rig.world, sys::IBV_WC_SUCCESS);
        std::future::poll_fn(|cx| it.pair.poll_idle(cx)).await;
        device.join().unwrap();
        assert_eq!(armings_of_endings(&rig), 1);
    });
}

#[test]
fn a_failed_queue_pair_is_drained() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        it.pair.send(0, &[0; 16], None, None, None);
        it.pair.flush().unwrap();
        rig.world.async_event(sys::IBV_EVENT_QP_FATAL, it.pair.core.raw());
        let QueuePairEvent::Failed(error) = woken_by(&it).await else { panic!("told to fail") };
        assert_eq!(error.cause, WorkCause::Device);
        settle().await;
        assert_eq!(armings_of_endings(&rig), 1);
        // One that is gone makes nothing urgent.
        let other = rig.accept(8, 4).await;
        drop(it);
        rig.world.complete(sys::IBV_WC_WR_FLUSH_ERR);
        settle().await;
        other.pair.send(0, &[0; 16], None, None, None);
        other.pair.flush().unwrap();
        settle().await;
        assert_eq!(armings_of_endings(&rig), 1);
    });
}

#[test]
fn a_response_that_leaves_gives_its_memory_to_whoever_waits_for_it() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        it.pair.send(0, &[0; 16], None, Some((rig.buffer(4096), REMOTE)), None);
        it.pair.flush().unwrap();
        let mut rest = Vec::new();
        while let Some(buffer) = local.pool().try_alloc(4096) {
            rest.push(buffer);
        }
        settle().await;
        assert_eq!(armings_of_endings(&rig), 0, "nobody waits yet");
        rig.world.complete(sys::IBV_WC_SUCCESS);
        let device = complete_later(rig.world, sys::IBV_WC_SUCCESS);
        drop(local.pool().alloc(4096).await);
        device.join().unwrap();
        assert_eq!(armings_of_endings(&rig), 1);
    });
}

#[test]
fn so_does_one_that_holds_memory_of_another_pool() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        let pool = BufferPool::new(1 << 20).unwrap();
        let data = pool.try_alloc(1 << 20).unwrap().freeze();
        it.pair.send(0, &[0; 16], None, Some((data, REMOTE)), None);
        it.pair.flush().unwrap();
        rig.world.complete(sys::IBV_WC_SUCCESS);
        let device = complete_later(rig.world, sys::IBV_WC_SUCCESS);
        drop(pool.alloc(4096).await);
        device.join().unwrap();
        assert_eq!(armings_of_endings(&rig), 1);
    });
}

#[test]
fn a_command_that_cannot_be_sent_is_heard_of() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let to = "10.0.0.2:4420".parse().unwrap();
        let id = rig.channel.resolve(to, Duration::from_secs(1)).unwrap();
        let raw = id.inner.raw();
        rig.world.cm_event(sys::RDMA_CM_EVENT_ADDR_RESOLVED, raw, std::ptr::null_mut());
        rig.channel.next().await.unwrap();
        let options = DeviceOptions { capsule_data_bytes: 0, receives_max: 64 };
        let device = RdmaDevice::of(&local, &id, &options, &[]).unwrap();
        let options = QueuePairOptions { depth: 4, initiator_depth: 0, private_data: b"" };
        let pair = QueuePair::connect(&device, id, &options).unwrap();
        pair.send(0, &[0; 64], None, None, None);
        pair.flush().unwrap();
        let peer = complete_later(rig.world, sys::IBV_WC_RETRY_EXC_ERR);
        let event = std::future::poll_fn(|cx| pair.poll_event(cx)).await;
        assert!(matches!(event, QueuePairEvent::Failed(_)));
        peer.join().unwrap();
    });
}

#[test]
fn an_idle_queue_pair_has_nothing_outstanding_though_nothing_woke_the_reactor() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        it.pair.send(0, &[0; 16], None, None, None);
        it.pair.flush().unwrap();
        settle().await;
        assert_eq!(it.pair.outstanding(), 1);
        let before = events(&rig);
        rig.world.complete(sys::IBV_WC_SUCCESS);
        assert_eq!((it.pair.outstanding(), it.pair.work_ended()), (0, 1));
        assert_eq!((armings_of_endings(&rig), events(&rig)), (0, before));
        let event = it.pair.poll_event(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(event, Poll::Ready(QueuePairEvent::Sent { tag: 0 })));
    });
}
