//! One test per rule: what may be decided, and what is denied.

#![allow(clippy::unwrap_used)]

mod common;

use afs_decisions::*;
use common::{alive, asker, claimed, new_volume, replica};
use uuid::Uuid;

const ONE_SHARD: &[&[u32]] = &[&[1, 2, 3]];

#[test]
fn new_volume_begins_in_epoch_1_with_all_replicas_in_sync_and_no_process() {
    let config = create(&new_volume(&[&[1, 2, 3], &[3, 4, 5]], 2), &alive(9)).unwrap();
    assert_eq!((config.epoch, config.leader_process, config.reign), (1, 0, 0));
    assert_eq!(config.leader, Some(NodeId(3)), "it holds a replica of both shards");
    assert!(config.members().all(|(_, member)| member.role == Role::InSync));
    config.check().unwrap();
}

#[test]
fn volume_that_cannot_be_is_not_made() {
    let malformed = |new: &NewVolume| {
        assert!(matches!(create(new, &alive(9)), Err(Denied::Malformed { .. })), "{new:?}");
    };
    malformed(&new_volume(&[&[1, 1, 2]], 2));
    malformed(&new_volume(&[&[1, 2, 3]], 4));
    malformed(&new_volume(&[&[1, 2, 3]], 0));
    malformed(&new_volume(&[&[1, 2, 3, 4, 5, 6, 7]], 2));
    malformed(&NewVolume { blocks: 101, ..new_volume(&[&[1]], 1) });
    malformed(&NewVolume { blocks: 0, shards: Vec::new(), ..new_volume(&[&[1]], 1) });
    let mut twice = new_volume(&[&[1, 2], &[1, 2]], 1);
    twice.shards[1][0].replica = twice.shards[0][0].replica;
    malformed(&twice);
    assert_eq!(create(&new_volume(&[&[1]], 1), &alive(0)), Err(Denied::NoCandidate));
}

#[test]
fn every_start_of_a_leader_takes_a_new_epoch_and_a_repeated_claim_none() {
    let config = create(&new_volume(ONE_SHARD, 2), &alive(3)).unwrap();
    let leader = config.leader.unwrap();
    let Claim::New(first) = claim(&config, leader, 7).unwrap() else { panic!() };
    assert_eq!((first.epoch, first.reign, first.leader_process), (2, 2, 7));
    assert_eq!(claim(&first, leader, 7), Ok(Claim::AlreadyYours));
    let Claim::New(second) = claim(&first, leader, 8).unwrap() else { panic!() };
    assert_eq!((second.epoch, second.reign, second.leader_process), (3, 3, 8));
    let other = NodeId(leader.0 % 3 + 1);
    assert_eq!(claim(&first, other, 9), Err(Denied::NotLeader { node: other }));
    assert_eq!(claim(&first, leader, 0), Err(Denied::OldProcess));
}

#[test]
fn only_the_leader_of_now_is_believed() {
    let (config, leader) = claimed(ONE_SHARD, 2);
    let victim = config.shards[0].members.iter().find(|it| it.node != leader.node).unwrap();
    let view = alive(3);
    let ask = |asker| {
        let dropped = drop_member(&config, asker, 0, victim.replica, &view).unwrap_err();
        let admitted = admit(&config, asker, 0, victim.replica).unwrap_err();
        let renewed = renew(&config, asker).unwrap_err();
        assert!(dropped == admitted && admitted == renewed);
        dropped
    };
    let node = victim.node;
    assert_eq!(ask(Asker { node, ..leader }), Denied::NotLeader { node });
    assert_eq!(ask(Asker { process: 6, ..leader }), Denied::OldProcess);
    assert_eq!(ask(Asker { process: 0, ..leader }), Denied::OldProcess);
    assert_eq!(ask(Asker { epoch: 1, ..leader }), Denied::OldEpoch { asked: 1, current: 2 });
    assert_eq!(ask(Asker { epoch: 3, ..leader }), Denied::OldEpoch { asked: 3, current: 2 });
}

#[test]
fn unclaimed_volume_believes_nobody() {
    let config = create(&new_volume(ONE_SHARD, 2), &alive(3)).unwrap();
    let nobody = asker(&config);
    assert_eq!(renew(&config, nobody), Err(Denied::OldProcess));
}

