//! The network alone: each way in which a call can end, and what becomes of the request in each.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;

use afs_env::{Answer, Clock, Link};

use super::*;

const A: Address = Address(1);
const B: Address = Address(2);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    sim: Sim,
    net: SimNet,
    server: Process,
    /// How many requests were carried out.
    carried_out: Rc<Cell<u64>>,
}

/// Two machines; B doubles numbers, and takes a millisecond for it.
fn world(seed: u64, config: NetConfig) -> World {
    let sim = Sim::new(seed);
    let net = SimNet::new(&sim, config);
    net.attach(A, &sim.process());
    let server = sim.process();
    net.attach(B, &server);
    let world = World { sim, net, server, carried_out: Rc::default() };
    world.serve();
    world
}

impl World {
    fn serve(&self) {
        let (clock, count) = (self.sim.clock().clone(), self.carried_out.clone());
        self.net.serve(B, "double", move |_, number: u64| {
            let (clock, count) = (clock.clone(), count.clone());
            async move {
                clock.sleep(SECOND / 1000).await;
                count.set(count.get() + 1);
                number * 2
            }
        });
    }

    /// Begins a call whose caller gives up after a second.
    fn call(&self, number: u64) -> Rc<Cell<Option<Result<u64, LinkError>>>> {
        let outcome = Rc::new(Cell::new(None));
        let (slot, net, clock) = (outcome.clone(), self.net.clone(), self.sim.clock().clone());
        self.sim.spawn(async move {
            let call = std::pin::pin!(net.call(A, B, "double", number));
            let deadline = std::pin::pin!(clock.sleep(SECOND));
            use futures_util::future::{Either, select};
            if let Either::Left((result, _)) = select(call, deadline).await {
                slot.set(Some(result));
            }
        });
        outcome
    }

    fn pass(&self, time: Duration) {
        let clock = self.sim.clock().clone();
        self.sim.run(async move { clock.sleep(time).await }).unwrap();
    }
}

#[test]
fn calls_are_answered_and_overtake_each_other() {
    let world = world(1, NetConfig::default());
    let arrived = Rc::new(RefCell::new(Vec::new()));
    let order = arrived.clone();
    world.net.serve(B, "note", move |_, number: u32| {
        order.borrow_mut().push(number);
        std::future::ready(())
    });
    for number in 0..50_u32 {
        let net = world.net.clone();
        world.sim.spawn(async move { net.call(A, B, "note", number).await.unwrap() });
    }
    let answer = world.call(21);
    world.pass(SECOND);
    assert_eq!(answer.get(), Some(Ok(42)));
    let mut arrived = arrived.take();
    assert!(!arrived.is_sorted());
    arrived.sort_unstable();
    assert_eq!(arrived, (0..50).collect::<Vec<_>>());
}

#[test]
fn a_cut_path_swallows_or_holds_and_callers_are_told_nothing() {
    for (kept, expected) in [(0, 0), (100, 1)] {
        let world = world(1, NetConfig::default());
        world.net.set_path(A, B, PathState { cut: Some(Cut { kept }), ..PathState::default() });
        let answer = world.call(1);
        world.pass(SECOND * 5);
        assert_eq!((answer.get(), world.carried_out.get()), (None, 0));
        // Its caller has given up: what was held is a ghost.
        world.net.heal();
        world.pass(SECOND);
        assert_eq!((answer.get(), world.carried_out.get()), (None, expected));
        assert_eq!(world.net.counts().ghosts, expected);
        assert_eq!(world.call(1).get(), None);
    }
}

#[test]
fn a_cut_in_one_direction_loses_the_answer_and_not_the_request() {
    let world = world(1, NetConfig::default());
    world.net.set_path(B, A, PathState { cut: Some(Cut { kept: 0 }), ..PathState::default() });
    let answer = world.call(1);
    world.pass(SECOND * 2);
    assert_eq!((answer.get(), world.carried_out.get()), (None, 1));
}

#[test]
fn a_dead_process_resets_and_a_machine_without_power_is_silent() {
    let world = world(3, NetConfig::default());
    let under_way = world.call(1);
    world.pass(SECOND / 2000);
    world.server.kill();
    world.pass(SECOND / 100);
    assert_eq!((under_way.get(), world.carried_out.get()), (Some(Err(LinkError::Lost)), 0));
    let later: Vec<_> = (0..20).map(|_| world.call(1)).collect();
    world.pass(SECOND / 100);
    let unreachable = |answer: &&Rc<Cell<_>>| answer.get() == Some(Err(LinkError::Unreachable));
    assert!(later.iter().all(|answer| matches!(answer.get(), Some(Err(_)))));
    assert!((5..20).contains(&later.iter().filter(unreachable).count()));
    world.net.power_off(B);
    let silent = world.call(1);
    world.pass(SECOND * 2);
    assert_eq!(silent.get(), None);
}

