//! What all nodes should be doing, kept in memory.
//!
//! It is read from MetaDB once; after that it follows the [`News`] of decisions: volumes one by one, everything else, of which
//! there is little, by reading that again. Only one conductor decides, so nothing changes that it does not know of; when it cannot
//! be sure (an answer to COMMIT was lost, MetaDB was replaced by an older copy), it reads everything again.
//!
//! Each section of a node's state remembers the revision in which it changed last. So nodes learn only what is new to them, and at
//! once only when something is.

mod commons;
mod volumes;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use afs_decisions::{Asker, ClusterView, NodeId, VolumeConfig, needs_election};
use tokio::sync::RwLockReadGuard;
use uuid::Uuid;

use super::backend::Transaction;
use super::decision::{Base, Published};
use super::news::{News, Touched};
use super::numbers::narrow;
use super::rows::{NodeRow, Snapshot};
use super::{DbError, MetaDb};
pub(super) use commons::{Commons, Exported, Own};
use volumes::{Effect, Volumes};

/// Views that are tried before a turn is taken, and the pause between them.
const VIEWS_MAX: u32 = 20;
const VIEW_PAUSE: Duration = Duration::from_millis(2);

/// The plan, and whether what is not about volumes has changed since.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    plan: Option<Plan>,
    commons_changed: bool,
}

impl Keeper {
    /// The plan, if it is as MetaDB is now; its volumes at least.
    fn current(&self, published: &Published, whole: bool) -> Option<&Plan> {
        let last_event = *published.last_event.borrow();
        let follows =
            published.news.lock().are_none(last_event) && !(whole && self.commons_changed);
        self.plan.as_ref().filter(|_| follows)
    }

    /// Brings the volumes up to date, or forgets the plan when that cannot be done.
    fn follow(&mut self, news: News) {
        let News { touched, commons, incomplete, revision, .. } = news;
        self.commons_changed |= commons;
        match &mut self.plan {
            Some(plan) if !incomplete => plan.follow(&touched, revision),
            plan => *plan = None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) revision: u64,
    pub(super) commons: Commons,
    pub(super) volumes: Volumes,
}

/// What a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The revision of its state.
    pub revision: u64,
    /// Who told it; only the same one knows what has changed since.
    pub source: Option<Uuid>,
}

/// What a new revision is to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// There is none.
    Nothing,
    /// It changes nothing there.
    Number,
    /// The number is the same, but somebody else told the node. What that was may be lost: after MetaDB was replaced by an older
    /// copy a number is given twice, should only nodes that did not know of it have been heard.
    Source,
    /// It changes what the node should be doing, or the node is not known.
    Duties,
}

impl MetaDb {
    /// What there is to tell a node that knows this.
    pub async fn concern(&self, node: &str, known: Known) -> Result<Concern, DbError> {
        let plan = self.plan().await?;
        let Some((_, own)) = plan.commons.node(node) else { return Ok(Concern::Duties) };
        Ok(match known.revision {
            revision if revision == plan.revision => match known.source {
                Some(source) if source != self.source => Concern::Source,
                _ => Concern::Nothing,
            },
            revision if revision > plan.revision || plan.changed(own) > revision => Concern::Duties,
            _ => Concern::Number,
        })
    }

    /// The revision that each of these nodes has to reach for this one to be in effect there. One for which nothing changed since an
    /// earlier one need not reach a later one.
    pub async fn needed(
        &self,
        nodes: &BTreeSet<String>,
        revision: u64,
    ) -> Result<HashMap<String, u64>, DbError> {
        let plan = self.plan().await?;
        let needed = |node: &String| {
            let (_, own) = plan.commons.node(node)?;
            Some((node.clone(), plan.changed(own).min(revision)))
        };
        Ok(nodes.iter().filter_map(needed).collect())
    }

    /// Everything at one moment.
    pub async fn snapshot(&self) -> Result<Snapshot, DbError> {
        // Operators must not read in an old plan of a conductor that was replaced either.
        self.checked_since(Instant::now()).await?;
        let plan = self.plan().await?;
        Ok(plan.snapshot())
    }

    /// The nodes of the cluster, by name.
    pub async fn nodes(&self) -> Result<Arc<[NodeRow]>, DbError> {
        Ok(self.plan().await?.commons.rows.clone())
    }

    /// How many volumes each node leads, and how many replicas it holds.
    pub async fn loads(&self) -> Result<HashMap<NodeId, (u32, u32)>, DbError> {
        Ok(self.volumes().await?.volumes.loads())
    }

    /// Whether `asker` leads a volume, in its newest epoch.
    pub async fn leads(&self, volume: Uuid, asker: Asker) -> Result<bool, DbError> {
        let plan = self.volumes().await?;
        let Asker { node, process, epoch } = asker;
        let config = plan.volumes.config(volume);
        Ok(config.is_some_and(|config| config.is_led_by(node, process, epoch)))
    }

    /// The node that holds a replica.
    pub async fn node_of_replica(
        &self,
        volume: Uuid,
        replica: Uuid,
    ) -> Result<Option<NodeId>, DbError> {
        let plan = self.volumes().await?;
        let mut members = plan.volumes.config(volume).into_iter().flat_map(VolumeConfig::members);
        Ok(members.find(|(_, it)| it.replica == replica).map(|(_, member)| member.node))
    }

