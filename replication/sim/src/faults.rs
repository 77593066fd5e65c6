//! Faults, drawn at random moments from a seed, and counted. What a fault does is up to the world
//! that it is injected into; here is what can be drawn, how often, and for how long.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::disk::Loss;
use crate::net::Cut;
use crate::random::SimRandom;

/// Something goes wrong. Machines are numbered from 0; paths are between *places*, of which the first
/// are the machines and the others whoever else is in the network. What has a time in it is over after that
/// time; the rest is an event.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields say what they are")]
pub enum Fault {
    /// A process dies (kill -9), and starts again.
    Kill { machine: usize, down: Duration },
    /// A machine loses its power, and what its disk had not made durable.
    PowerCut { machine: usize, loss: Loss, down: Duration },
    /// All machines lose their power at once.
    Blackout { loss: Loss, down: Duration },
    /// A process stands still (SIGSTOP, a frozen virtual machine).
    Stop { machine: usize, time: Duration },
    /// The network falls in two: machines in the bit set, and the others.
    Partition { side: u64, cut: Cut, time: Duration },
    /// Nothing comes from one machine to another; the other direction is whole.
    OneWay { from: usize, to: usize, cut: Cut, time: Duration },
    /// Messages from one machine to another take long.
    SlowPath { from: usize, to: usize, delay: Duration, time: Duration },
    /// Some messages from one machine to another are held for long.
    LatePath { from: usize, to: usize, late: u8, late_max: Duration, time: Duration },
    /// The connections between two machines break.
    Reset { one: usize, two: usize },
    /// A disk is slow.
    SlowDisk { machine: usize, times: u32, time: Duration },
    /// Some writes fail.
    WriteErrors { machine: usize, count: usize },
    /// Some blocks cannot be read.
    ReadErrors { machine: usize, part: u8, time: Duration },
    /// A disk fails wholly, and is there again later with what it held.
    DiskGone { machine: usize, time: Duration },
    /// The active conductor dies, now or at its next commit, and another takes over.
    KillConductor { moment: CommitMoment, down: Duration },
    /// Two conductors believe that they are the active one.
    TwoConductors { time: Duration },
    /// The database is slow, and some of its answers are lost.
    SickDatabase { lost: u8, delay: Duration, time: Duration },
    /// A machine is believed dead that is not.
    FalseDeath { machine: usize, time: Duration },
    /// A volume is told to move its leader.
    MoveLeader { to: usize },
    /// A host dies with what it was doing, and starts again.
    KillHost { host: usize },
    /// A process dies, and its disk has lost the record of a replica when it starts again.
    LoseRecord { machine: usize, down: Duration },
    /// A machine reaches its hosts, but neither its peers nor the conductors, who hear of it soon.
    Isolate { machine: usize, cut: Cut, heard: Duration, time: Duration },
}

/// When a conductor dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMoment {
    /// At once.
    Now,
    /// Before its next commit is carried out.
    Before,
    /// After its next commit, before it learns of that.
    After,
}

impl Fault {
    /// Its kind, as counts name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Kill { .. } => "kill",
            Fault::PowerCut { .. } => "power cut",
            Fault::Blackout { .. } => "blackout",
            Fault::Stop { .. } => "stop",
            Fault::Partition { .. } => "partition",
            Fault::OneWay { .. } => "one-way cut",
            Fault::SlowPath { .. } => "slow path",
            Fault::LatePath { .. } => "late messages",
            Fault::Reset { .. } => "reset",
            Fault::SlowDisk { .. } => "slow disk",
            Fault::WriteErrors { .. } => "write errors",
            Fault::ReadErrors { .. } => "read errors",
            Fault::DiskGone { .. } => "disk gone",
            Fault::KillConductor { .. } => "conductor killed",
            Fault::TwoConductors { .. } => "two conductors",
            Fault::SickDatabase { .. } => "sick database",
            Fault::FalseDeath { .. } => "false death",
            Fault::MoveLeader { .. } => "leader moved",
            Fault::KillHost { .. } => "host killed",
            Fault::Isolate { .. } => "isolated",
            Fault::LoseRecord { .. } => "record lost",
        }
    }
}

/// How many faults of each kind there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts(BTreeMap<&'static str, u64>);

