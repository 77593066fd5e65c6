//! A replica on its own: what its leader counts as a renewal of the lease must be one (DESIGN 5 rule 4).
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "shared with other tests")]
mod common;

use std::time::Duration;

use afs_decisions::NodeId;
use afs_env::{Clock, HEADER_BYTES};
use afs_sim::{Drift, MachineClock, SimDisk};
use afs_volume::{Outcome, Params, ReplicaServer, ReplicaState, VERSION, tick_of};
use common::{BLOCKS, Expected, Setup, World, format_disk, id};

/// Each kind of message that a leader sends while it leads, with its argument (see `afs_volume`'s messages): write zeroes, trim,
/// heartbeat, read, settle, commit, chunks, sums, whole.
const KINDS: [(u8, u64, [u32; 4]); 9] = [
    (3, 1, [0, 1, 1, 1]),
    (4, 2, [0, 1, 2, 1]),
    (5, 2, [0, 0, 2, 0]),
    (7, 0, [0, 1, 0, 0]),
    (8, 1, [0; 4]),
    (9, 1, [1, 0, 0, 0]),
    (10, 0, [0, 0, 0, 1]),
    (11, 0, [0; 4]),
    (12, 0, [0; 4]),
];

fn header(kind: u8, tick: u32, a: u64, rest: [u32; 4]) -> [u8; HEADER_BYTES] {
    let epoch = 1_u64;
    let mut header = [0; HEADER_BYTES];
    (header[0], header[1]) = (kind, VERSION);
    header[4..8].copy_from_slice(&tick.to_le_bytes());
    header[8..16].copy_from_slice(&epoch.to_le_bytes());
    header[16..24].copy_from_slice(&a.to_le_bytes());
    for (place, part) in header[24..].chunks_exact_mut(4).zip(rest) {
        place.copy_from_slice(&part.to_le_bytes());
    }
    header
}

async fn keep_alive(
    server: ReplicaServer<SimDisk, MachineClock>,
    state: ReplicaState,
    clock: MachineClock,
) {
    let send = async |kind, a, rest| {
        let tick = tick_of(clock.now());
        let answer = server.handle(&header(kind, tick, a, rest), None).await;
        assert_eq!(Outcome::of(answer.status), Outcome::Done, "kind {kind}");
    };
    // A promise to process 7 of node 2, in reign 1.
    send(1, 1, [7, 0, 2, 0]).await;
    let whole = Some(u64::try_from(Params::default().lease.as_millis()).unwrap());
    for (kind, a, rest) in KINDS {
        clock.sleep(Duration::from_millis(400)).await;
        assert!(state.lease_left(clock.now()) < whole);
        send(kind, a, rest).await;
        assert_eq!(state.lease_left(clock.now()), whole, "kind {kind}");
    }
}

#[test]
fn rule_4_every_message_that_is_carried_out_renews_the_lease() {
    let setup = Setup::new(1);
    let world = World::open(&setup, &format_disk(&setup), Expected::default()).unwrap();
    world.create(1, BLOCKS);
    let replica = world.store.replica(id(1)).unwrap();
    let clock = MachineClock::new(world.sim.clock(), Drift::default());
    let (node, params) = (NodeId(1), Params::default());
    let state = ReplicaState::new(replica.label(), true, node, clock.now(), params);
    let pool = common::pool();
    let server = ReplicaServer::new(&state, replica, clock.clone(), pool);
    world.sim.run(keep_alive(server, state, clock)).unwrap();
    world.sim.kill();
}
