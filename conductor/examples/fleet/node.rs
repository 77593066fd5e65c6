//! One simulated node: three loops (state, reports, claims) over the API, like the node's agent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use afs_decisions::{NodeId, VolumeConfig};
use conductor::api::{
    AccuseRequest, ClaimRequest, DecisionAnswer, NodeReport, ReplicaState, ReportAnswer,
    VolumeReport,
};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::sync::{Mutex, Notify, Semaphore};
use uuid::Uuid;

/// As a real node: questions of leaders under way at a time.
const AT_A_TIME: usize = 8;
const PAUSE: Duration = Duration::from_millis(100);

/// What these nodes use of [`StateNews`](conductor::api::StateNews). On one machine a thousand of them cannot also digest the
/// rest of it; that is skipped.
#[derive(Deserialize)]
struct Told {
    revision: u64,
    id: NodeId,
    source: Uuid,
    volumes: Option<Vec<Held>>,
    leads: Option<Vec<VolumeConfig>>,
}

#[derive(Deserialize)]
struct Held {
    volume: Uuid,
    replica: Uuid,
}

/// What a node saw of a volume that it is to lead.
#[derive(Clone, Copy, Debug)]
pub struct Lead {
    /// When it was told so.
    pub told: Instant,
    /// When its claim was granted.
    pub claimed: Option<Instant>,
}

/// See the module.
pub struct SimNode {
    pub number: u32,
    api: String,
    http: Client,
    process: u64,
    alive: AtomicBool,
    report_now: Notify,
    permits: Arc<Semaphore>,
    inner: Mutex<Inner>,
    /// Volumes that it was to lead and that another one got.
    lost: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    applied: u64,
    volumes: Vec<VolumeReport>,
    unreachable: BTreeSet<NodeId>,
    leads: BTreeMap<Uuid, Lead>,
    configs: BTreeMap<Uuid, VolumeConfig>,
}

impl SimNode {
    pub fn new(number: u32, api: &str, http: Client) -> Arc<Self> {
        Arc::new(Self {
            number,
            api: api.to_owned(),
            http,
            process: u64::from(number) << 32 | 1,
            alive: AtomicBool::new(true),
            report_now: Notify::new(),
            permits: Arc::new(Semaphore::new(AT_A_TIME)),
            inner: Mutex::default(),
            lost: AtomicUsize::new(0),
        })
    }

    fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// It says nothing any more.
    pub fn die(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    fn url(&self, call: &str) -> String {
        format!("{}/api/v1/nodes/{}/{call}", self.api, super::prepare::name(self.number))
    }

    /// Starts after a while and runs until it dies.
    pub async fn run(self: Arc<Self>, after: Duration) {
        tokio::time::sleep(after).await;
        tokio::join!(self.follow(), self.keep_reporting());
    }

    async fn follow(self: &Arc<Self>) {
        let mut known: Option<(u64, Uuid)> = None;
        while self.is_alive() {
            let query = known.map_or_else(String::new, |(after, source)| {
                format!("?after={after}&source={source}&wait=30")
            });
            let answer = self.http.get(self.url(&format!("state{query}"))).send().await;
            match answer {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    let Ok(body) = answer.bytes().await else { continue };
                    let state: Told = serde_json::from_slice(&body).unwrap();
                    if self.is_alive() {
                        self.converge(&state).await;
                    }
                    known = Some((state.revision, state.source));
                }
                Ok(answer) if answer.status() == StatusCode::NO_CONTENT => {}
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn converge(self: &Arc<Self>, state: &Told) {
        let now = Instant::now();
        let mut inner = self.inner.lock().await;
        inner.applied = state.revision;
        let report = |replica, volume| VolumeReport {
            volume,
            replica,
            allocated_bytes: 1 << 30,
            state: ReplicaState::Ready,
            error: None,
            promised: 0,
        };
        if let Some(volumes) = &state.volumes {
            inner.volumes = volumes.iter().map(|it| report(it.replica, it.volume)).collect();
        }
        if let Some(leads) = &state.leads {
            self.lead(&mut inner, leads, NodeId(state.id.0), now);
        }
        drop(inner);
        self.report_now.notify_one();
    }

    fn lead(self: &Arc<Self>, inner: &mut Inner, leads: &[VolumeConfig], id: NodeId, now: Instant) {
        let wanted: BTreeSet<Uuid> = leads.iter().map(|config| config.volume).collect();
        let before = inner.leads.len();
        inner.leads.retain(|volume, _| wanted.contains(volume));
        self.lost.fetch_add(before - inner.leads.len(), Ordering::Relaxed);
        inner.configs.retain(|volume, _| wanted.contains(volume));
        for config in leads {
            let (volume, epoch) = (config.volume, config.epoch);
            if inner.configs.get(&volume).is_none_or(|known| known.epoch < epoch) {
                inner.configs.insert(volume, config.clone());
            }
            if inner.leads.contains_key(&volume) && config.leader_process == self.process {
                continue;
            }
            inner.leads.insert(volume, Lead { told: now, claimed: None });
            tokio::spawn(self.clone().claim(volume, id));
        }
    }

    async fn claim(self: Arc<Self>, volume: Uuid, node: NodeId) {
        let request = ClaimRequest { node, process: self.process };
        while self.is_alive() {
            let Some(answer) = self.ask(volume, "claim", &request).await else { continue };
            let mut inner = self.inner.lock().await;
            if answer.denied.is_none() {
                if let Some(lead) = inner.leads.get_mut(&volume) {
                    lead.claimed = Some(Instant::now());
                }
                inner.configs.insert(volume, answer.config);
            }
            return;
        }
    }

    async fn ask(
        &self,
        volume: Uuid,
        call: &str,
        request: &impl serde::Serialize,
    ) -> Option<DecisionAnswer> {
        let _permit = self.permits.acquire().await.unwrap();
        let url = format!("{}/api/v1/internal/volumes/{volume}/{call}", self.api);
        let answer = self.http.post(url).json(request).send().await;
        match answer {
            Ok(answer) if answer.status() == StatusCode::OK => answer.json().await.ok(),
            _ => {
                tokio::time::sleep(PAUSE).await;
                None
            }
        }
    }

    async fn keep_reporting(&self) {
        while self.is_alive() {
            let report = {
                let inner = self.inner.lock().await;
                NodeReport {
                    applied_revision: inner.applied,
                    volumes: inner.volumes.clone(),
                    unreachable: inner.unreachable.iter().copied().collect(),
                    ..super::prepare::first_report(self.number)
                }
            };
            let answer = self.http.put(self.url("report")).json(&report).send().await;
            let pause = match answer {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    let answer: ReportAnswer = answer.json().await.unwrap();
                    Duration::from_millis(answer.report_every_ms) / 2
                }
                _ => PAUSE,
            };
            let _ = tokio::time::timeout(pause, self.report_now.notified()).await;
        }
    }

    /// A connection to a peer broke: says so, and accuses the replicas there of what it leads.
    /// Returns the longest wait for an answer.
    pub async fn lose(self: Arc<Self>, peer: NodeId) -> Option<Duration> {
        let (accused, started) = {
            let mut inner = self.inner.lock().await;
            inner.unreachable.insert(peer);
            (inner.configs.values().cloned().collect::<Vec<_>>(), Instant::now())
        };
        self.report_now.notify_one();
        let mut asked = Vec::new();
        for config in accused {
            let member = config.members().find(|(_, member)| member.node == peer);
            let Some((shard, member)) = member.map(|(shard, member)| (shard, *member)) else {
                continue;
            };
            let Some(node) = config.leader else { continue };
            let request = AccuseRequest {
                node,
                process: config.leader_process,
                epoch: config.epoch,
                shard,
                replica: member.replica,
                unreachable: true,
                unheard: vec![peer],
            };
            let this = self.clone();
            asked.push(tokio::spawn(async move {
                this.ask(config.volume, "accuse", &request)
                    .await
                    .is_some_and(|it| it.denied.is_none())
            }));
        }
        let mut dropped = None;
        for asked in asked {
            if asked.await.unwrap() {
                dropped = Some(started.elapsed());
            }
        }
        dropped
    }

    /// How many volumes were taken from it, although it is there.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    /// What it leads, and when it learned that.
    pub async fn leads(&self) -> BTreeMap<Uuid, Lead> {
        self.inner.lock().await.leads.clone()
    }

    /// What it leads of these volumes.
    pub async fn leads_among(&self, volumes: &BTreeSet<Uuid>) -> Vec<Lead> {
        let inner = self.inner.lock().await;
        volumes.iter().filter_map(|volume| inner.leads.get(volume).copied()).collect()
    }

    /// The configurations of what it leads.
    pub async fn configs(&self) -> Vec<VolumeConfig> {
        self.inner.lock().await.configs.values().cloned().collect()
    }

    /// Whether it has a replica of this volume.
    pub async fn holds(&self, volumes: &BTreeSet<Uuid>) -> bool {
        self.inner.lock().await.volumes.iter().any(|it| volumes.contains(&it.volume))
    }

    /// How many replicas it has.
    pub async fn held(&self) -> usize {
        self.inner.lock().await.volumes.len()
    }
}
