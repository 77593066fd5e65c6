//! Decisions about replicated volumes, and the upgrade of volumes that were made before there were
//! any. What may be decided is tested in `afs-decisions`; here, that it is kept.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use afs_decisions::{Asker, ClusterView, Denied, NodeId, Role, VolumeConfig};
use uuid::Uuid;

use super::tests::server::on_both;
use super::tests::{Home, state_of};
use super::*;
use crate::api::{
    DiskKind, DiskReport, DiskState, ErrorCode, NodeReport, PortalReport, ReplicaState, Severity,
    StateNews, VolumeReport,
};

fn disk(n: u32) -> Uuid {
    Uuid::from_u128(0xd15c_0000 + u128::from(n))
}

fn report(name: &str, disks: &[u32]) -> NodeReport {
    let portal = |port: u16| PortalReport {
        transport: "tcp".to_owned(),
        address: "192.0.2.1".to_owned(),
        service: port.to_string(),
    };
    let disk = |n: &u32| DiskReport {
        uuid: disk(*n),
        kind: DiskKind::Store,
        path: format!("/disk{n}"),
        total_bytes: 1 << 40,
        free_bytes: 1 << 40,
        state: DiskState::Online,
        error: None,
    };
    NodeReport {
        node: name.to_owned(),
        portals: vec![portal(4420)],
        disks: disks.iter().map(disk).collect(),
        ..NodeReport::default()
    }
}

/// Nodes n1 to n4 with disks 1 to 4, and a volume `v` on the first three.
struct World {
    db: MetaDb,
    volume: Uuid,
}

async fn world(home: &Home) -> World {
    let db = MetaDb::open(&home.place).await.unwrap();
    for n in 1..=4 {
        db.register(&report(&format!("n{n}"), &[n]), |_, _| false).await.unwrap();
    }
    let new = NewVolume {
        name: "v".to_owned(),
        size_bytes: 3 << 30,
        shard_blocks: (2 << 30) / 4096,
        min_in_sync: 2,
        disks: vec![vec![disk(1), disk(2), disk(3)], vec![disk(2), disk(3), disk(4)]],
    };
    let volume = db.create_replicated(&new, &alive(4)).await.unwrap().value;
    World { db, volume }
}

fn alive(nodes: u32) -> ClusterView {
    ClusterView::of_alive((1..=nodes).map(NodeId))
}

impl World {
    async fn config(&self) -> VolumeConfig {
        self.db.snapshot().await.unwrap().configs.remove(&self.volume).unwrap()
    }

    async fn claim(&self, process: u64) -> Asker {
        let leader = self.config().await.leader.unwrap();
        let asked = self.db.claim(self.volume, leader, process).await.unwrap().value;
        assert_eq!(asked.denied, None);
        Asker { node: leader, process, epoch: asked.config.epoch }
    }

    async fn drop(&self, asker: Asker, replica: Uuid) -> Asked {
        self.db.accuse(self.volume, asker, 0, replica, Arc::new(alive(4))).await.unwrap().value
    }

