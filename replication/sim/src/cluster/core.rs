//! MetaDB and the coordination service, as one machine that never fails: both are replicated
//! systems of their own. What can go wrong is on the way to them, and in who asks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use afs_decisions::{Step, VolumeConfig, check_step};
use afs_env::Clock;
use uuid::Uuid;

use super::{CORE, Cluster};
use crate::faults::CommitMoment;
use crate::net::Address;

/// A session that is not renewed for this long is over.
const SESSION: Duration = Duration::from_millis(2_000);

/// What a conductor asks MetaDB.
#[derive(Clone, Debug)]
pub(super) enum Query {
    /// The next fencing token: from now on no other conductor can commit.
    TakeToken,
    /// All configurations.
    Load,
    /// The new configuration of a volume, if the one there has the epoch that it is based on, and the
    /// token is the last.
    Commit { token: u64, based_on: u64, next: Box<VolumeConfig>, step: Step },
}

/// What MetaDB says.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// A token.
    Token(u64),
    /// Configurations.
    Configs(Vec<VolumeConfig>),
    /// Done.
    Committed,
    /// Somebody else has a later token.
    Fenced,
    /// Another epoch is there.
    Conflict,
}

/// A life sign: whose process.
#[derive(Clone, Copy, Debug)]
pub(super) struct LifeSign {
    /// A conductor that would be the active one.
    pub candidate: bool,
}

/// What the coordination service says to a life sign.
#[derive(Clone, Debug)]
pub(super) struct Lives {
    /// The nodes and conductors whose sessions live.
    pub alive: Vec<Address>,
    /// Who asks is the active conductor.
    pub active: bool,
}

#[derive(Default)]
struct State {
    token: u64,
    configs: BTreeMap<Uuid, VolumeConfig>,
    sessions: BTreeMap<Address, u64>,
    active: Option<Address>,
    /// Believed dead until then.
    slandered: BTreeMap<Address, u64>,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Core {
    state: RefCell<State>,
    /// Everybody who asks to be is the active conductor, until then.
    pub both_active_until: Cell<u64>,
    /// Of a hundred answers so many are lost, and each takes so long, until then.
    pub sick: Cell<(u8, Duration, u64)>,
    /// What happens to the conductor that commits next.
    pub kill_at_commit: Cell<Option<CommitMoment>>,
    pub commits: Cell<u64>,
    /// How often a leader was to be elected, or a replica was dropped.
    pub replacements: Cell<u64>,
}

impl Core {
    /// The configuration of a volume now.
    pub fn config(&self, volume: Uuid) -> Option<VolumeConfig> {
        self.state.borrow().configs.get(&volume).cloned()
    }

    /// All configurations now.
    pub fn configs(&self) -> Vec<VolumeConfig> {
        self.state.borrow().configs.values().cloned().collect()
    }

    /// Puts in the first configuration of a volume.
    pub fn create(&self, config: VolumeConfig) {
        self.state.borrow_mut().configs.insert(config.volume, config);
    }

    /// A leader was elected, or a replica dropped.
    pub fn count_replacement(&self) {
        self.replacements.set(self.replacements.get() + 1);
    }

    /// A node counts as dead until `until`, whatever it says.
    pub fn slander(&self, node: Address, until: u64) {
        self.state.borrow_mut().slandered.insert(node, until);
    }

    /// Everything that is wrong with it is over.
    pub fn heal(&self) {
        self.state.borrow_mut().slandered.clear();
        self.both_active_until.set(0);
        self.sick.set((0, Duration::ZERO, 0));
        self.kill_at_commit.set(None);
    }

    fn live(&self, from: Address, sign: LifeSign, now: u64) -> Lives {
        let state = &mut *self.state.borrow_mut();
        state.sessions.insert(from, now);
        let session = u64::try_from(SESSION.as_nanos()).unwrap_or(u64::MAX);
        let lives = |state: &State, who: Address| {
            let slandered = state.slandered.get(&who).is_some_and(|until| *until > now);
            let sign = state.sessions.get(&who);
            !slandered && sign.is_some_and(|sign| now.saturating_sub(*sign) < session)
        };
        if sign.candidate && !state.active.is_some_and(|active| lives(state, active)) {
            state.active = Some(from);
        }
        let alive = state.sessions.keys().copied().filter(|who| lives(state, *who)).collect();
        let both = self.both_active_until.get() > now;
        Lives { alive, active: sign.candidate && (both || state.active == Some(from)) }
    }

    fn answer(&self, cluster: &Cluster, from: Address, query: Query) -> Found {
        match query {
            Query::TakeToken => {
                let state = &mut *self.state.borrow_mut();
                state.token += 1;
                Found::Token(state.token)
            }
            Query::Load => Found::Configs(self.configs()),
            Query::Commit { token, based_on, next, step } => {
                let kill = self.kill_at_commit.take();
                if kill == Some(CommitMoment::Before) {
                    cluster.kill_conductor_at(from);
                    return Found::Conflict;
                }
                if token != self.state.borrow().token {
                    return Found::Fenced;
                }
                let found = self.commit(cluster, based_on, *next, step);
                if kill == Some(CommitMoment::After) {
                    cluster.kill_conductor_at(from);
                }
                found
            }
        }
    }

    fn commit(&self, cluster: &Cluster, based_on: u64, next: VolumeConfig, step: Step) -> Found {
        let state = &mut *self.state.borrow_mut();
        let Some(before) = state.configs.get(&next.volume).filter(|old| old.epoch == based_on)
        else {
            return Found::Conflict;
        };
        if let Err(broken) = check_step(before, &next, step) {
            cluster.violation(format!("a decision broke a rule: {broken}: {before:?} -> {next:?}"));
        }
        cluster.trace(|| {
            let sets: Vec<Vec<_>> =
                next.shards.iter().map(|s| s.in_sync().map(|m| m.node.0).collect()).collect();
            format!(
                "epoch {} of {}: leader {:?}/{:x} reign {} in sync {sets:?}",
                next.epoch,
                short(next.volume),
                next.leader.map(|node| node.0),
                next.leader_process & 0xffff,
                next.reign
            )
        });
        self.commits.set(self.commits.get() + 1);
        state.configs.insert(next.volume, next);
        Found::Committed
    }
}

/// The last digits of an identity.
pub(super) fn short(id: Uuid) -> String {
    let text = id.simple().to_string();
    text.get(text.len().saturating_sub(3)..).unwrap_or_default().to_owned()
}

/// Starts the services.
pub(super) fn start(cluster: &Cluster) {
    let process = cluster.sim().process();
    cluster.net().attach(CORE, &process);
    let world = cluster.clone();
    cluster.net().serve(CORE, "lives", move |from, sign: LifeSign| {
        let now = world.sim().clock().now();
        std::future::ready(world.core().live(from, sign, now))
    });
    let world = cluster.clone();
    cluster.net().serve(CORE, "database", move |from, query: Query| {
        let world = world.clone();
        async move {
            let clock = world.sim().clock().clone();
            let (lost, delay, until) = world.core().sick.get();
            let sick = until > clock.now();
            if sick {
                clock.sleep(delay).await;
            }
            let found = world.core().answer(&world, from, query);
            if sick && world.random().chance(lost as usize) {
                std::future::pending::<()>().await;
            }
            found
        }
    });
}

/// A handle to it.
pub(super) type SharedCore = Rc<Core>;
