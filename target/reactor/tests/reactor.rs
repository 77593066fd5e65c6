//! Reactors as such: tasks, idling, ending, sockets.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use afs_reactor::{Local, ReactorConfig, ReactorGone, Reactors, Socket, socket};
use common::reactors;

#[test]
fn tasks_run_on_the_reactor_that_they_were_given_to() {
    let reactors = reactors(2, 0);
    for index in 0..4 {
        let handle = reactors.handle(index);
        let seen = handle.run(|local| async move { local.index() }).unwrap();
        assert_eq!((seen, handle.index()), (index % 2, index % 2));
    }
}

#[test]
fn a_panic_ends_its_task_alone() {
    let reactors = reactors(1, 0);
    let handle = reactors.handle(0);
    let result = handle.run(|_| async { assert!(std::hint::black_box(false), "on purpose") });
    assert_eq!(result, Err(ReactorGone));
    assert_eq!(handle.run(|_| async { 7 }), Ok(7));
}

#[test]
fn a_reactor_that_has_ended_runs_nothing() {
    let reactors = reactors(1, 4);
    let handle = reactors.handle(0);
    let waiting = {
        let handle = handle.clone();
        std::thread::spawn(move || handle.run(|_| std::future::pending::<()>()))
    };
    handle.run(|_| async {}).unwrap();
    reactors.shutdown();
    assert_eq!(waiting.join().unwrap(), Err(ReactorGone));
    assert_eq!(handle.run(|_| async {}), Err(ReactorGone));
}

#[test]
fn an_idle_reactor_sleeps() {
    let config = ReactorConfig { poll: Duration::from_millis(1), ..ReactorConfig::default() };
    let reactors = Reactors::start(config).unwrap();
    let handle = reactors.handle(0);
    // Work in quick succession makes it poll…
    handle
        .run(|local| async move {
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_micros(100)).await;
                local.counters().note_work();
            }
        })
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !handle.stats().parked {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    // …and when there is none, nothing happens at all.
    let before = handle.stats();
    std::thread::sleep(Duration::from_millis(300));
    let after = handle.stats();
    assert!(after.parked && after.rounds - before.rounds <= 2, "{before:?} {after:?}");
    assert_eq!(before.last_ran_ns, after.last_ran_ns);
}

#[test]
fn a_core_that_does_not_exist_is_named() {
    let config = ReactorConfig { cores: vec![100_000], ..ReactorConfig::default() };
    let error = Reactors::start(config).err().unwrap();
    assert!(error.to_string().contains("core 100000"), "{error}");
}

#[test]
fn a_pinned_reactor_runs() {
    let config = ReactorConfig { cores: vec![0], ..ReactorConfig::default() };
    let reactors = Reactors::start(config).unwrap();
    assert_eq!(reactors.len(), 1);
    assert_eq!(reactors.handle(0).run(|_| async { 1 }), Ok(1));
}

#[test]
fn sockets_move_vectors_and_count_their_calls() {
    let reactors = reactors(1, 0);
    let listener = socket::listen("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    listener.set_nonblocking(false).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let handle = reactors.handle(0);
    peer.write_all(b"hello world").unwrap();
    let serve = move |local: Local| async move {
        let socket = Socket::new(accepted, &local).unwrap();
        socket.set_user_timeout(Duration::from_secs(5)).unwrap();
        let (mut head, mut rest) = ([0; 5], [0; 64]);
        let mut buffers = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut rest)];
        assert_eq!(socket.recv(&mut buffers).await.unwrap(), 11);
        let nothing = socket.try_recv(&mut [IoSliceMut::new(&mut rest)]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
        socket.send(&[IoSlice::new(b"bye"), IoSlice::new(&head)]).await.unwrap();
        let end = socket.recv(&mut [IoSliceMut::new(&mut rest)]).await.unwrap();
        (head, end)
    };
    let reader = std::thread::spawn(move || {
        let mut answer = [0; 8];
        peer.read_exact(&mut answer).unwrap();
        answer
    });
    assert_eq!(handle.run(serve).unwrap(), (*b"hello", 0));
    assert_eq!(&reader.join().unwrap(), b"byehello");
    // Receive, send, end of stream; looking where nothing could be cost no call.
    assert_eq!(handle.stats().socket_calls, 3);
}

#[test]
fn a_port_in_use_is_refused() {
    let first = socket::listen("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
    let error = socket::listen(first.local_addr().unwrap(), 1, false).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