#[test]
fn dropping_keeps_the_reign_and_stops_at_the_minimum() {
    let (config, leader) = claimed(ONE_SHARD, 2);
    let view = alive(3);
    let dropped = drop_member(&config, leader, 0, replica(0, 1), &view).unwrap();
    assert_eq!((dropped.epoch, dropped.reign, dropped.leader_process), (3, 2, 7));
    assert_eq!(dropped.shards[0].in_sync_count(), 2);
    let again = drop_member(&dropped, asker(&dropped), 0, replica(0, 1), &view);
    assert_eq!(again, Err(Denied::NotInSync { replica: replica(0, 1) }));
    let below = drop_member(&dropped, asker(&dropped), 0, replica(0, 2), &view);
    assert_eq!(below, Err(Denied::BelowMin { shard: 0, left: 1, min: 2 }));
    let (lone, leader) = claimed(&[&[1]], 1);
    let last = drop_member(&lone, leader, 0, replica(0, 0), &view);
    assert_eq!(last, Err(Denied::BelowMin { shard: 0, left: 0, min: 1 }));
}

#[test]
fn unknown_shard_or_replica_is_denied() {
    let (config, leader) = claimed(ONE_SHARD, 2);
    assert_eq!(admit(&config, leader, 1, replica(0, 0)), Err(Denied::NoSuchShard { shard: 1 }));
    let unknown = Uuid::from_u128(5);
    assert_eq!(
        drop_member(&config, leader, 0, unknown, &alive(3)),
        Err(Denied::NoSuchReplica { shard: 0, replica: unknown })
    );
}

#[test]
fn admission_keeps_the_reign_and_a_delayed_one_is_denied() {
    let (config, leader) = claimed(ONE_SHARD, 2);
    let dropped = drop_member(&config, leader, 0, replica(0, 1), &alive(3)).unwrap();
    let then = asker(&dropped);
    let admitted = admit(&dropped, then, 0, replica(0, 1)).unwrap();
    assert_eq!((admitted.epoch, admitted.reign), (4, 2));
    assert_eq!(admitted.shards[0].in_sync_count(), 3);
    let dropped = drop_member(&admitted, asker(&admitted), 0, replica(0, 1), &alive(3)).unwrap();
    assert_eq!(
        admit(&dropped, then, 0, replica(0, 1)),
        Err(Denied::OldEpoch { asked: 3, current: 5 })
    );
    assert_eq!(
        admit(&dropped, asker(&dropped), 0, replica(0, 0)),
        Err(Denied::AlreadyInSync { replica: replica(0, 0) })
    );
}

#[test]
fn a_leader_whose_time_began_with_nothing_failed_is_marked() {
    let view = alive(3);
    let made = create(&new_volume(ONE_SHARD, 2), &view).unwrap();
    let (first, leader) = claimed(ONE_SHARD, 2);
    let to = NodeId(leader.node.0 % 3 + 1);
    let moved = move_leader(&first, to, &view).unwrap();
    let Claim::New(taken) = claim(&moved, to, 8).unwrap() else { panic!() };
    let place = |(at, node)| Place { replica: replica(1, at), node: NodeId(node) };
    let added = vec![[(0, 1), (1, 2), (2, 3)].map(place).to_vec()];
    let grown = grow(&renew(&first, leader).unwrap(), 150, &added).unwrap();
    // A drain moves the leader, and adds a replica elsewhere before the new one has sealed.
    let spare = Place { replica: replica(0, 9), node: NodeId(4) };
    let added = add_member(&taken, 0, spare).unwrap();
    let removed = remove_member(&added, 0, spare.replica).unwrap();
    let minimum = set_min_in_sync(&removed, 1).unwrap();
    for planned in [&made, &first, &moved, &taken, &grown, &added, &removed, &minimum] {
        assert!(planned.planned, "{planned:?}");
    }
    // Its next process most likely follows a failure; the others do.
    let Claim::New(again) = claim(&taken, to, 9).unwrap() else { panic!() };
    let mut without = view.clone();
    without.set_alive(leader.node, false);
    let elected = elect(&first, &without).unwrap();
    let victim = replica(0, if leader.node == NodeId(1) { 1 } else { 0 });
    let dropped = drop_member(&first, leader, 0, victim, &view).unwrap();
    let renewed = renew(&first, leader).unwrap();
    let elsewhere =
        move_leader(&elected, to, &view).or_else(|_| move_leader(&elected, NodeId(3), &view));
    let forced = force_in_sync(&first, 0, replica(0, 0), &view).unwrap();
    for unplanned in [again, elected, dropped, renewed, elsewhere.unwrap(), forced] {
        assert!(!unplanned.planned, "{unplanned:?}");
    }
}