impl FaultCounts {
    /// One more.
    pub fn count(&mut self, fault: &Fault) {
        *self.0.entry(fault.kind()).or_default() += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &FaultCounts) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind).or_default() += count;
        }
    }

    /// Of all kinds.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Of one kind.
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// What a run's faults are like: drawn once, so that some runs have much of one kind and none of
/// another (swarm testing).
#[derive(Clone, Debug)]
pub struct Nemesis {
    random: SimRandom,
    machines: usize,
    places: usize,
    /// Kinds that this run has, with their weights.
    weights: Vec<(Draw, usize)>,
    /// The usual pause between two faults.
    pause: Duration,
    /// How long faults last, at most.
    time_max: Duration,
}

type Draw = fn(&Nemesis) -> Fault;

/// Every kind, with its weight when it is there. Those of weight 0 come only where they are asked for.
const KINDS: [(&str, Draw, usize); 21] = [
    ("kill", Nemesis::kill, 12),
    ("power cut", Nemesis::power_cut, 8),
    ("blackout", Nemesis::blackout, 2),
    ("stop", Nemesis::stop, 8),
    ("partition", Nemesis::partition, 8),
    ("one-way cut", Nemesis::one_way, 8),
    ("slow path", Nemesis::slow_path, 4),
    ("late messages", Nemesis::late_path, 6),
    ("reset", Nemesis::reset, 10),
    ("slow disk", Nemesis::slow_disk, 4),
    ("write errors", Nemesis::write_errors, 2),
    ("read errors", Nemesis::read_errors, 2),
    ("disk gone", Nemesis::disk_gone, 2),
    ("conductor killed", Nemesis::kill_conductor, 6),
    ("two conductors", Nemesis::two_conductors, 2),
    ("sick database", Nemesis::sick_database, 4),
    ("false death", Nemesis::false_death, 4),
    ("leader moved", Nemesis::move_leader, 4),
    ("host killed", Nemesis::kill_host, 3),
    ("isolated", Nemesis::isolate, 6),
    ("record lost", Nemesis::lose_record, 0),
];

impl Nemesis {
    /// Draws what the run is like.
    pub fn new(random: &SimRandom, machines: usize, places: usize) -> Self {
        let all = || KINDS.iter().map(|(_, draw, weight)| (*draw, *weight));
        let mut weights: Vec<_> = all().filter(|_| random.chance(70)).collect();
        if weights.is_empty() {
            weights = all().collect();
        }
        let pauses = [500, 1_500, 4_000, 12_000];
        let times = [1_500, 5_000, 20_000];
        let pick = |list: &[u64]| list.get(random.below(list.len())).copied().unwrap_or(1_000);
        let (pause, time_max) = (pick(&pauses), pick(&times));
        let (pause, time_max) = (Duration::from_millis(pause), Duration::from_millis(time_max));
        Self { random: random.clone(), machines, places, weights, pause, time_max }
    }

    /// Only faults of these kinds, usually one in each `pause`, none longer than `time_max`.
    pub fn only(self, kinds: &[&str], pause: Duration, time_max: Duration) -> Self {
        let wanted = KINDS.iter().filter(|(kind, ..)| kinds.contains(kind));
        let weights = wanted.map(|(_, draw, weight)| (*draw, *weight.max(&4))).collect();
        Self { weights, pause, time_max, ..self }
    }

    /// How long to wait before the next fault: often a little, now and then long enough for
    /// everything to come together again.
    pub fn pause(&self) -> Duration {
        let most = if self.random.chance(10) { self.pause * 10 } else { self.pause * 2 };
        self.below(most)
    }

    /// The next fault.
    pub fn draw(&self) -> Fault {
        let sum = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.below(sum);
        for (draw, weight) in &self.weights {
            if at < *weight {
                return draw(self);
            }
            at -= weight;
        }
        self.reset()
    }

    fn below(&self, most: Duration) -> Duration {
        let most = usize::try_from(most.as_nanos()).unwrap_or(usize::MAX);
        Duration::from_nanos(self.random.below(most) as u64)
    }

    fn time(&self) -> Duration {
        self.below(self.time_max)
    }

    fn machine(&self) -> usize {
        self.random.below(self.machines)
    }

    /// Two places that differ, mostly machines.
    fn pair(&self) -> (usize, usize) {
        let among = if self.random.chance(70) { self.machines } else { self.places }.max(1);
        let one = self.random.below(among);
        let step = 1 + self.random.below(among.saturating_sub(1));
        (one, (one + step) % among)
    }

    fn loss(&self) -> Loss {
        Loss::ALL.get(self.random.below(Loss::ALL.len())).copied().unwrap_or(Loss::All)
    }

    fn cut(&self) -> Cut {
        let kept = [0, 30, 100];
        Cut { kept: kept.get(self.random.below(kept.len())).copied().unwrap_or(0) }
    }

    fn kill(&self) -> Fault {
        Fault::Kill { machine: self.machine(), down: self.time() }
    }

