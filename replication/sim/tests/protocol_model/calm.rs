//! From any state, when nothing fails any more and messages arrive, the volume serves again, with
//! every replica in sync and equal.

use crate::explore::successors;
use crate::properties;
use crate::rules::World;
use crate::state::{CONTINUOUS, LISTED, MEMBER, NEW, OLD, State};
use crate::steps::Step;

/// Far more steps than any calm needs.
const STEPS_MAX: usize = 500;

/// What does not come right, with the leader that there is and with a new one.
pub fn stuck(world: &World, state: &State) -> Option<String> {
    let mut starts = vec![*state];
    successors(world, state, &mut |step, after| {
        if matches!(step, Step::Elect { victim: OLD, dropped: 0, .. }) {
            starts.push(after.canonical(world).0);
        }
    });
    let led = starts.into_iter().filter(|start| start.leaders[NEW].alive);
    led.filter_map(|start| settle_down(world, start)).next()
}

fn settle_down(world: &World, mut state: State) -> Option<String> {
    for _ in 0..STEPS_MAX {
        let mut next: Option<(u8, State)> = None;
        successors(world, &state, &mut |step, after| {
            if let Some(rank) = rank(step)
                && next.is_none_or(|(best, _)| rank < best)
            {
                next = Some((rank, after));
            }
        });
        let Some((_, after)) = next else { return not_right(world, state) };
        state = after.canonical(world).0;
        if let Some(what) = properties::broken(world, &state) {
            return Some(format!("in the calm after it: {what}"));
        }
    }
    Some("it never comes to rest".to_owned())
}

/// Steps of a calm time, the most urgent first.
fn rank(step: Step) -> Option<u8> {
    match step {
        Step::Arrive { .. } => Some(0),
        Step::Learn | Step::Expire { .. } => Some(1),
        Step::Seal { leader: NEW, .. } => Some(2),
        Step::FindEqual { leader: NEW, .. } | Step::FindCopied { leader: NEW, .. } => Some(3),
        Step::Equalise { leader: NEW, .. } | Step::Copy { leader: NEW, .. } => Some(4),
        Step::Resend { leader: NEW, .. } => Some(5),
        Step::Unlist { leader: NEW, .. } | Step::Trust { leader: NEW, .. } => Some(6),
        Step::Resync { leader: NEW, .. } | Step::Ask | Step::Admit => Some(7),
        _ => None,
    }
}

fn not_right(world: &World, mut state: State) -> Option<String> {
    let leader = state.leaders[NEW];
    if !leader.serving || !state.leased(world, NEW) {
        return Some("nobody serves".to_owned());
    }
    let replicas = &state.replicas[..world.replicas];
    let here = || replicas.iter().filter(|replica| world.resync || replica.flags.has(MEMBER));
    for block in 0..world.blocks() {
        let value =
            replicas.iter().find(|replica| replica.flags.has(MEMBER))?.blocks[block].data.value;
        let right = |replica: &&crate::state::Replica| {
            let (flags, at) = (replica.flags, replica.blocks[block]);
            let quiet = flags.has(MEMBER) && flags.has(CONTINUOUS) && !at.flags.has(LISTED);
            quiet && at.data.value == value
        };
        if !here().all(|replica| right(&replica)) {
            return Some(format!("block {block} or a replica of it does not come right"));
        }
        state.ghosts[block].read_now(value);
        if !state.ghosts[block].explained() {
            return Some(format!("block {block} has a value that no host can make sense of"));
        }
    }
    None
}