#[test]
fn renewal_begins_a_new_reign_with_the_same_sets() {
    let (config, leader) = claimed(ONE_SHARD, 2);
    let renewed = renew(&config, leader).unwrap();
    assert_eq!((renewed.epoch, renewed.reign, renewed.leader_process), (3, 3, 7));
    assert_eq!(renewed.shards, config.shards);
}

#[test]
fn accuser_that_lost_more_of_its_peers_is_the_suspect() {
    let (config, leader) = claimed(&[&[1, 2, 3, 4]], 2);
    assert_eq!(leader.node, NodeId(1));
    let mut view = alive(4);
    view.add_unreachable(NodeId(1), NodeId(2));
    let drop = |view: &ClusterView| drop_member(&config, leader, 0, replica(0, 1), view);
    assert!(drop(&view).is_ok(), "only their link is broken: the leader goes on");
    view.add_unreachable(NodeId(1), NodeId(3));
    let suspect = Denied::Suspect { accuser: NodeId(1), accused: NodeId(2) };
    assert_eq!(drop(&view), Err(suspect.clone()));
    view.set_unreachable(NodeId(1), [NodeId(2)]);
    view.add_unreachable(NodeId(3), NodeId(1));
    assert_eq!(drop(&view), Err(suspect), "the peers' word counts as well");
    view.add_unreachable(NodeId(4), NodeId(2));
    assert!(drop(&view).is_ok(), "the accused lost as many");
    view.add_unreachable(NodeId(4), NodeId(1));
    view.set_alive(NodeId(2), false);
    assert!(drop(&view).is_ok(), "the session of the accused is gone");
}

#[test]
fn accuser_without_a_session_is_the_suspect_and_a_dead_peer_is_no_evidence() {
    let mut view = alive(4);
    view.add_unreachable(NodeId(1), NodeId(3));
    view.set_alive(NodeId(3), false);
    assert_eq!(view.judge(NodeId(1), NodeId(2)), Verdict::Accused);
    view.set_alive(NodeId(1), false);
    assert_eq!(view.judge(NodeId(1), NodeId(2)), Verdict::Accuser);
    assert_eq!(view.judge(NodeId(1), NodeId(1)), Verdict::Accused, "its own disk");
}

#[test]
fn evidence_grows_old() {
    let mut view = alive(4);
    view.set_unreachable(NodeId(1), [NodeId(3), NodeId(4)]);
    assert_eq!(view.judge(NodeId(1), NodeId(2)), Verdict::Accuser);
    view.set_now_ms(EVIDENCE_FRESH_MS);
    let links = [(1, 3), (1, 4), (3, 1), (4, 1)].map(|(a, b)| (NodeId(a), NodeId(b)));
    assert_eq!(view.broken_links(), links.into());
    assert_eq!(view.judge(NodeId(1), NodeId(2)), Verdict::Accuser);
    view.set_now_ms(EVIDENCE_FRESH_MS + 1);
    assert_eq!(view.judge(NodeId(1), NodeId(2)), Verdict::Accused);
    assert!(view.reach(NodeId(1), NodeId(3)));
    assert!(view.broken_links().is_empty());
    assert_eq!(view.dead().count(), 0);
    view.set_alive(NodeId(2), false);
    assert_eq!(view.dead().collect::<Vec<_>>(), [NodeId(2)]);
    view.set_unreachable(NodeId(3), [NodeId(2)]);
    assert!(view.broken_links().is_empty(), "a link to who is dead tells nothing more");
}