    fn power_cut(&self) -> Fault {
        Fault::PowerCut { machine: self.machine(), loss: self.loss(), down: self.time() }
    }

    fn blackout(&self) -> Fault {
        Fault::Blackout { loss: self.loss(), down: self.time() }
    }

    fn stop(&self) -> Fault {
        Fault::Stop { machine: self.machine(), time: self.time() }
    }

    fn partition(&self) -> Fault {
        let all = (1_usize << self.machines.min(60)) - 1;
        // Often one machine alone.
        let side = if self.random.chance(50) {
            1 << self.machine()
        } else {
            1 + self.random.below(all.saturating_sub(1))
        };
        Fault::Partition { side: side as u64, cut: self.cut(), time: self.time() }
    }

    fn one_way(&self) -> Fault {
        let (from, to) = self.pair();
        Fault::OneWay { from, to, cut: self.cut(), time: self.time() }
    }

    fn slow_path(&self) -> Fault {
        let (from, to) = self.pair();
        let delay = self.below(Duration::from_millis(400));
        Fault::SlowPath { from, to, delay, time: self.time() }
    }

    fn late_path(&self) -> Fault {
        let (from, to) = self.pair();
        let late = u8::try_from(1 + self.random.below(40)).unwrap_or(1);
        let late_max = self.below(Duration::from_secs(8));
        Fault::LatePath { from, to, late, late_max, time: self.time() }
    }

    fn reset(&self) -> Fault {
        let (one, two) = self.pair();
        Fault::Reset { one, two }
    }

    fn slow_disk(&self) -> Fault {
        let times = [10, 100, 1_000, 10_000];
        let times = times.get(self.random.below(times.len())).copied().unwrap_or(10);
        Fault::SlowDisk { machine: self.machine(), times, time: self.time() }
    }

    fn write_errors(&self) -> Fault {
        Fault::WriteErrors { machine: self.machine(), count: 1 + self.random.below(3) }
    }

    fn read_errors(&self) -> Fault {
        let part = u8::try_from(self.random.below(256)).unwrap_or(0);
        Fault::ReadErrors { machine: self.machine(), part, time: self.time() }
    }

    fn disk_gone(&self) -> Fault {
        Fault::DiskGone { machine: self.machine(), time: self.time() }
    }

    fn kill_conductor(&self) -> Fault {
        let moments = [CommitMoment::Now, CommitMoment::Before, CommitMoment::After];
        let moment = moments.get(self.random.below(3)).copied().unwrap_or(CommitMoment::Now);
        Fault::KillConductor { moment, down: self.time() }
    }

    fn two_conductors(&self) -> Fault {
        Fault::TwoConductors { time: self.time() }
    }

    fn sick_database(&self) -> Fault {
        let lost = u8::try_from(self.random.below(60)).unwrap_or(0);
        let delay = self.below(Duration::from_secs(2));
        Fault::SickDatabase { lost, delay, time: self.time() }
    }

    fn false_death(&self) -> Fault {
        Fault::FalseDeath { machine: self.machine(), time: self.time() }
    }

    fn kill_host(&self) -> Fault {
        Fault::KillHost { host: self.random.below(64) }
    }

    fn isolate(&self) -> Fault {
        let heard = self.below(Duration::from_millis(200));
        Fault::Isolate { machine: self.machine(), cut: self.cut(), heard, time: self.time() }
    }

    fn lose_record(&self) -> Fault {
        let down = self.below(self.time_max / 4);
        Fault::LoseRecord { machine: self.machine(), down }
    }

    fn move_leader(&self) -> Fault {
        Fault::MoveLeader { to: self.machine() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_faults_and_every_kind_comes() {
        let mut counts = FaultCounts::default();
        for seed in 0..30 {
            let draw = || {
                let nemesis = Nemesis::new(&SimRandom::new(seed), 4, 8);
                (0..200).map(|_| nemesis.draw()).collect::<Vec<_>>()
            };
            let faults = draw();
            assert_eq!(faults, draw());
            faults.iter().for_each(|fault| counts.count(fault));
            for fault in faults {
                if let Fault::OneWay { from, to, .. } = fault {
                    assert!(from != to && from < 8 && to < 8);
                }
                if let Fault::Partition { side, .. } = fault {
                    assert!(side > 0 && side < 15, "both sides have a machine");
                }
            }
        }
        assert_eq!(counts.total(), 6_000);
        let usual = KINDS.iter().filter(|(.., weight)| *weight > 0);
        assert_eq!(counts.0.len(), usual.count(), "{counts}");
    }
}
