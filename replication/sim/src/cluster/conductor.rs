//! A conductor: the real decision functions around a database that it reaches over the network.
//! Two processes; the one that the coordination service calls active decides, and what it commits
//! carries its fencing token.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use afs_decisions::{
    Asker, Claim, ClusterView, Denied, NodeId, Step, VolumeConfig, admit, claim, drop_member,
    elect, move_leader, needs_election, renew,
};
use afs_env::Clock;
use futures_util::future::{Either, select};
use uuid::Uuid;

use super::core::{Found, LifeSign, Lives, Query};
use super::{CORE, Cluster, node_of};
use crate::clock::MachineClock;
use crate::executor::Process;
use crate::net::Address;

/// What a leader asks.
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// A new epoch for a leader that starts.
    Claim { volume: Uuid, node: NodeId, process: u64 },
    /// A new epoch with the same replicas.
    Renew { volume: Uuid, asker: Asker },
    /// Take a replica out of the in-sync set.
    Accuse { volume: Uuid, asker: Asker, shard: u32, replica: Uuid, unheard: Vec<NodeId> },
    /// Take one in.
    Admit { volume: Uuid, asker: Asker, shard: u32, replica: Uuid },
}

/// What it is told: the newest configuration, and whether it got what it wanted. `None`: ask the
/// other conductor, or later.
pub(super) type Reply = Option<(VolumeConfig, bool)>;

/// How often sessions are renewed and volumes looked at.
const PERIOD: Duration = Duration::from_millis(400);
/// Longer than this nobody waits for the database.
const DATABASE: Duration = Duration::from_millis(3_000);
/// A conductor that did not hear for this long that it is the active one is not.
const BELIEF: Duration = Duration::from_millis(1_500);

struct Inner {
    cluster: Cluster,
    address: Address,
    process: Process,
    clock: MachineClock,
    token: Cell<u64>,
    /// It is active until then, on its clock.
    active_until: Cell<u64>,
    view: RefCell<ClusterView>,
    configs: RefCell<BTreeMap<Uuid, VolumeConfig>>,
}

#[derive(Clone)]
struct Conductor(Rc<Inner>);

/// Starts a conductor.
pub(super) fn start(cluster: &Cluster, address: Address) -> Process {
    let process = cluster.sim().process();
    cluster.net().attach(address, &process);
    let conductor = Conductor(Rc::new(Inner {
        cluster: cluster.clone(),
        address,
        process: process.clone(),
        clock: cluster.clock_of(address),
        token: Cell::new(0),
        active_until: Cell::new(0),
        view: RefCell::new(ClusterView::new(0)),
        configs: RefCell::default(),
    }));
    let served = conductor.clone();
    cluster.net().serve(address, "control", move |_, request: Request| {
        let conductor = served.clone();
        async move { conductor.decide(request).await }
    });
    let served = conductor.clone();
    cluster.net().serve(address, "configs", move |_, ()| {
        let known: Vec<VolumeConfig> = served.0.configs.borrow().values().cloned().collect();
        std::future::ready(if served.is_active() { known } else { Vec::new() })
    });
    process.spawn(async move { conductor.run().await });
    process
}

impl Conductor {
    fn is_active(&self) -> bool {
        self.0.token.get() > 0 && self.0.clock.now() < self.0.active_until.get()
    }

    async fn run(&self) {
        loop {
            let before = self.0.clock.now();
            let lives = self.within(PERIOD, self.call("lives", LifeSign { candidate: true })).await;
            match lives {
                Some(Lives { alive, active }) => self.learn(&alive, active, before).await,
                None if !self.is_active() => self.0.token.set(0),
                None => {}
            }
            if self.is_active() {
                self.elections().await;
                self.moves().await;
            }
            self.0.clock.sleep(PERIOD / 2).await;
        }
    }

    async fn call<Q: Clone + 'static, A: 'static>(&self, service: &str, request: Q) -> Option<A> {
        self.0.cluster.net().call(self.0.address, CORE, service, request).await.ok()
    }

    async fn within<T>(
        &self,
        time: Duration,
        future: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        let (future, pause) = (std::pin::pin!(future), std::pin::pin!(self.0.clock.sleep(time)));
        match select(future, pause).await {
            Either::Left((value, _)) => value,
            Either::Right(_) => None,
        }
    }

    async fn query(&self, query: Query) -> Option<Found> {
        self.within(DATABASE, self.call("database", query)).await
    }

    async fn learn(&self, alive: &[Address], active: bool, asked: u64) {
        {
            let mut view = self.0.view.borrow_mut();
            view.set_now_ms(self.0.clock.now() / 1_000_000);
            for machine in 0..self.0.cluster.machines() {
                let node = node_of(machine);
                view.set_alive(node, alive.contains(&Address(node.0)));
            }
        }
        if !active {
            self.0.active_until.set(0);
            self.0.token.set(0);
            return;
        }
        if self.0.token.get() == 0 {
            if let Some(Found::Token(token)) = self.query(Query::TakeToken).await {
                self.0.token.set(token);
                self.0.cluster.trace(|| format!("{:?} is active, token {token}", self.0.address));
            }
            self.0.configs.borrow_mut().clear();
        }
        let belief = u64::try_from(BELIEF.as_nanos()).unwrap_or(u64::MAX);
        self.0.active_until.set(asked.saturating_add(belief));
        if self.0.configs.borrow().is_empty() {
            self.load().await;
        }
    }