#[test]
fn election_drops_the_dead_leader_and_the_new_one_has_to_claim() {
    let (config, leader) = claimed(ONE_SHARD, 2);
    let mut view = alive(3);
    assert_eq!(elect(&config, &view), Err(Denied::LeaderLives));
    view.set_alive(leader.node, false);
    let elected = elect(&config, &view).unwrap();
    assert_eq!((elected.epoch, elected.leader_process, elected.reign), (3, 0, 0));
    assert_ne!(elected.leader, Some(leader.node));
    assert_eq!(elected.shards[0].in_sync_count(), 2);
    assert_eq!(elected.shards[0].on_node(leader.node).unwrap().role, Role::OutOfSync);
    assert_eq!(renew(&elected, leader), Err(Denied::NotLeader { node: leader.node }));
}

#[test]
fn election_keeps_the_set_where_too_few_are_there() {
    let (config, _) = claimed(ONE_SHARD, 2);
    let mut view = alive(3);
    view.set_alive(NodeId(1), false);
    view.set_alive(NodeId(2), false);
    let elected = elect(&config, &view).unwrap();
    assert_eq!(elected.leader, Some(NodeId(3)));
    assert_eq!(elected.shards, config.shards, "the first that returns completes a quorum");
}

#[test]
fn lone_replica_keeps_its_leader_until_it_returns() {
    let (config, leader) = claimed(&[&[1]], 1);
    let mut view = alive(3);
    view.set_alive(leader.node, false);
    assert_eq!(elect(&config, &view), Err(Denied::NoCandidate));
}

#[test]
fn election_prefers_in_sync_replicas_then_the_least_leading() {
    let (mut config, _) = claimed(&[&[1, 2, 3], &[1, 3, 4]], 1);
    config.leader = Some(NodeId(1));
    let mut view = alive(5);
    view.set_alive(NodeId(1), false);
    assert_eq!(elect(&config, &view).unwrap().leader, Some(NodeId(3)), "holds both shards");
    view.set_alive(NodeId(3), false);
    let busy = NodeView { alive: true, leads: 9, ..NodeView::default() };
    view.set_node(NodeId(2), busy);
    assert_eq!(elect(&config, &view).unwrap().leader, Some(NodeId(4)), "leads less than 2");
    config.shards[1].members[2].role = Role::OutOfSync;
    assert_eq!(elect(&config, &view).unwrap().leader, Some(NodeId(2)), "4 is out of sync");
}

#[test]
fn node_that_is_being_emptied_leads_only_where_nobody_else_can() {
    let (config, leader) = claimed(&[&[1, 2]], 1);
    let mut view = alive(2);
    view.set_alive(leader.node, false);
    let other = NodeId(3 - leader.node.0);
    let draining = NodeView { alive: true, state: NodeState::Draining, ..NodeView::default() };
    view.set_node(other, draining);
    assert_eq!(elect(&config, &view).unwrap().leader, Some(other));
    view.set_alive(NodeId(9), true);
    assert_eq!(elect(&config, &view).unwrap().leader, Some(NodeId(9)), "it forwards");
}

#[test]
fn leader_that_is_cut_off_is_replaced_although_its_session_lives() {
    let (config, leader) = claimed(ONE_SHARD, 2);
    let others: Vec<_> = (1..=3).map(NodeId).filter(|node| *node != leader.node).collect();
    let mut view = alive(3);
    view.add_unreachable(leader.node, others[0]);
    assert_eq!(needs_election(&config, &view), None, "two of three are enough");
    view.add_unreachable(others[1], leader.node);
    assert_eq!(needs_election(&config, &view), Some(Election::LeaderCutOff));
    let elected = elect(&config, &view).unwrap();
    assert!(others.contains(&elected.leader.unwrap()));
    assert_eq!(elected.shards, config.shards, "its session lives, so nobody is dropped yet");
    view.add_unreachable(others[0], others[1]);
    assert_eq!(needs_election(&config, &view), None, "nobody else would serve better");
}

