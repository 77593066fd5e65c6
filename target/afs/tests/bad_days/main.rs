//! Bad days of a cluster: real nodes, a real conductor, our own host, no guest. Each ends in the right data or a clear refusal.
//!
//! | bad day | test |
//! |---|---|
//! | a node is started with the disk of another one | `disks::a_disk_in_another_node_is_served_only_where_it_fits_and_nothing_is_lost` |
//! | the disk of a replica is swapped for an empty one | `disks::an_empty_disk_is_not_taken_for_a_full_one_and_is_filled_when_told` |
//! | the disk of a replica is full, others are not | `full::a_full_replica_refuses_what_needs_space_and_stays_equal` |
//! | a replica answers slowly for ever | `slow::a_replica_that_is_slow_for_ever_is_left_alone_ever_longer` |
//! | SIGSTOP of the leader for 30 s under load, then SIGCONT | `frozen::a_leader_that_was_frozen_for_long_returns_as_a_replica_without_harm` |
//! | a delayed write on a dead path whose retry was overwritten (CONFORMANCE M-45) | `frozen::a_late_write_of_a_dead_path_never_lands_on_a_newer_one` |
//! | an old copy of MetaDB is put back under a running cluster | `metadb::an_old_copy_of_metadb_decides_nothing_about_volumes_that_have_moved_on` |
//! | a node that leads is stopped, or is to lead again at once | `moves::a_node_that_led_can_lead_again_and_can_stop_at_once` |
//!
//! Elsewhere:
//!
//! | bad day | test |
//! |---|---|
//! | two conductors that both think that they are active | `conductor/tests/several.rs`: `of_two_that_think_that_they_are_active_the_older_one_is_refused`, `a_frozen_conductor_is_replaced_and_decides_nothing_when_it_goes_on` |
//! | PostgreSQL stopped | `conductor/tests/postgres.rs`: `conductor_goes_on_by_itself_when_its_database_is_back` |
//! | PostgreSQL slow, or an answer of it lost | `conductor/src/db/postgres_tests.rs`: `database_that_hangs_is_given_up_in_time_and_used_again_when_it_answers`, `decision_that_cannot_be_read_back_is_called_unknown_and_learnt_of_later` |
//! | PostgreSQL restored from an old copy | `conductor/src/db/tests.rs`: `older_copy_is_noticed_by_what_a_node_has_applied_and_numbers_go_on_above`, `copy_that_is_put_in_place_under_a_running_conductor_is_noticed` |
//! | ZooKeeper stopped, a session lost | `conductor/tests/several.rs`: `without_zookeeper_nobody_decides_and_after_it_one_does`; `target/afs/tests/zookeeper.rs` |
//! | all nodes lose power and come back one by one | `power::all_nodes_lose_their_power_and_come_back_in_any_order`; `replication/sim/tests/cluster.rs` |
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and numbers here are small"
)]

#[path = "../common/mod.rs"]
mod common;

mod disks;
mod figures;
mod frozen;
mod full;
mod host;
mod metadb;
mod moves;
mod power;
mod rig;
mod slow;
