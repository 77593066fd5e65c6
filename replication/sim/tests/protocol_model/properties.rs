//! What must be true in every state.

use crate::rules::World;
use crate::state::{CONTINUOUS, LISTED, MEMBER, NEW, OLD, Replica, State};

pub fn broken(world: &World, state: &State) -> Option<&'static str> {
    if !state.ghosts.iter().all(|ghost| ghost.explained()) {
        return Some("a host saw what no single copy of the data could have shown");
    }
    if world.hosts_only {
        return None;
    }
    let serves = |leader: usize| state.leaders[leader].serving && state.leased(world, leader);
    if serves(OLD) && serves(NEW) {
        return Some("two leaders may serve");
    }
    if (0..world.blocks()).any(|block| unlike(world, state, block)) {
        return Some("replicas in sync differ, and nothing tells the next leader");
    }
    None
}

/// Whether replicas in sync differ on a block that a leader who sealed them all now would take for
/// equal.
fn unlike(world: &World, state: &State, block: usize) -> bool {
    let members = || state.replicas.iter().filter(|replica| replica.flags.has(MEMBER));
    let listed = |replica: &Replica| replica.blocks[block].flags.has(LISTED);
    let mut values = members().map(|replica| replica.blocks[block].data.value);
    let first = values.next();
    let equal = values.all(|value| Some(value) == first);
    if equal || members().any(listed) {
        return false;
    }
    let gap = members().any(|replica| !replica.flags.has(CONTINUOUS));
    !gap || state.unlike_by_stamp(world, state.members()) >> block & 1 == 0
}