#[test]
fn elections_after_a_death_spread_the_load() {
    let mut view = alive(5);
    let configs: Vec<_> = (0..40u128)
        .map(|n| {
            let mut config = create(&new_volume(&[&[1, 2, 3, 4, 5]], 2), &view).unwrap();
            config.volume = Uuid::from_u128(n);
            config.leader = Some(NodeId(1));
            config
        })
        .collect();
    view.set_alive(NodeId(1), false);
    let elected = elect_all(&configs, &mut view);
    for node in 2..=5 {
        let leads = |(_, it): &&(Uuid, Result<VolumeConfig, Denied>)| {
            it.as_ref().unwrap().leader == Some(NodeId(node))
        };
        assert_eq!(elected.iter().filter(leads).count(), 10);
    }
}

#[test]
fn planned_move_deposes_the_old_leader() {
    let (config, leader) = claimed(ONE_SHARD, 2);
    let view = alive(3);
    let to = NodeId(leader.node.0 % 3 + 1);
    let moved = move_leader(&config, to, &view).unwrap();
    assert_eq!((moved.epoch, moved.leader, moved.leader_process), (3, Some(to), 0));
    let back = move_leader(&moved, leader.node, &view).unwrap();
    assert_eq!(
        renew(&back, Asker { epoch: back.epoch, ..leader }),
        Err(Denied::OldProcess),
        "it has to claim again"
    );
    assert!(matches!(claim(&back, leader.node, leader.process), Ok(Claim::New(_))));
    assert_eq!(
        move_leader(&config, leader.node, &view),
        Err(Denied::AlreadyLeads { node: leader.node })
    );
    assert_eq!(move_leader(&config, NodeId(8), &view), Err(Denied::NotAlive { node: NodeId(8) }));
    let mut lonely = view.clone();
    lonely.set_unreachable(to, (1..=3).map(NodeId));
    assert_eq!(move_leader(&config, to, &lonely), Err(Denied::CutOff { node: to }));
    let mut all_lonely = lonely;
    for id in 1..=3 {
        all_lonely.set_unreachable(NodeId(id), (1..=3).map(NodeId));
    }
    assert!(move_leader(&config, to, &all_lonely).is_ok(), "nobody would do better");
}

#[test]
fn rebalancing_adds_a_learner_and_removes_only_with_enough_left() {
    let (config, _) = claimed(ONE_SHARD, 2);
    let place = Place { replica: replica(0, 9), node: NodeId(4) };
    let added = add_member(&config, 0, place).unwrap();
    assert_eq!(added.shards[0].member(place.replica).unwrap().role, Role::OutOfSync);
    assert_eq!((added.epoch, added.reign), (3, 2));
    assert_eq!(
        add_member(&config, 0, Place { node: NodeId(2), ..place }),
        Err(Denied::NodeTaken { shard: 0, node: NodeId(2) })
    );
    assert_eq!(
        add_member(&config, 0, Place { replica: replica(0, 0), ..place }),
        Err(Denied::ReplicaTaken { replica: replica(0, 0) })
    );
    let removed = remove_member(&added, 0, replica(0, 0)).unwrap();
    assert_eq!(removed.shards[0].in_sync_count(), 2);
    assert_eq!(
        remove_member(&removed, 0, replica(0, 1)),
        Err(Denied::BelowMin { shard: 0, left: 1, min: 2 })
    );
    assert!(remove_member(&removed, 0, place.replica).is_ok());
}

#[test]
fn disk_that_was_carried_to_another_node_takes_its_replicas_along() {
    let (config, leader) = claimed(&[&[1]], 1);
    let moved = relocate(&config, replica(0, 0), NodeId(2)).unwrap();
    check_step(&config, &moved, Step::Relocate).unwrap();
    assert_eq!((moved.leader, moved.leader_process), (Some(NodeId(2)), 0));
    assert_eq!(renew(&moved, leader), Err(Denied::NotLeader { node: NodeId(1) }));
    let (config, _) = claimed(ONE_SHARD, 2);
    let moved = relocate(&config, replica(0, 2), NodeId(7)).unwrap();
    assert_eq!((moved.leader, moved.reign), (config.leader, moved.epoch));
    assert_eq!(
        relocate(&config, replica(0, 2), NodeId(1)),
        Err(Denied::NodeTaken { shard: 0, node: NodeId(1) })
    );
}