    /// Volumes that need another leader: of those that these nodes led, and those whose leader is
    /// one end of such a link while a replica is at the other.
    pub async fn need_leader(
        &self,
        dead: &[NodeId],
        links: &BTreeSet<(NodeId, NodeId)>,
        view: &ClusterView,
    ) -> Result<Vec<Uuid>, DbError> {
        let plan = self.volumes().await?;
        let mut needy = BTreeSet::new();
        for node in dead {
            needy.extend(plan.volumes.led_by(*node).map(|config| config.volume));
        }
        for same in links.iter().collect::<Vec<_>>().chunk_by(|a, b| a.0 == b.0) {
            let Some((leader, _)) = same.first() else { continue };
            let behind = |config: &&VolumeConfig| {
                config.members().any(|(_, it)| same.iter().any(|(_, holder)| *holder == it.node))
            };
            needy.extend(plan.volumes.led_by(*leader).filter(behind).map(|it| it.volume));
        }
        needy.retain(|volume| {
            let config = plan.volumes.config(*volume);
            config.is_some_and(|config| needs_election(config, view).is_some())
        });
        Ok(needy.into_iter().collect())
    }

    /// The plan as of now.
    ///
    /// It may wait for a turn, so nobody asks for it within a decision.
    pub(super) async fn plan(&self) -> Result<RwLockReadGuard<'_, Plan>, DbError> {
        self.current(true).await
    }

    /// The same, with volumes as of now and everything else as it was lately, which costs no look at MetaDB.
    async fn volumes(&self) -> Result<RwLockReadGuard<'_, Plan>, DbError> {
        self.current(false).await
    }

    async fn current(&self, whole: bool) -> Result<RwLockReadGuard<'_, Plan>, DbError> {
        let published = &self.maker.published;
        published.refuse_if_fenced()?;
        let known = self.plan.read().await;
        if let Ok(plan) = RwLockReadGuard::try_map(known, |it| it.current(published, whole)) {
            return Ok(plan);
        }
        let mut keeper = self.plan.write().await;
        let last_event = *published.last_event.borrow();
        let news = published.news.lock().take_through(last_event);
        let complete = news.map(|news| keeper.follow(news)).is_some();
        if !complete || keeper.plan.is_none() || (whole && keeper.commons_changed) {
            let (mut view, base, news) = self.view_with_news().await?;
            keeper.follow(news);
            let Keeper { plan, commons_changed } = &mut *keeper;
            match plan {
                Some(plan) if *commons_changed => plan.refresh(&mut view).await?,
                Some(_) => {}
                None => {
                    let revision = narrow(base.revision, "revision")?;
                    *plan = Some(Plan::read(&mut view, revision).await?);
                }
            }
            *commons_changed = false;
        }
        let plan = RwLockReadGuard::try_map(keeper.downgrade(), |keeper| keeper.plan.as_ref());
        plan.map_err(|_| DbError::Interrupted)
    }

    /// A view, and the news up to the same moment. Decisions seldom come in between; when they always do, or one is missing, this
    /// takes a turn of its own, with which it is sure that nothing comes any more.
    async fn view_with_news(&self) -> Result<(Transaction, Base, News), DbError> {
        let news = &self.maker.published.news;
        for _ in 0..VIEWS_MAX {
            let mut view = self.read().await?;
            let base = Base::read(&mut view).await?;
            let taken = news.lock().take_through(narrow(base.last_event, "event id")?);
            if let Some(taken) = taken {
                return Ok((view, base, taken));
            }
            tokio::time::sleep(VIEW_PAUSE).await;
        }
        let turn = self.maker.turns.next().await?;
        let mut view = self.read().await?;
        let base = Base::read(&mut view).await?;
        let taken = news.lock().take_all(narrow(base.last_event, "event id")?);
        drop(turn);
        Ok((view, base, taken))
    }
}

impl Plan {
    pub(super) async fn read(view: &mut Transaction, revision: u64) -> Result<Self, DbError> {
        let volumes = Volumes::read(view).await?;
        let commons = Commons::read(view, &volumes, revision).await?;
        Ok(Self { revision, commons, volumes })
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.commons.snapshot(self.revision, &self.volumes)
    }

    /// Reads again what is not about volumes.
    async fn refresh(&mut self, view: &mut Transaction) -> Result<(), DbError> {
        let mut commons = Commons::read(view, &self.volumes, self.revision).await?;
        commons.keep_marks_of(&self.commons);
        self.commons = commons;
        Ok(())
    }

    fn follow(&mut self, touched: &[Touched], revision: u64) {
        let mut exports = BTreeSet::new();
        for (touch, at) in touched {
            let Effect { leaders, disks, exported } = self.volumes.touch(touch);
            // Those who asked know, and it concerns nobody else.
            let Some(at) = *at else { continue };
            self.commons.leads_changed(leaders, at);
            self.commons.held_changed(&disks, at);
            exports.extend(exported);
        }
        self.revision = self.revision.max(revision);
        self.commons.volumes_changed(&exports, &self.volumes, self.revision);
    }

    /// The revision in which anything changed last of what a node should be doing.
    fn changed(&self, own: &Own) -> u64 {
        self.commons.changed().max(own.held_changed).max(own.leads_changed)
    }
}
