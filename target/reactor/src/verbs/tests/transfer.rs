//! What goes to the device, and what comes back.

use afs_verbs_sys as sys;

use super::rig::{DATA, Rig, on_reactor, settle};
use crate::verbs::fake::Call;
use crate::verbs::{QueuePairEvent, RemoteMemory, WorkCause};

const REMOTE: RemoteMemory = RemoteMemory { address: 0xabcd_0000, key: 0x77 };

#[test]
fn data_and_response_go_out_as_one_chain_with_one_doorbell() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 4).await;
        rig.world.forget_calls();
        let data = rig.buffer(5000);
        let address = data.as_ptr().addr() as u64;
        it.pair.send(3, &[9; 16], None, Some((data, REMOTE)), Some(REMOTE.key));
        it.pair.send(4, &[8; 16], None, None, None);
        assert_eq!(rig.world.calls(), [], "nothing before the flush");
        it.pair.flush().unwrap();
        it.pair.flush().unwrap();
        assert_eq!(rig.world.calls(), [Call::PostSend(3)]);
        {
            let state = rig.world.state.lock();
            let [write, first, second] = [0, 1, 2].map(|index| &state.requests[index]);
            assert_eq!((write.opcode, write.flags), (sys::IBV_WR_RDMA_WRITE, 0));
            assert_eq!(write.remote, (REMOTE.address, REMOTE.key));
            assert_eq!((write.elements[0].0, write.elements[0].1), (address, 5000));
            assert_eq!((first.opcode, first.invalidate), (sys::IBV_WR_SEND_WITH_INV, REMOTE.key));
            assert_eq!(first.flags, sys::IBV_SEND_SIGNALED | sys::IBV_SEND_INLINE);
            assert_eq!(first.inline, [9; 16]);
            assert_eq!((second.opcode, &second.inline[..]), (sys::IBV_WR_SEND, &[8; 16][..]));
        }
        for _ in 0..3 {
            rig.world.complete(sys::IBV_WC_SUCCESS);
        }
        assert!(matches!(it.event().await, QueuePairEvent::Sent { tag: 3 }));
        assert!(matches!(it.event().await, QueuePairEvent::Sent { tag: 4 }));
        assert!(it.is_silent().await, "one event for each send");
        assert_eq!((it.pair.outstanding(), it.pair.work_ended()), (0, 2));
        assert_eq!(it.device.figures().doorbells, 1);
    });
}

#[test]
fn messages_lie_in_registered_memory_where_the_device_inlines_nothing() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        rig.world.inline.set(0);
        let it = rig.accept(8, 4).await;
        it.pair.send(1, &[7; 16], Some(rig.buffer(300)), None, None);
        it.pair.flush().unwrap();
        let request = rig.world.complete(sys::IBV_WC_SUCCESS);
        assert_eq!(request.flags, sys::IBV_SEND_SIGNALED);
        assert_eq!((request.elements[0].1, request.elements[1].1), (16, 300));
        assert_eq!(request.elements[0].2, request.elements[1].2, "both are of the pool");
    });
}

#[test]
fn no_more_reads_are_under_way_than_the_peer_serves() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 2).await;
        for tag in 0..5 {
            it.pair.read(tag, rig.buffer(4096).try_into_mut().unwrap(), REMOTE);
        }
        it.pair.flush().unwrap();
        for tag in 0..5 {
            let under_way = rig.world.state.lock().requests.len();
            assert_eq!(under_way, usize::from(5 - tag).min(2));
            let request = rig.world.complete(sys::IBV_WC_SUCCESS);
            assert_eq!(request.opcode, sys::IBV_WR_RDMA_READ);
            // The next one is handed over without anybody calling `flush`.
            let QueuePairEvent::ReadDone { tag: done, buffer } = it.event().await else {
                panic!("a read was completed")
            };
            assert_eq!((done, buffer.len()), (tag, 4096));
        }
    });
}

#[test]
fn buffers_are_held_until_their_work_has_completed() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 2).await;
        let free = local.pool().free_bytes();
        it.pair.send(1, &[0; 16], None, Some((rig.buffer(4096), REMOTE)), None);
        it.pair.flush().unwrap();
        rig.world.complete(sys::IBV_WC_SUCCESS);
        assert!(it.is_silent().await, "a WRITE alone tells nothing");
        assert_eq!(local.pool().free_bytes(), free - 4096);
        rig.world.complete(sys::IBV_WC_SUCCESS);
        assert!(matches!(it.event().await, QueuePairEvent::Sent { tag: 1 }));
        assert_eq!(local.pool().free_bytes(), free);
    });
}