#[test]
fn force_makes_one_replica_the_whole_in_sync_set() {
    let (config, leader) = claimed(ONE_SHARD, 2);
    let mut view = alive(3);
    let stale = replica(0, 2);
    let dropped = drop_member(&config, leader, 0, stale, &view).unwrap();
    let lives = force_in_sync(&dropped, 0, stale, &view);
    assert_eq!(lives, Err(Denied::InSyncLives { shard: 0, node: NodeId(1) }));
    view.set_alive(NodeId(1), false);
    view.set_alive(NodeId(2), false);
    let forced = force_in_sync(&dropped, 0, stale, &view).unwrap();
    let in_sync: Vec<_> = forced.shards[0].in_sync().map(|member| member.replica).collect();
    assert_eq!(in_sync, [stale]);
    assert_eq!((forced.leader, forced.leader_process), (Some(NodeId(3)), 0));
    let fewer = force_in_sync(&dropped, 0, replica(0, 0), &alive(3)).unwrap();
    assert_eq!(fewer.shards[0].in_sync_count(), 1, "an in-sync one can be named at any time");
}

#[test]
fn minimum_can_be_changed_within_the_replicas() {
    let (config, _) = claimed(ONE_SHARD, 2);
    assert_eq!(set_min_in_sync(&config, 1).unwrap().min_in_sync, 1);
    assert!(set_min_in_sync(&config, 4).is_err());
    assert!(set_min_in_sync(&config, 0).is_err());
    assert_eq!([1, 2, 3, 4, 5].map(default_min_in_sync), [1, 1, 2, 2, 3]);
}

#[test]
fn growing_adds_shards_and_seals_again() {
    let (config, _) = claimed(&[&[1, 2]], 1);
    let added = vec![vec![Place { replica: replica(1, 0), node: NodeId(2) }]];
    let grown = grow(&config, 150, &added).unwrap();
    assert_eq!((grown.epoch, grown.reign, grown.shards.len()), (3, 3, 2));
    assert_eq!((grown.blocks_of_shard(0), grown.blocks_of_shard(1)), (100, 50));
    assert_eq!(grown.locate(149), Some((1, 49)));
    assert_eq!(grown.locate(150), None);
    assert!(grow(&config, 150, &[]).is_err(), "a shard is missing");
    assert!(grow(&config, 10, &[]).is_err(), "smaller");
    assert_eq!(grow(&config, 99, &[]).unwrap().shards, config.shards);
}

#[test]
fn last_epoch_is_not_passed() {
    let (mut config, _) = claimed(ONE_SHARD, 2);
    config.epoch = u64::MAX;
    assert!(matches!(renew(&config, asker(&config)), Err(Denied::Malformed { .. })));
}

#[test]
fn configuration_has_a_stable_text_form() {
    let (config, _) = claimed(&[&[1]], 1);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(
        text,
        "{\"volume\":\"00000000-0000-0000-0000-000000000001\",\"epoch\":2,\"leader\":1,\
         \"leader_process\":7,\"reign\":2,\"planned\":true,\"min_in_sync\":1,\"blocks\":50,\"shard_blocks\":100,\
         \"shards\":[{\"members\":[{\"replica\":\"00000010-0000-0000-0000-000000000000\",\
         \"node\":1,\"role\":\"in_sync\"}]}]}"
    );
    assert_eq!(serde_json::from_str::<VolumeConfig>(&text).unwrap(), config);
}

#[test]
fn directory_finds_volumes_by_node_and_refuses_old_news() {
    let (config, leader) = claimed(ONE_SHARD, 2);
    let mut directory = Directory::default();
    assert!(directory.put(config.clone()));
    assert!(!directory.put(config.clone()), "the same epoch");
    assert_eq!(directory.leads(leader.node), 1);
    assert_eq!(directory.held_by(NodeId(3)).count(), 1);
    let to = NodeId(leader.node.0 % 3 + 1);
    assert!(directory.put(move_leader(&config, to, &alive(3)).unwrap()));
    assert_eq!((directory.leads(leader.node), directory.led_by(to).count()), (0, 1));
    assert!(directory.remove(config.volume).is_some());
    assert!(directory.is_empty() && directory.held_by(NodeId(3)).next().is_none());
}