    async fn load(&self) -> Option<()> {
        let Some(Found::Configs(configs)) = self.query(Query::Load).await else { return None };
        let mut known = self.0.configs.borrow_mut();
        for config in configs {
            let newer = known.get(&config.volume).is_none_or(|old| old.epoch < config.epoch);
            if newer {
                known.insert(config.volume, config);
            }
        }
        Some(())
    }

    fn config(&self, volume: Uuid) -> Option<VolumeConfig> {
        self.0.configs.borrow().get(&volume).cloned()
    }

    /// Commits; what came of it is found out by reading, also if the answer was lost.
    async fn commit(&self, based_on: u64, next: VolumeConfig, step: Step) -> Option<()> {
        let token = self.0.token.get();
        let query = Query::Commit { token, based_on, next: Box::new(next.clone()), step };
        match self.query(query).await {
            Some(Found::Committed) => {
                self.0.configs.borrow_mut().insert(next.volume, next);
                self.announce();
                Some(())
            }
            Some(Found::Fenced) => {
                self.0.token.set(0);
                None
            }
            _ => self.load().await,
        }
    }

    /// Tells the nodes at once; they also ask from time to time.
    fn announce(&self) {
        let configs: Vec<VolumeConfig> = self.0.configs.borrow().values().cloned().collect();
        for machine in 0..self.0.cluster.machines() {
            let (conductor, configs) = (self.clone(), configs.clone());
            self.0.process.spawn(async move {
                let to = Address(node_of(machine).0);
                let inner = &conductor.0;
                let call = inner.cluster.net().call(inner.address, to, "news", configs);
                let call = async { call.await.ok() };
                let _: Option<()> = conductor.within(PERIOD * 4, call).await;
            });
        }
    }

    async fn elections(&self) {
        let volumes: Vec<Uuid> = self.0.configs.borrow().keys().copied().collect();
        for volume in volumes {
            let Some(config) = self.config(volume) else { continue };
            let elected = {
                let view = self.0.view.borrow();
                needs_election(&config, &view).and_then(|_| elect(&config, &view).ok())
            };
            if let Some(elected) = elected {
                self.0.cluster.core().count_replacement();
                self.commit(config.epoch, elected, Step::Other).await;
            }
        }
    }

    async fn moves(&self) {
        let Some((volume, to)) = self.0.cluster.take_move() else { return };
        let Some(config) = self.config(volume) else { return };
        let moved = move_leader(&config, to, &self.0.view.borrow());
        if let Ok(moved) = moved {
            self.commit(config.epoch, moved, Step::Other).await;
        }
    }

    async fn decide(&self, request: Request) -> Reply {
        if !self.is_active() {
            return None;
        }
        let (Request::Claim { volume, .. }
        | Request::Renew { volume, .. }
        | Request::Accuse { volume, .. }
        | Request::Admit { volume, .. }) = request;
        let config = self.config(volume)?;
        let (decided, step) = self.decision(&config, &request);
        match decided {
            Ok(Some(next)) => {
                self.commit(config.epoch, next.clone(), step).await?;
                // Another decision may have come first.
                let now = self.config(volume)?;
                let granted = now == next;
                if granted && matches!(request, Request::Accuse { .. }) {
                    self.0.cluster.core().count_replacement();
                }
                Some((now, granted))
            }
            Ok(None) => {
                self.load().await?;
                let now = self.config(volume)?;
                (now.epoch == config.epoch).then_some((now, true))
            }
            Err(why) => {
                self.0.cluster.trace(|| format!("denied ({why}): {request:?}"));
                // What it knows may be old: then it says nothing that somebody could build on.
                let known = config.epoch;
                self.load().await?;
                let now = self.config(volume)?;
                (now.epoch == known).then_some((now, false))
            }
        }
    }

    /// The next configuration, or none if the present one is what is asked for.
    fn decision(
        &self,
        config: &VolumeConfig,
        request: &Request,
    ) -> (Result<Option<VolumeConfig>, Denied>, Step) {
        let mut view = self.0.view.borrow_mut();
        match *request {
            Request::Claim { node, process, .. } => {
                let claimed = claim(config, node, process).map(|claim| match claim {
                    Claim::New(next) => Some(next),
                    Claim::AlreadyYours => None,
                });
                (claimed, Step::Other)
            }
            Request::Renew { asker, .. } => (renew(config, asker).map(Some), Step::Other),
            Request::Accuse { asker, shard, replica, ref unheard, .. } => {
                unheard.iter().for_each(|node| view.add_unreachable(asker.node, *node));
                let accused = config.members().find(|(_, member)| member.replica == replica);
                if let Some((_, member)) = accused {
                    view.add_unreachable(asker.node, member.node);
                }
                (drop_member(config, asker, shard, replica, &view).map(Some), Step::Other)
            }
            Request::Admit { asker, shard, replica, .. } => {
                (admit(config, asker, shard, replica).map(Some), Step::Admit)
            }
        }
    }
}
