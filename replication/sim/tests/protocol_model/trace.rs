//! A way to a state, in words: found again by its fingerprints.

use crate::explore::{Seen, successors};
use crate::rules::World;
use crate::state::{NEW, OLD, REPLICAS, State, Work};
use crate::steps::Step;

pub fn retrace(world: &World, seen: &Seen, last: u64) -> Vec<String> {
    let mut way = vec![last];
    let mut at = last;
    while seen[&at] != at {
        at = seen[&at];
        way.push(at);
    }
    way.reverse();
    let mut names = Names { replicas: ['A', 'B', 'C'], leaders: [0, 0], elected: 0 };
    let mut state = State::first(world).canonical(world).0;
    let mut trace = Vec::new();
    for wanted in &way[1..] {
        let mut found = None;
        successors(world, &state, &mut |step, after| {
            let acknowledged = acknowledged(world, &after);
            let (after, order) = after.canonical(world);
            if found.is_none() && after.fingerprint() == *wanted {
                found = Some((step, acknowledged, after, order));
            }
        });
        let (step, acknowledged, after, order) = found.expect("a step that was taken before");
        trace.push(names.tell(step));
        for (leader, n) in acknowledged {
            trace.push(format!("leader {} acknowledges write {}", names.leaders[leader], n + 1));
        }
        names.replicas = order.map(|place| names.replicas[place]);
        state = after;
    }
    trace
}

/// Leaders that have every answer to a write, and its number.
fn acknowledged(world: &World, state: &State) -> Vec<(usize, u8)> {
    let work = |leader: usize, block: usize| match state.leaders[leader].work[block] {
        Work::Write(n) if state.finished(leader, block) => Some((leader, n)),
        _ => None,
    };
    let blocks = |leader| (0..world.blocks()).filter_map(move |block| work(leader, block));
    [OLD, NEW].into_iter().flat_map(blocks).collect()
}

/// Replicas and leaders change their places in a state, and keep their names in a trace.
struct Names {
    replicas: [char; REPLICAS],
    leaders: [usize; 2],
    elected: usize,
}

impl Names {
    fn tell(&mut self, step: Step) -> String {
        let leaders = self.leaders;
        let leader = |leader: usize| format!("leader {}", leaders[leader]);
        let at = |replica: usize| self.replicas[replica];
        match step {
            Step::Elect { victim, dropped, stand_in } => {
                self.elected += 1;
                if victim == 0 {
                    self.leaders[0] = self.leaders[1];
                }
                self.leaders[1] = self.elected;
                let gone: String =
                    (0..REPLICAS).filter(|place| dropped >> place & 1 == 1).map(at).collect();
                let gone = if gone.is_empty() { "none".to_owned() } else { gone };
                let instead = stand_in
                    .map(|place| format!(", takes {} instead", at(place)))
                    .unwrap_or_default();
                let dead = match leaders[victim] {
                    0 => String::new(),
                    dead => format!(" (leader {dead} is dead)"),
                };
                format!("MetaDB elects leader {}, drops {gone}{instead}{dead}", self.elected)
            }
            Step::Reclaim => format!("{} restarts and takes up its epoch", leader(1)),
            Step::Renew => format!("{} takes a fresh epoch", leader(1)),
            Step::Seal { leader: l, replica } => {
                format!("{} promises to {}", at(replica), leader(l))
            }
            Step::SealUnheard { leader: l, replica } => {
                format!("{} promises to {}, the answer is lost", at(replica), leader(l))
            }
            Step::Expire { replica } => {
                format!("the lease of {} for {} is over", at(replica), leader(0))
            }
            Step::Extend { leader: l, replica } => {
                format!("{} extends the lease of {}", at(replica), leader(l))
            }
            Step::Write { leader: l, n } => format!("{} sends write {}", leader(l), n + 1),
            Step::Resend { leader: l, block } => {
                format!("{} sends its write of block {block} again", leader(l))
            }
            Step::Arrive { replica, block, stamped } => {
                let stamp = if stamped { "" } else { ", and loses its stamp" };
                format!("{} writes block {block}{stamp}", at(replica))
            }
            Step::SendTwice { replica, block } => {
                format!("block {block} is sent to {} a second time", at(replica))
            }
            Step::ArriveStale { replica, block } => {
                format!("{} writes block {block}, an old message", at(replica))
            }
            Step::Equalise { leader: l, block, from } => {
                format!("{} makes block {block} equal, from {}", leader(l), at(from))
            }
            Step::FindEqual { leader: l, block } => {
                format!("{} finds block {block} equal", leader(l))
            }
            Step::Read { leader: l, block, from } => {
                format!("{} reads block {block} from {}", leader(l), at(from))
            }
            Step::Allow { leader: l, block } => {
                format!("{} looks at its leases to read block {block}", leader(l))
            }
            Step::Fetch { leader: l, block, from } => {
                format!("{} fetches block {block} from {}", leader(l), at(from))
            }
            Step::Answer => "the read is answered".to_owned(),
            Step::Restart { replica } => format!("{} restarts", at(replica)),
            Step::Unlist { leader: _, replica, block } => {
                format!("{} hears that block {block} is committed", at(replica))
            }
            Step::Watermark { leader: l, replica } => {
                format!(
                    "{} notes that all before the generation of {} is committed",
                    at(replica),
                    leader(l)
                )
            }
            Step::Trust { leader: l, replica } => {
                format!("{} is continuous again, says {}", at(replica), leader(l))
            }
            Step::EndGeneration { leader: l } => format!("{} begins a generation", leader(l)),
            Step::Presume { replica } => format!("{} goes on without {}", leader(1), at(replica)),
            Step::Drop { replica } => format!("MetaDB drops {}", at(replica)),
            Step::Admit => "MetaDB admits the learner".to_owned(),
            Step::Learn => format!("{} hears what MetaDB has", leader(1)),
            Step::Resync { leader: l, replica, from } => {
                format!("{} begins to resync {} from {}", leader(l), at(replica), at(from))
            }
            Step::Copy { leader: l, block, from } => {
                format!("{} sends the learner block {block} of {}", leader(l), at(from))
            }
            Step::FindCopied { leader: l, block } => {
                format!("{} finds block {block} equal at the learner", leader(l))
            }
            Step::Abandon { leader: l } => format!("{} gives up its learner", leader(l)),
            Step::Ask => format!("{} asks MetaDB to admit the learner", leader(1)),
        }
    }
}
