//! The executor alone: that time moves only when all wait, that processes stop, go on and die, and that a seed fixes the order.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use afs_env::Clock;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn time_moves_only_when_all_wait() {
    let sim = Sim::new(1);
    let clock = sim.clock().clone();
    let end = sim.run(async move {
        clock.sleep(Duration::from_secs(3600)).await;
        clock.now()
    });
    assert_eq!(end.unwrap(), 3_600_000_000_000);
}

#[test]
fn a_deadlock_is_reported() {
    let sim = Sim::new(1);
    assert_eq!(sim.run(std::future::pending::<()>()), Err(Stuck));
}

/// Counts once a second in `process`.
fn counter(sim: &Sim, process: &Process) -> Rc<Cell<u32>> {
    let count = Rc::new(Cell::new(0));
    let (clock, handle) = (sim.clock().clone(), count.clone());
    process.spawn(async move {
        loop {
            clock.sleep(SECOND).await;
            handle.set(handle.get() + 1);
        }
    });
    count
}

fn pass(sim: &Sim, time: Duration) {
    let clock = sim.clock().clone();
    sim.run(async move { clock.sleep(time).await }).unwrap();
}

#[test]
fn a_stopped_process_goes_on_later_and_a_dead_one_never() {
    let sim = Sim::new(1);
    let (one, two) = (sim.process(), sim.process());
    let (first, second) = (counter(&sim, &one), counter(&sim, &two));
    pass(&sim, SECOND * 7 / 2);
    assert_eq!((first.get(), second.get()), (3, 3));
    one.stop();
    pass(&sim, SECOND * 5);
    assert_eq!((first.get(), second.get()), (3, 8));
    one.resume();
    two.kill();
    pass(&sim, SECOND * 5 / 2);
    // Its timer fired late, once.
    assert_eq!((first.get(), second.get()), (6, 8));
    assert!(one.is_alive() && !two.is_alive());
    assert_eq!(Rc::strong_count(&second), 1, "the task is gone");
}

#[test]
fn a_process_that_kills_itself_ends_where_it_next_waits() {
    let sim = Sim::new(1);
    let process = sim.process();
    let ended = Rc::new(Cell::new(false));
    let seen = ended.clone();
    process.at_end(move || seen.set(true));
    let (own, clock) = (process.clone(), sim.clock().clone());
    let far = Rc::new(Cell::new(0));
    let reached = far.clone();
    process.spawn(async move {
        own.kill();
        reached.set(1);
        clock.sleep(SECOND).await;
        reached.set(2);
    });
    pass(&sim, SECOND * 2);
    assert!(ended.get());
    assert_eq!((far.get(), Rc::strong_count(&far)), (1, 1));
}

/// The order in which tasks that are woken together run.
fn order_of_run(seed: u64, order: Order) -> Vec<usize> {
    let sim = Sim::new(seed);
    sim.set_order(order);
    let ran = Rc::new(RefCell::new(Vec::new()));
    for number in 0..8 {
        let ran = ran.clone();
        sim.spawn(async move { ran.borrow_mut().push(number) });
    }
    pass(&sim, SECOND);
    ran.take()
}

#[test]
fn the_seed_chooses_the_order_of_woken_tasks_if_asked() {
    let sorted: Vec<_> = (0..8).collect();
    assert_eq!(order_of_run(1, Order::Woken), sorted);
    assert_ne!(order_of_run(1, Order::Seeded), sorted);
    assert_ne!(order_of_run(1, Order::Seeded), order_of_run(2, Order::Seeded));
    assert_eq!(order_of_run(3, Order::Seeded), order_of_run(3, Order::Seeded));
}

#[test]
fn hundreds_of_tasks_cost_only_what_is_woken() {
    let sim = Sim::new(1);
    let process = sim.process();
    let counts: Vec<_> = (0..500).map(|_| counter(&sim, &process)).collect();
    pass(&sim, SECOND * 20);
    assert!(counts.iter().all(|count| (19..=20).contains(&count.get())));
    assert!(sim.polls() < 500 * 21 + 10);
}