#[test]
fn a_message_with_data_comes_without_a_copy_and_its_receive_is_replaced_at_once() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 2).await;
        assert_eq!(it.device.figures().receives_posted, 8);
        let address = rig.world.state.lock().receives[0].1[1].0;
        rig.world.forget_calls();
        let message: Vec<u8> = (0..64 + 5000).map(|index| (index % 251) as u8).collect();
        rig.world.deliver(it.number, &message);
        let QueuePairEvent::Received { header, len, data } = it.event().await else {
            panic!("a message was delivered")
        };
        assert_eq!(rig.world.calls().last(), Some(&Call::PostReceive(1)), "before the response");
        assert_eq!(it.device.figures().receives_posted, 8);
        let data = data.unwrap();
        assert_eq!((len, data.as_ptr().addr() as u64), (5064, address));
        assert!(header == message[..64] && data[..] == message[64..]);
        assert_eq!(address % 4096, 0);
    });
}

#[test]
fn a_message_without_data_leaves_its_buffer_with_the_receive() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(2, 2).await;
        let free = local.pool().free_bytes();
        for _ in 0..100 {
            rig.world.deliver(it.number, &[5; 64]);
            let event = it.event().await;
            assert!(matches!(event, QueuePairEvent::Received { len: 64, data: None, .. }));
        }
        rig.world.deliver(it.number, &[5; 10]);
        let QueuePairEvent::Received { header, len, .. } = it.event().await else { panic!() };
        assert_eq!((len, header[9], header[10]), (10, 5, 0), "nothing of the message before");
        assert_eq!(local.pool().free_bytes(), free);
    });
}

#[test]
fn receives_wait_while_the_pool_is_empty() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(2, 2).await;
        let mut rest = Vec::new();
        while let Some(buffer) = local.pool().try_alloc(4096) {
            rest.push(buffer);
        }
        rig.world.deliver(it.number, &[5; 100]);
        let event = it.event().await;
        assert_eq!(it.device.figures().receives_posted, 1);
        assert_eq!(it.device.figures().receives_wanted, 2);
        drop(rest);
        settle().await;
        assert_eq!(it.device.figures().receives_posted, 2);
        drop(event);
    });
}

#[test]
fn flushed_works_give_everything_back_and_failure_is_told_once() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 1).await;
        let free = local.pool().free_bytes();
        it.pair.read(0, rig.buffer(4096).try_into_mut().unwrap(), REMOTE);
        it.pair.read(1, rig.buffer(4096).try_into_mut().unwrap(), REMOTE);
        it.pair.send(2, &[0; 16], None, Some((rig.buffer(4096), REMOTE)), None);
        it.pair.flush().unwrap();
        assert_eq!(it.pair.outstanding(), 3);
        rig.world.complete(sys::IBV_WC_REM_ACCESS_ERR);
        rig.world.complete(sys::IBV_WC_WR_FLUSH_ERR);
        let QueuePairEvent::Failed(error) = it.event().await else { panic!("a read failed") };
        assert!(matches!(error.cause, WorkCause::Status { status: 10, .. }), "{error}");
        assert_eq!(it.pair.outstanding(), 1, "the queued read is gone, the send is not");
        assert!(!it.is_idle());
        rig.world.complete(sys::IBV_WC_WR_FLUSH_ERR);
        assert!(it.is_silent().await);
        assert!(it.is_idle());
        assert_eq!(local.pool().free_bytes(), free);
        // What is queued on a dead queue pair goes nowhere, and is not kept.
        it.pair.send(3, &[0; 16], None, Some((rig.buffer(4096), REMOTE)), None);
        assert_eq!((it.pair.outstanding(), local.pool().free_bytes()), (0, free));
    });
}

#[test]
fn a_chain_that_is_refused_in_the_middle_keeps_only_what_the_device_may_read() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(8, 1).await;
        let free = local.pool().free_bytes();
        // The device takes the first send, and of the second only the WRITE.
        rig.world.state.lock().room = Some(3);
        for tag in 0..3 {
            it.pair.send(tag, &[0; 16], None, Some((rig.buffer(4096), REMOTE)), None);
        }
        assert!(it.pair.flush().is_err());
        assert!(matches!(it.event().await, QueuePairEvent::Failed(_)));
        assert_eq!(local.pool().free_bytes(), free - 2 * 4096);
        assert_eq!(it.pair.outstanding(), 1);
        rig.world.complete(sys::IBV_WC_SUCCESS);
        rig.world.complete(sys::IBV_WC_SUCCESS);
        settle().await;
        assert!(it.is_idle());
        assert_eq!(local.pool().free_bytes(), free - 4096, "that of the WRITE without a SEND");
        drop(it);
        settle().await;
        assert!(rig.pool_is_whole());
    });
}

#[test]
fn a_peer_that_floods_the_queue_is_cut_off() {
    on_reactor(|local| async move {
        let rig = Rig::new(&local);
        let it = rig.accept(4, 1).await;
        for _ in 0..30 {
            if rig.world.state.lock().receives.is_empty() {
                settle().await;
            }
            rig.world.deliver(it.number, &[0; 64 + DATA]);
        }
        let mut messages = 0;
        loop {
            match it.event().await {
                QueuePairEvent::Received { .. } => messages += 1,
                QueuePairEvent::Failed(error) => {
                    assert_eq!(error.cause, WorkCause::TooManyMessages);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(messages, 24);
        assert!(rig.world.calls().contains(&Call::Modify(sys::IBV_QPS_ERR)));
    });
}