#[test]
fn a_request_for_a_dead_incarnation_never_reaches_the_next() {
    for seed in 1..20 {
        let mut world = world(seed, NetConfig::default());
        world.net.set_path(
            A,
            B,
            PathState { cut: Some(Cut { kept: 100 }), ..PathState::default() },
        );
        let answer = world.call(1);
        world.pass(SECOND / 10);
        world.server.kill();
        world.server = world.sim.process();
        world.net.attach(B, &world.server);
        world.serve();
        world.net.heal();
        world.pass(SECOND);
        assert!(matches!(answer.get(), Some(Err(_))), "{answer:?}");
        assert_eq!(world.carried_out.get(), 0);
        let answer = world.call(2);
        world.pass(SECOND);
        assert_eq!(answer.get(), Some(Ok(4)));
    }
}

#[test]
fn a_broken_connection_loses_answers_and_the_request_may_be_carried_out() {
    let mut carried_out = 0;
    for seed in 1..40 {
        let world = world(seed, NetConfig::default());
        let answer = world.call(1);
        world.pass(SECOND / 2000);
        world.net.reset(A, B);
        world.pass(SECOND);
        assert_eq!(answer.get(), Some(Err(LinkError::Lost)));
        carried_out += world.carried_out.get();
    }
    assert!(carried_out > 0);
}

#[test]
fn a_stopped_process_answers_when_it_goes_on() {
    let world = world(1, NetConfig::default());
    world.server.stop();
    let answer = world.call(1);
    world.pass(SECOND / 2);
    assert_eq!(answer.get(), None);
    world.server.resume();
    world.pass(SECOND / 4);
    assert_eq!(answer.get(), Some(Ok(2)));
}

#[test]
fn duplicates_are_carried_out_twice_if_asked_for() {
    let world = world(1, NetConfig { duplicates: 1_000_000, ..NetConfig::default() });
    let answer = world.call(1);
    world.pass(SECOND);
    assert_eq!((answer.get(), world.carried_out.get()), (Some(Ok(2)), 2));
}

#[test]
fn a_link_carries_header_and_data_both_ways() {
    let world = world(1, NetConfig::default());
    let pool = afs_env::BufferPool::new(1 << 20).unwrap();
    world.net.serve_link(B, "replica", |from, header, data| async move {
        Answer { result: [header[39]; 8], status: u8::try_from(from.0).unwrap(), data }
    });
    let link = world.net.link(A, B, "replica");
    let mut data = pool.try_alloc(4096).unwrap();
    data.fill(7);
    let data = data.freeze();
    let mut header = [0; 40];
    header[39] = 9;
    let answer = world.sim.run(async move { link.call(header, Some(data), 4096).await });
    let answer = answer.unwrap().unwrap();
    assert_eq!((answer.result, answer.status), ([9; 8], 1));
    assert!(answer.data.unwrap().iter().all(|&byte| byte == 7));
}

/// One message from A to B, whose caller gives up after a second.
fn send(world: &World) -> Result<Answer, LinkError> {
    let (link, clock) = (world.net.link(A, B, "echo"), world.sim.clock().clone());
    let sent = async move {
        let call = std::pin::pin!(link.call([0; afs_env::HEADER_BYTES], None, 0));
        let deadline = std::pin::pin!(clock.sleep(SECOND));
        match futures_util::future::select(call, deadline).await {
            futures_util::future::Either::Left((answer, _)) => answer,
            futures_util::future::Either::Right(_) => Err(LinkError::Lost),
        }
    };
    world.sim.run(sent).unwrap()
}

#[test]
fn links_are_connected_when_first_used_and_again_after_they_broke() {
    let mut world = world(3, NetConfig { connect_max: SECOND, ..NetConfig::default() });
    let echo = |world: &World| {
        world.net.serve_link(B, "echo", |_, _, _| {
            std::future::ready(Answer { status: 0, result: [0; 8], data: None })
        });
    };
    echo(&world);
    let settle = |world: &World| {
        let link = world.net.link(A, B, "echo");
        world.sim.run(async move { link.settle().await }).unwrap();
        world.net.link(A, B, "echo").is_settled()
    };
    let unreachable = Err(LinkError::Unreachable);
    assert!(!world.net.link(A, B, "echo").is_settled());
    assert_eq!(send(&world).map(|_| ()), unreachable, "it is being connected");
    assert!(settle(&world));
    assert_eq!(send(&world).map(|_| ()), Ok(()));
    // Broken, and made again.
    world.net.reset(A, B);
    assert!(!world.net.link(A, B, "echo").is_settled());
    assert_eq!(send(&world).map(|_| ()), unreachable);
    assert!(settle(&world));
    assert_eq!(send(&world).map(|_| ()), Ok(()));
    // Another process is another connection.
    world.server.kill();
    world.server = world.sim.process();
    world.net.attach(B, &world.server);
    echo(&world);
    assert_eq!(send(&world).map(|_| ()), unreachable);
    assert!(settle(&world));
    assert_eq!(send(&world).map(|_| ()), Ok(()));
    // One that stands still does not answer; that is known when the attempt has ended.
    world.net.reset(A, B);
    world.server.stop();
    assert!(settle(&world));
    assert_eq!(send(&world).map(|_| ()), unreachable);
}
