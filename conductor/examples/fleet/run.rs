//! All nodes at once, and what happens when one dies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afs_decisions::NodeId;
use conductor::api::{Event, EventList};
use uuid::Uuid;

use super::node::SimNode;

const LOOK: Duration = Duration::from_millis(100);
const COLD_MAX: Duration = Duration::from_secs(1800);
const DEATH_MAX: Duration = Duration::from_secs(60);

/// See `main`.
pub async fn run(api: &str, count: u32, spread: Duration) {
    let http =
        reqwest::Client::builder().no_proxy().pool_max_idle_per_host(12 * 1024).build().unwrap();
    let nodes: Vec<Arc<SimNode>> =
        (1..=count).map(|number| SimNode::new(number, api, http.clone())).collect();
    let begin = Instant::now();
    for node in &nodes {
        tokio::spawn(node.clone().run(spread * (node.number - 1) / count));
    }
    let claims = wait_for_claims(&nodes, begin).await;
    println!("ready {:.2} {claims} {}", begin.elapsed().as_secs_f64(), lost(&nodes));
    let events = Events { http, api: api.to_owned() };
    let mut dead = BTreeSet::new();
    let mut victim = count as usize / 3;
    while next_word().await {
        println!("{}", kill(&nodes, victim, &events).await);
        dead.insert(NodeId(nodes[victim].number));
        victim = apart_from(&nodes, &dead, victim).await;
    }
}

/// The next node that shares no volume with those that are dead: with two of three replicas away a volume has to wait.
async fn apart_from(nodes: &[Arc<SimNode>], dead: &BTreeSet<NodeId>, before: usize) -> usize {
    let mut near = dead.clone();
    for node in nodes {
        for config in node.configs().await {
            let members = || config.members().map(|(_, member)| member.node);
            if members().any(|node| dead.contains(&node)) {
                near.extend(members());
            }
        }
    }
    let count = nodes.len();
    let mut others = (1..=count).map(|step| (before + step) % count);
    others.find(|index| !near.contains(&NodeId(nodes[*index].number))).unwrap_or(before)
}

/// What the conductor says it decided.
struct Events {
    http: reqwest::Client,
    api: String,
}

impl Events {
    async fn get(&self, query: &str) -> EventList {
        let url = format!("{}/api/v1/events?{query}", self.api);
        self.http.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until so many volumes were taken from a node, after an event.
    async fn elected(&self, count: usize, from: u32, mut after: u64) {
        let from = format!(" instead of node {}", super::prepare::name(from));
        let mut elected = 0;
        while elected < count {
            let events = self.get(&format!("after={after}&wait=30&limit=1000")).await.events;
            let is_one =
                |event: &&Event| event.kind == "leader_elected" && event.message.contains(&from);
            elected += events.iter().filter(is_one).count();
            after = events.iter().map(|event| event.id).max().unwrap_or(after);
        }
    }
}

/// Volumes that were taken from nodes that are there.
fn lost(nodes: &[Arc<SimNode>]) -> usize {
    nodes.iter().map(|node| node.lost()).sum()
}

/// Waits for the next line of the input, or its end.
async fn next_word() -> bool {
    let read = || std::io::stdin().read_line(&mut String::new()).is_ok_and(|bytes| bytes > 0);
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Waits until every volume has a leader that has claimed it; how many there are.
async fn wait_for_claims(nodes: &[Arc<SimNode>], begin: Instant) -> usize {
    loop {
        let (mut claimed, mut all) = (0, true);
        for node in nodes {
            let leads = node.leads().await;
            all &= !leads.is_empty();
            all &= leads.values().all(|lead| lead.claimed.is_some());
            claimed += leads.values().filter(|lead| lead.claimed.is_some()).count();
        }
        if all {
            return claimed;
        }
        assert!(begin.elapsed() < COLD_MAX, "{claimed} volumes were claimed, and no more");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn kill(nodes: &[Arc<SimNode>], victim: usize, events: &Events) -> String {
    let dead = nodes[victim].clone();
    let led: BTreeSet<Uuid> = dead.leads().await.into_keys().collect();
    let held = dead.held().await;
    let peer = NodeId(dead.number);
    // Who has anything to do with it notices: replicas of what it led, leaders of what it held.
    let mut witnesses = Vec::new();
    for node in nodes.iter().filter(|node| node.number != dead.number) {
        let holds = node.holds(&led).await;
        let leads = || async {
            let configs = node.configs().await;
            configs.iter().any(|config| config.members().any(|(_, member)| member.node == peer))
        };
        if holds || leads().await {
            witnesses.push(node.clone());
        }
    }
    let last = events.get("limit=1").await.last_id;
    dead.die();
    let died = Instant::now();
    let elections = async {
        events.elected(led.len(), dead.number, last).await;
        died.elapsed()
    };
    let told: Vec<_> =
        witnesses.into_iter().map(|witness| tokio::spawn(witness.lose(peer))).collect();
    let (decided, (told_at, claimed)) =
        tokio::join!(elections, wait_for_leaders(nodes, victim, &led, died));
    let mut dropped = Duration::ZERO;
    for told in told {
        dropped = dropped.max(told.await.unwrap().unwrap_or_default());
    }
    let times = [decided, told_at, claimed, dropped].map(|time| time.as_millis().to_string());
    format!("{} {held} {} {}", led.len(), times.join(" "), lost(nodes))
}

/// When the last new leader learned that it is one, and when the last had claimed.
async fn wait_for_leaders(
    nodes: &[Arc<SimNode>],
    victim: usize,
    led: &BTreeSet<Uuid>,
    died: Instant,
) -> (Duration, Duration) {
    loop {
        let (mut decided, mut claimed, mut count) = (died, died, 0);
        for (index, node) in nodes.iter().enumerate() {
            if index == victim {
                continue;
            }
            for lead in node.leads_among(led).await {
                let Some(at) = lead.claimed else { continue };
                count += 1;
                decided = decided.max(lead.told);
                claimed = claimed.max(at);
            }
        }
        if count == led.len() {
            return (decided - died, claimed - died);
        }
        assert!(died.elapsed() < DEATH_MAX, "{count} of {} have a new leader", led.len());
        tokio::time::sleep(LOOK).await;
    }
}