    async fn kinds(&self) -> Vec<String> {
        let events = self.db.events(Some(0), 1000).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, DbError>) -> ErrorCode {
    match result.unwrap_err() {
        DbError::Refused(refusal) => refusal.code(),
        other => panic!("{other}"),
    }
}

async fn new_volume_is_what_was_asked_for_and_each_node_is_told_its_part(home: Home) {
    let world = world(&home).await;
    let config = world.config().await;
    config.check().unwrap();
    assert_eq!((config.epoch, config.leader_process, config.min_in_sync), (1, 0, 2));
    assert_eq!(config.shards.len(), 2);
    assert_eq!(config.leader, Some(NodeId(2)), "it holds replicas of both shards");
    let state = state_of(&world.db, "n2").await.unwrap();
    assert_eq!(state.id, NodeId(2));
    assert_eq!(state.leads, [config]);
    let sizes: Vec<_> =
        state.volumes.iter().map(|it| (it.shard, it.size_bytes, it.whole)).collect();
    assert_eq!(sizes, [(0, 2 << 30, false), (1, 1 << 30, false)]);
    assert_eq!(state.peers.len(), 4);
    assert_eq!(
        (state.peers[3].id, state.peers[3].portals[0].service.as_str()),
        (NodeId(4), "4420")
    );
    let other = state_of(&world.db, "n1").await.unwrap();
    assert!(other.leads.is_empty() && other.volumes.len() == 1);
}

async fn disks_are_charged_for_the_shards_on_them(home: Home) {
    let world = world(&home).await;
    let disks = world.db.snapshot().await.unwrap().disks;
    let promised: Vec<u64> = disks.iter().map(|disk| disk.provisioned_bytes >> 30).collect();
    assert_eq!(promised, [2, 3, 3, 1]);
}

async fn leader_claims_drops_and_admits_and_each_is_an_event(home: Home) {
    let world = world(&home).await;
    let leader = world.claim(u64::MAX).await;
    assert_eq!(leader.epoch, 2);
    let config = world.config().await;
    assert_eq!((config.leader_process, config.reign), (u64::MAX, 2));
    let victim = config.shards[0].members.iter().find(|it| it.node != leader.node).unwrap();
    let revision = *world.db.revision().borrow();
    let dropped = world.drop(leader, victim.replica).await;
    assert_eq!((dropped.config.epoch, dropped.config.reign), (3, 2));
    assert_eq!(dropped.config, world.config().await, "what was answered is what is there");
    assert_eq!(*world.db.revision().borrow(), revision, "no other node has to do anything");
    let late = world.drop(leader, victim.replica).await;
    assert_eq!(late.denied, Some(Denied::OldEpoch { asked: 2, current: 3 }));
    assert_eq!(late.config, dropped.config, "a denial tells what is there, too");
    let leader = Asker { epoch: 3, ..leader };
    let admitted = world.db.admit(world.volume, leader, 0, victim.replica).await.unwrap().value;
    assert_eq!((admitted.denied, admitted.config.epoch), (None, 4));
    assert!(admitted.config.members().all(|(_, member)| member.role == Role::InSync));
    let kinds = world.kinds().await;
    let last: Vec<&str> = kinds.iter().rev().take(3).rev().map(String::as_str).collect();
    assert_eq!(last, ["leader_claimed", "replica_dropped", "replica_admitted"]);
}

async fn repeated_claim_changes_nothing_and_a_new_process_takes_a_new_epoch(home: Home) {
    let world = world(&home).await;
    world.claim(7).await;
    assert_eq!(world.claim(7).await.epoch, 2);
    assert_eq!(world.claim(8).await.epoch, 3);
    let asked = world.db.claim(world.volume, NodeId(4), 9).await.unwrap().value;
    assert_eq!(asked.denied, Some(Denied::NotLeader { node: NodeId(4) }));
    let nowhere = world.db.claim(Uuid::from_u128(9), NodeId(4), 9).await;
    assert_eq!(code(nowhere), ErrorCode::NotFound);
}

async fn of_racing_decisions_in_one_epoch_one_is_made(home: Home) {
    let world = world(&home).await;
    let leader = world.claim(7).await;
    let config = world.config().await;
    let others = config.shards[0].members.iter().filter(|it| it.node != leader.node);
    let others: Vec<Uuid> = others.map(|it| it.replica).collect();
    let (one, two) = tokio::join!(world.drop(leader, others[0]), world.drop(leader, others[1]));
    assert_eq!(one.denied.is_none(), two.denied.is_some(), "{one:?} {two:?}");
    assert_eq!(world.config().await.epoch, 3);
}

async fn death_of_the_leader_elects_another_and_its_volumes_move(home: Home) {
    let world = world(&home).await;
    let old = world.claim(7).await;
    let mut view = alive(4);
    view.set_alive(old.node, false);
    let led = world.db.need_leader(&[old.node], &BTreeSet::new(), &view).await.unwrap();
    assert_eq!(led, [world.volume]);
    assert_eq!(world.db.elect(&led, &mut view).await.unwrap().value, 1);
    let config = world.config().await;
    assert_eq!((config.epoch, config.leader_process), (3, 0));
    assert_eq!(config.leader, Some(NodeId(3)));
    assert!(config.shards.iter().all(|shard| shard.in_sync_count() == 2));
    assert_eq!(world.db.elect(&led, &mut view).await.unwrap().value, 0, "once is enough");
    let asked = world.db.renew(world.volume, old).await.unwrap().value;
    assert_eq!(asked.denied, Some(Denied::NotLeader { node: old.node }));
}

async fn leader_that_lost_too_many_of_its_replicas_is_found_and_one_that_lost_one_is_not(
    home: Home,
) {
    let world = world(&home).await;
    let leader = world.claim(7).await;
    let others: Vec<NodeId> = (1..=4).map(NodeId).filter(|node| *node != leader.node).collect();
    let mut view = alive(4);
    view.add_unreachable(others[0], leader.node);
    let links = view.broken_links();
    assert_eq!(world.db.need_leader(&[], &links, &view).await.unwrap(), Vec::<Uuid>::new());
    others.iter().for_each(|other| view.add_unreachable(*other, leader.node));
    let links = view.broken_links();
    assert_eq!(world.db.need_leader(&[], &links, &view).await.unwrap(), [world.volume]);
    assert_eq!(
        world.db.need_leader(&[], &BTreeSet::new(), &view).await.unwrap(),
        Vec::<Uuid>::new()
    );
}

async fn operator_moves_the_leader_and_asking_twice_is_fine(home: Home) {
    let world = world(&home).await;
    world.db.lead("v", "n4", &alive(4)).await.unwrap();
    world.db.lead("v", "n4", &alive(4)).await.unwrap();
    let config = world.config().await;
    assert_eq!((config.leader, config.epoch), (Some(NodeId(4)), 2));
    assert_eq!(code(world.db.lead("v", "n3", &alive(2)).await), ErrorCode::Conflict);
    assert_eq!(code(world.db.lead("v", "n9", &alive(2)).await), ErrorCode::NotFound);
}

async fn replica_is_added_filled_and_the_old_one_removed(home: Home) {
    let world = world(&home).await;
    let leader = world.claim(7).await;
    let added = world.db.add_replica(world.volume, 2, 0, disk(4)).await.unwrap().value;
    let stale = world.db.add_replica(world.volume, 2, 1, disk(1)).await;
    assert_eq!(code(stale), ErrorCode::Conflict, "based on an epoch that is over");
    let leader = Asker { epoch: 3, ..leader };
    world.db.admit(world.volume, leader, 0, added).await.unwrap();
    let old = world.config().await.shards[0].on_node(NodeId(1)).unwrap().replica;
    world.db.remove_replica(world.volume, 4, 0, old).await.unwrap();
    let config = world.config().await;
    assert_eq!((config.epoch, config.shards[0].in_sync_count()), (5, 3));
    assert!(config.shards[0].on_node(NodeId(1)).is_none());
    let state = state_of(&world.db, "n1").await.unwrap();
    assert_eq!(state.retired, [old], "its node is to delete it");
}

async fn forced_replica_is_alone_and_the_event_is_a_warning(home: Home) {
    let world = world(&home).await;
    let config = world.config().await;
    let replica = config.shards[1].members[0].replica;
    world.db.force_in_sync("v", replica, &alive(4)).await.unwrap();
    assert_eq!(world.config().await.shards[1].in_sync_count(), 1);
    let unknown = world.db.force_in_sync("v", Uuid::from_u128(1), &alive(4)).await;
    assert_eq!(code(unknown), ErrorCode::NotFound);
    world.db.set_min_in_sync("v", 1).await.unwrap();
    assert_eq!(world.config().await.min_in_sync, 1);
    assert_eq!(code(world.db.set_min_in_sync("v", 4).await), ErrorCode::Conflict);
    assert_eq!(world.kinds().await.iter().filter(|kind| *kind == "replica_forced").count(), 1);
}

/// DESIGN 7: after a restore, epochs jump above the highest that any replica reports; and who is in sync is not guessed.
async fn older_copy_decides_nothing_about_a_volume_until_the_operator_names_a_replica(home: Home) {
    let world = world(&home).await;
    let asker = world.claim(7).await;
    let replicas: Vec<Uuid> =
        world.config().await.shards[0].members.iter().map(|member| member.replica).collect();
    let promised = |epoch| {
        let mut report = report("n2", &[2]);
        report.volumes = vec![VolumeReport {
            volume: world.volume,
            replica: replicas[1],
            allocated_bytes: 0,
            state: ReplicaState::Ready,
            error: None,
            promised: epoch,
        }];
        report
    };
    world.db.register(&promised(asker.epoch), |_, _| true).await.unwrap();
    assert_eq!(world.db.went_back(), None, "a replica that knows what we know");
    world.db.register(&promised(9), |_, _| true).await.unwrap();
    world.db.register(&promised(9), |_, _| true).await.unwrap();
    let times = world.kinds().await.iter().filter(|kind| *kind == "volume_went_back").count();
    assert_eq!(times, 1);
    assert!(world.db.went_back().unwrap().contains("older copy"));

    let before = world.config().await;
    let denied = Some(Denied::OlderCopy { promised: 9, known: 2 });
    let claimed = world.db.claim(world.volume, asker.node, 8).await.unwrap().value;
    assert_eq!(claimed.denied, denied);
    assert_eq!(world.drop(asker, replicas[1]).await.denied, denied);
    assert_eq!(world.db.renew(world.volume, asker).await.unwrap().value.denied, denied);
    let admitted = world.db.admit(world.volume, asker, 0, replicas[1]).await.unwrap().value;
    assert_eq!(admitted.denied, denied);
    let mut view = alive(4);
    view.set_alive(asker.node, false);
    assert_eq!(world.db.elect(&[world.volume], &mut view).await.unwrap().value, 0);
    let other = if asker.node == NodeId(4) { "n3" } else { "n4" };
    assert_eq!(code(world.db.lead("v", other, &alive(4)).await), ErrorCode::Conflict);
    assert_eq!(world.config().await, before);

    world.db.force_in_sync("v", replicas[1], &alive(4)).await.unwrap();
    let forced = world.config().await;
    assert_eq!((forced.epoch, forced.shards[0].in_sync_count()), (10, 1));
    world.claim(8).await;
}

async fn growing_places_the_new_shards(home: Home) {
    let world = world(&home).await;
    let mut view = alive(4);
    for n in 1..=4 {
        let mut node = view.node(NodeId(n)).unwrap().clone();
        node.disks = vec![afs_decisions::DiskView {
            disk: disk(n),
            usable: true,
            keeps_data: true,
            total_bytes: 1 << 40,
            free_bytes: 1 << 40,
            provisioned_bytes: 0,
        }];
        view.set_node(NodeId(n), node);
    }
    let nowhere = world.db.resize_volume("v", 7 << 30, None, &alive(4)).await;
    assert_eq!(code(nowhere), ErrorCode::NoSpace);
    assert_eq!(world.config().await.epoch, 1, "nothing of it was kept");
    world.db.resize_volume("v", 7 << 30, None, &view).await.unwrap();
    let config = world.config().await;
    assert_eq!((config.epoch, config.shards.len(), config.blocks), (2, 4, (7 << 30) / 4096));
    assert!(config.shards.iter().all(|shard| shard.in_sync_count() == 3));
}

async fn node_is_drained_and_removed_only_when_empty_and_its_number_never_comes_again(home: Home) {
    let world = world(&home).await;
    let db = &world.db;
    db.set_draining("n1", true).await.unwrap();
    assert_eq!(db.nodes().await.unwrap()[0].state, "draining");
    assert_eq!(code(db.remove_node("n1").await), ErrorCode::InUse);
    db.set_draining("n1", false).await.unwrap();
    db.register(&report("n5", &[5]), |_, _| false).await.unwrap();
    db.remove_node("n5").await.unwrap();
    assert_eq!(db.nodes().await.unwrap().len(), 4);
    assert!(state_of(db, "n5").await.is_none());
    assert_eq!(db.snapshot().await.unwrap().disks.len(), 4);
    assert_eq!(code(db.set_draining("n5", true).await), ErrorCode::NotFound);
    db.register(&report("n5", &[5]), |_, _| false).await.unwrap();
    assert_eq!(state_of(db, "n5").await.unwrap().id, NodeId(6));
}

async fn retired_disk_is_remembered(home: Home) {
    let world = world(&home).await;
    world.db.set_disk_retired(disk(1), true).await.unwrap();
    assert!(world.db.any_disk_retired().await.unwrap());
    world.db.set_disk_retired(disk(1), false).await.unwrap();
    assert!(!world.db.any_disk_retired().await.unwrap());
    assert_eq!(code(world.db.set_disk_retired(disk(9), true).await), ErrorCode::NotFound);
}

async fn disk_that_moved_takes_its_replicas_and_their_leader_along(home: Home) {
    let world = world(&home).await;
    world.db.create_volume("alone", 4096, disk(4)).await.unwrap();
    let alone = world.db.snapshot().await.unwrap().volumes[0].uuid;
    world.db.register(&report("n5", &[]), |_, _| false).await.unwrap();
    // Also of those that a node is told only what is new.
    let told = async || {
        for node in ["n2", "n4", "n5"] {
            state_of(&world.db, node).await.unwrap();
        }
    };
    told().await;
    world.db.register(&report("n5", &[4]), |_, _| false).await.unwrap();
    told().await;
    let configs = world.db.snapshot().await.unwrap().configs;
    assert_eq!(configs[&alone].leader, Some(NodeId(5)));
    assert_eq!(configs[&alone].shards[0].members[0].node, NodeId(5));
    assert!(configs[&world.volume].shards[1].on_node(NodeId(5)).is_some());
    world.db.register(&report("n2", &[2, 4]), |_, _| false).await.unwrap();
    told().await;
    let configs = world.db.snapshot().await.unwrap().configs;
    assert!(configs[&world.volume].shards[1].on_node(NodeId(5)).is_some(), "n2 has one already");
    assert!(world.kinds().await.contains(&"replica_misplaced".to_owned()));
}

async fn nodes_reach_each_other_where_they_say(home: Home) {
    let world = world(&home).await;
    let mut report = report("n1", &[1]);
    assert_eq!(world.db.nodes().await.unwrap()[0].rack, None);
    report.rack = Some("r1".to_owned());
    report.peer_portals = vec![PortalReport {
        transport: "tcp".to_owned(),
        address: "198.51.100.1".to_owned(),
        service: "4421".to_owned(),
    }];
    let revision = world.db.register(&report, |_, _| true).await.unwrap().revision;
    let again = world.db.register(&report, |_, _| true).await.unwrap().revision;
    assert_eq!(revision, again, "the same again is no news");
    let state = state_of(&world.db, "n2").await.unwrap();
    assert_eq!(state.peers[0].portals, report.peer_portals);
    assert_eq!(world.db.nodes().await.unwrap()[0].rack.as_deref(), Some("r1"));
    report.rack = None;
    world.db.register(&report, |_, _| true).await.unwrap();
    assert_eq!(world.db.nodes().await.unwrap()[0].rack, None);
}

on_both!(
    new_volume_is_what_was_asked_for_and_each_node_is_told_its_part,
    disks_are_charged_for_the_shards_on_them,
    leader_claims_drops_and_admits_and_each_is_an_event,
    repeated_claim_changes_nothing_and_a_new_process_takes_a_new_epoch,
    of_racing_decisions_in_one_epoch_one_is_made,
    death_of_the_leader_elects_another_and_its_volumes_move,
    leader_that_lost_too_many_of_its_replicas_is_found_and_one_that_lost_one_is_not,
    operator_moves_the_leader_and_asking_twice_is_fine,
    replica_is_added_filled_and_the_old_one_removed,
    forced_replica_is_alone_and_the_event_is_a_warning,
    older_copy_decides_nothing_about_a_volume_until_the_operator_names_a_replica,
    growing_places_the_new_shards,
    node_learns_at_once_of_what_concerns_it_and_of_nothing_else,
    node_is_drained_and_removed_only_when_empty_and_its_number_never_comes_again,
    retired_disk_is_remembered,
    disk_that_moved_takes_its_replicas_and_their_leader_along,
    nodes_reach_each_other_where_they_say,
    claims_share_a_decision_and_others_do_not_wait_for_all_of_them,
);

/// A database as the first version left it: two nodes, three volumes, one of them deleted.
async fn first_version(folder: &Path) {
    let pool = sqlite::connect(&folder.join(sqlite::FILE)).await.unwrap();
    let mut first = sqlx::migrate!();
    first.migrations.to_mut().truncate(1);
    first.run(&pool).await.unwrap();
    let statements = "
        INSERT INTO settings VALUES (1, X'00000000000000000000000000000007', 9, 3, 5, 2);
        INSERT INTO nodes VALUES ('b', 10), ('a', 20);
        INSERT INTO disks VALUES (X'00000000000000000000000000000011', 'a', 'store', '/a', 1000),
                                 (X'00000000000000000000000000000012', 'b', 'store', '/b', 1000);
        INSERT INTO volumes VALUES
            (X'00000000000000000000000000000021', 'one', 4096,
             X'00000000000000000000000000000021', 1, 1, NULL),
            (X'00000000000000000000000000000022', 'large', 70368744177664,
             X'00000000000000000000000000000022', 1, 1, NULL),
            (X'00000000000000000000000000000023', 'gone', 4096,
             X'00000000000000000000000000000023', 1, 1, 5);
        INSERT INTO replicas VALUES
            (X'00000000000000000000000000000031', X'00000000000000000000000000000021',
             X'00000000000000000000000000000011', 'wanted'),
            (X'00000000000000000000000000000032', X'00000000000000000000000000000022',
             X'00000000000000000000000000000012', 'wanted'),
            (X'00000000000000000000000000000033', X'00000000000000000000000000000023',
             X'00000000000000000000000000000012', 'retired');";
    for statement in statements.split_inclusive(';').filter(|text| !text.trim().is_empty()) {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    pool.close().await;
}

#[tokio::test]
async fn volumes_of_the_first_version_have_one_shard_one_replica_and_its_node_as_leader() {
    let folder = tempfile::tempdir().unwrap();
    first_version(folder.path()).await;
    let db = MetaDb::open(&Place::from(folder.path())).await.unwrap();
    let snapshot = db.snapshot().await.unwrap();
    let nodes: Vec<_> = snapshot.nodes.iter().map(|row| (row.name.as_str(), row.id)).collect();
    assert_eq!(nodes, [("a", 2), ("b", 1)], "numbered in the order in which they joined");
    assert_eq!(snapshot.configs.len(), 2);
    for (volume, node, blocks) in [(0x21, 2, 1), (0x22, 1, 1 << 34)] {
        let config = &snapshot.configs[&Uuid::from_u128(volume)];
        config.check().unwrap();
        assert_eq!((config.epoch, config.min_in_sync, config.blocks), (1, 1, blocks));
        assert_eq!(config.leader, Some(NodeId(node)));
        assert_eq!((config.shards.len(), config.shards[0].members.len()), (1, 1));
        assert_eq!(config.shards[0].members[0].node, NodeId(node));
    }
    let state = state_of(&db, "a").await.unwrap();
    assert!(state.volumes[0].whole);
    assert_eq!((state.volumes[0].size_bytes, state.volumes[0].shard), (4096, 0));
    let state = state_of(&db, "b").await.unwrap();
    assert_eq!(state.retired, [Uuid::from_u128(0x33)]);
    db.resize_volume("one", 1 << 40, None, &ClusterView::default()).await.unwrap();
    let joined = db.register(&report("c", &[3]), |_, _| false).await;
    joined.unwrap();
    assert_eq!(state_of(&db, "c").await.unwrap().id, NodeId(3));
}

async fn node_learns_at_once_of_what_concerns_it_and_of_nothing_else(home: Home) {
    use Concern::{Duties, Nothing, Number};
    let world = world(&home).await;
    let db = &world.db;
    let known = async |node: &str| {
        let state = state_of(db, node).await.unwrap();
        Known { revision: state.revision, source: Some(state.source) }
    };
    let concern = async |known| {
        let mut concerns = Vec::new();
        for node in ["n1", "n2", "n3", "n4"] {
            concerns.push(db.concern(node, known).await.unwrap());
        }
        concerns
    };
    let before = known("n1").await;
    assert_eq!(concern(before).await, [Nothing; 4]);
    assert_eq!(db.concern("n5", before).await.unwrap(), Duties, "it is not known");
    let ahead = Known { revision: before.revision + 5, ..before };
    assert_eq!(concern(ahead).await, [Duties; 4], "it knows what is lost");

    // What a leader asks for is told to nobody.
    world.claim(7).await;
    assert_eq!(concern(before).await, [Nothing; 4]);

    // A volume that n1 holds and leads, which no host sees.
    let alone = NewVolume::alone("alone", 4096, disk(1));
    let made = db.create_replicated(&alone, &alive(4)).await.unwrap();
    assert_eq!(concern(before).await, [Duties, Number, Number, Number]);
    let all = ["n1", "n2", "n3", "n4"].map(str::to_owned).into();
    let needed = db.needed(&all, made.revision).await.unwrap();
    assert_eq!(needed["n1"], made.revision);
    assert!(needed["n2"] < made.revision, "nobody waits for it");
    // One that knows nothing else than the number is told nothing else.
    let text = db.node_state("n2", Some(before)).await.unwrap().unwrap();
    let told: StateNews = serde_json::from_str(&text).unwrap();
    assert_eq!((told.revision, told.volumes, told.peers), (made.revision, None, None));

    let before = known("n1").await;
    let leader = world.config().await.leader.unwrap();
    let to = if leader == NodeId(2) { 3 } else { 2 };
    db.lead("v", &format!("n{to}"), &alive(4)).await.unwrap();
    let moved: Vec<Concern> =
        (1..=4).map(|n| if [leader.0, to].contains(&n) { Duties } else { Number }).collect();
    assert_eq!(concern(before).await, moved);

    // What hosts see concerns all.
    let before = known("n1").await;
    db.create_subsystem("nqn.2026-11.com.example:a").await.unwrap();
    assert_eq!(concern(before).await, [Duties; 4]);
    let before = known("n1").await;
    db.register(&report("n5", &[5]), |_, _| false).await.unwrap();
    assert_eq!(concern(before).await, [Duties; 4], "they have another peer");
    let before = known("n1").await;
    db.set_draining("n4", true).await.unwrap();
    assert_eq!(concern(before).await, [Number; 4], "the conductor does the emptying");
}

async fn claims_share_a_decision_and_others_do_not_wait_for_all_of_them(home: Home) {
    let world = world(&home).await;
    let db = Arc::new(world.db);
    let before = *db.last_event().borrow();
    let is_missing = |process: u64| process > 180 && process.is_multiple_of(2);
    // Nobody goes on before all wait.
    let first = db.begin().await.unwrap();
    let mut claims = Vec::new();
    for process in 1..=200 {
        let (db, volume) = (db.clone(), world.volume);
        let volume = if is_missing(process) { Uuid::from_u128(process.into()) } else { volume };
        claims.push(tokio::spawn(async move { db.claim(volume, NodeId(2), process).await }));
        tokio::task::yield_now().await;
    }
    let note = {
        let db = db.clone();
        tokio::spawn(async move { db.note(Severity::Warning, "urgent", "x", String::new()).await })
    };
    tokio::task::yield_now().await;
    drop(first);
    note.await.unwrap().unwrap();
    let mut epochs = BTreeSet::new();
    for (process, claim) in (1..).zip(claims) {
        match claim.await.unwrap() {
            Ok(decided) => {
                let Asked { config, denied } = decided.value;
                assert_eq!((config.leader_process, denied), (process, None));
                assert!(epochs.insert(config.epoch), "each start of a leader has its own epoch");
            }
            refused => {
                assert!(is_missing(process), "its own fault alone is a reason to refuse a claim");
                assert_eq!(code(refused), ErrorCode::NotFound);
            }
        }
    }
    assert_eq!(epochs, (2..=191).collect());
    let events = db.events(Some(before), 1000).await.unwrap();
    let place = events.iter().position(|event| event.kind == "urgent").unwrap();
    assert!(place <= 64, "{place} claims went first");
    assert_eq!(events.len(), 191);
    let decisions: i64 = query_scalar("SELECT COUNT(DISTINCT decision) FROM events WHERE id > $1")
        .bind(before.cast_signed())
        .fetch_one(&mut db.read().await.unwrap())
        .await
        .unwrap();
    assert!(decisions < 100, "{decisions} decisions");
}
