//! What each fault does to the cluster, and how everything is made whole again.

use std::time::Duration;

use afs_env::Clock;

use super::{CONDUCTORS, CORE, Cluster, host_address, node_of};
use crate::disk::Loss;
use crate::faults::{CommitMoment, Fault};
use crate::net::{Address, Cut, PathState};

impl Cluster {
    /// Every address that the network can fail between.
    pub(super) fn places(&self) -> Vec<Address> {
        let nodes = (0..self.machines()).map(|machine| Address(node_of(machine).0));
        let hosts = (0..self.setup().hosts.len()).map(host_address);
        nodes.chain(CONDUCTORS).chain([CORE]).chain(hosts).collect()
    }

    fn place(&self, index: usize) -> Address {
        self.places().get(index).copied().unwrap_or(CORE)
    }

    fn later(&self, time: Duration, action: impl FnOnce(&Cluster) + 'static) {
        let cluster = self.clone();
        self.sim().clock().after(time, move || action(&cluster));
    }

    fn until(&self, time: Duration) -> u64 {
        self.sim().clock().now() + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Lets a fault happen.
    pub(super) fn inject(&self, fault: &Fault) {
        // A shard need not bear the loss of what it cannot spare.
        if matches!(fault, Fault::LoseRecord { .. }) && !self.at_rest() {
            return;
        }
        self.trace(|| format!("fault: {fault:?}"));
        self.count_fault(fault);
        match *fault {
            Fault::Kill { machine, down } => self.kill(machine, down),
            Fault::PowerCut { machine, loss, down } => self.cut_power(machine, loss, down),
            Fault::Blackout { loss, down } => {
                for machine in 0..self.machines() {
                    self.cut_power(machine, loss, down);
                }
            }
            Fault::Stop { machine, time } => self.stop(machine, time),
            Fault::Partition { side, cut, time } => self.partition(side, cut, time),
            Fault::OneWay { from, to, cut, time } => {
                let path = PathState { cut: Some(cut), ..PathState::default() };
                self.spoil(self.place(from), self.place(to), path, time);
            }
            Fault::SlowPath { from, to, delay, time } => {
                let path = PathState { delay_max: delay, ..PathState::default() };
                self.spoil(self.place(from), self.place(to), path, time);
            }
            Fault::LatePath { from, to, late, late_max, time } => {
                let path = PathState { late, late_max, ..PathState::default() };
                self.spoil(self.place(from), self.place(to), path, time);
            }
            Fault::Reset { one, two } => self.net().reset(self.place(one), self.place(two)),
            Fault::SlowDisk { machine, times, time } => {
                self.disk(machine).slow_down(times);
                self.later(time, move |cluster| cluster.disk(machine).slow_down(1));
            }
            Fault::WriteErrors { machine, count } => {
                self.disk(machine).fail_writes_at(0, u64::MAX, count);
            }
            Fault::ReadErrors { machine, part, time } => {
                let disk = self.disk(machine);
                let at = disk.config().size / 256 * u64::from(part);
                disk.fail_reads(at, 64 << 10);
                self.later(time, move |cluster| cluster.disk(machine).heal_reads());
            }
            Fault::DiskGone { machine, time } => {
                self.disk(machine).die();
                self.later(time, move |cluster| cluster.disk(machine).revive());
            }
            Fault::KillConductor { moment: CommitMoment::Now, down } => {
                let which = self.random().below(CONDUCTORS.len());
                self.kill_conductor(which, down);
            }
            Fault::KillConductor { moment, .. } => self.core().kill_at_commit.set(Some(moment)),
            Fault::TwoConductors { time } => {
                self.core().both_active_until.set(self.until(time));
            }
            Fault::SickDatabase { lost, delay, time } => {
                self.core().sick.set((lost, delay, self.until(time)));
            }
            Fault::FalseDeath { machine, time } => {
                self.core().slander(Address(node_of(machine).0), self.until(time));
            }
            Fault::MoveLeader { to } => {
                let volumes = self.volumes();
                let volume = volumes.get(self.random().below(volumes.len()));
                self.ask_move(volume.map(|volume| (volume.id, node_of(to))));
            }
            Fault::LoseRecord { machine, down } => {
                self.lose_record(machine);
                self.kill(machine, down);
            }
            Fault::Isolate { machine, cut, heard, time } => {
                let own = self.place(machine);
                let hosts = self.setup().hosts.len();
                let places = self.places();
                let (others, _) = places.split_at(places.len() - hosts);
                for other in others.iter().filter(|other| **other != own) {
                    let path = PathState { cut: Some(cut), ..PathState::default() };
                    self.spoil(own, *other, path, time);
                    self.spoil(*other, own, path, time);
                }
                let until = self.until(time);
                self.later(heard, move |cluster| cluster.core().slander(own, until));
            }
            Fault::KillHost { host } => self.restart_host(host % self.setup().hosts.len().max(1)),
        }
    }

    fn kill(&self, machine: usize, down: Duration) {
        let Some(process) = self.process_of(machine) else { return };
        process.kill();
        self.disk(machine).user_killed(self.random());
        self.start_later(machine, down);
    }

    fn cut_power(&self, machine: usize, loss: Loss, down: Duration) {
        self.net().power_off(Address(node_of(machine).0));
        if let Some(process) = self.process_of(machine) {
            process.kill();
        }
        self.disk(machine).cut_power(loss, self.random());
        self.start_later(machine, down);
    }

    fn start_later(&self, machine: usize, down: Duration) {
        self.later(down, move |cluster| cluster.start_machine(machine));
    }

    /// The node's process ends because its disk does not work, and is started again.
    pub(super) fn disk_stopped(&self, machine: usize) {
        self.later(Duration::from_millis(1), move |cluster| {
            cluster.kill(machine, Duration::from_secs(1));
        });
    }

    fn stop(&self, machine: usize, time: Duration) {
        let Some(process) = self.process_of(machine) else { return };
        process.stop();
        self.later(time, move |_| process.resume());
    }

    fn partition(&self, side: u64, cut: Cut, time: Duration) {
        // Conductors, database and hosts are on either side.
        let places = self.places();
        let other: Vec<bool> = (0..places.len())
            .map(|index| match index < self.machines() {
                true => side >> index & 1 == 1,
                false => self.random().chance(50),
            })
            .collect();
        for (from, first) in places.iter().zip(&other) {
            for (to, second) in places.iter().zip(&other) {
                if first != second {
                    let path = PathState { cut: Some(cut), ..PathState::default() };
                    self.spoil(*from, *to, path, time);
                }
            }
        }
    }

    fn spoil(&self, from: Address, to: Address, path: PathState, time: Duration) {
        self.net().set_path(from, to, path);
        self.later(time, move |cluster| {
            cluster.net().set_path(from, to, PathState::default());
        });
    }

    fn kill_conductor(&self, which: usize, down: Duration) {
        if let Some(process) = self.conductor_process(which) {
            process.kill();
        }
        self.later(down, move |cluster| cluster.start_conductor(which));
    }

    /// Kills the conductor at this address, between two events.
    pub(super) fn kill_conductor_at(&self, address: Address) {
        let which = CONDUCTORS.iter().position(|conductor| *conductor == address);
        if let Some(which) = which {
            self.later(Duration::ZERO, move |cluster| {
                cluster.kill_conductor(which, Duration::from_secs(1));
            });
        }
    }

    /// Everything is made whole, and what is down is started.
    pub(super) fn make_whole(&self) {
        self.trace(|| "calm".to_owned());
        self.net().heal();
        self.core().heal();
        for machine in 0..self.machines() {
            self.disk(machine).heal();
            if let Some(process) = self.process_of(machine) {
                process.resume();
            }
            self.start_machine(machine);
        }
        for which in 0..CONDUCTORS.len() {
            self.start_conductor(which);
        }
    }
}
