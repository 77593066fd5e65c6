//! A stock Linux host, kernels 6.1 and 6.12, against a node: over TCP one that runs natively on this machine, over RDMA
//! one that runs in the guest beside the host.
//!
//! Each test gets a [`Scene`](nvmf_tests::scene::Scene): the guest that all tests of one kernel share, and a fresh
//! node. They run under `cargo lab test`. At the end of every test the host disconnects, and neither its kernel log nor
//! the node may hold anything to complain about.

mod absent;
mod cluster;
mod commands;
mod devices;
mod digests;
mod failure;
mod files;
mod growth;
mod hostile;
mod hosts;
mod multipath;
mod namespaces;
mod resources;
mod tools;
mod verify;

nvmf_tests::on_every_kernel! {
    crosswise {
        namespaces {
            namespaces_come_and_go_without_a_reconnect,
            host_that_is_not_allowed_sees_and_gets_nothing,
        }
        verify {
            every_shape_of_io_is_read_back_as_written,
        }
        cluster {
            no_failure_takes_a_replicated_volume_from_its_host,
        }
    }
    over tcp {
        tools {
            host_discovers_and_connects_to_all_that_it_may_see,
            reset_and_rescan_keep_the_disk,
        }
        failure {
            killed_node_comes_back_under_io_and_nothing_is_lost,
        }
        digests {
            digests_change_nothing_but_the_checking,
        }
    }
    over tcp, the older kernel in long runs {
        commands {
            identify_pages_and_logs_print_sensible_values,
            features_can_be_read_and_set,
            data_commands_do_what_they_say,
        }
    }
    over rdma, the older kernel in long runs {
        multipath {
            discovery_by_either_transport_lists_both,
        }
    }
    on one kernel over tcp {
        resources {
            connections_in_turn_leave_nothing_behind,
            sixty_four_hosts_at_once_leave_nothing_behind,
            storm_of_hosts_that_come_back_leaves_nothing_behind,
        }
        files {
            ext4_holds_its_files_and_gives_space_back,
        }
        growth {
            full_pool_stops_new_blocks_only,
        }
        cluster {
            restart_of_all_nodes_in_turn_is_hardly_noticed,
        }
    }
    on one kernel over rdma {
        resources {
            sixty_four_hosts_at_once_leave_nothing_behind,
        }
        files {
            xfs_holds_its_files_and_gives_space_back,
        }
        growth {
            mounted_host_sees_its_volume_grow,
        }
        multipath {
            either_transport_may_go_and_come_back_under_every_path_policy,
        }
        devices {
            lost_device_costs_no_io_and_serves_again_when_it_is_back,
            address_that_leaves_its_device_is_served_where_it_appears,
        }
        hosts {
            host_that_loses_its_power_under_load_leaves_nothing_behind,
        }
        absent {
            node_without_a_device_serves_it_once_it_is_there,
        }
        hostile {
            hostile_host_harms_nobody_but_itself,
        }
    }
    on one kernel over rdma in long runs {
        resources {
            connections_in_turn_leave_nothing_behind,
            storm_of_hosts_that_come_back_leaves_nothing_behind,
        }
        tools {
            host_discovers_and_connects_to_all_that_it_may_see,
            reset_and_rescan_keep_the_disk,
        }
        commands {
            identify_pages_and_logs_print_sensible_values,
            features_can_be_read_and_set,
            data_commands_do_what_they_say,
        }
        failure {
            killed_node_comes_back_under_io_and_nothing_is_lost,
        }
        devices {
            ipv6_carries_io_as_well,
        }
        absent {
            node_without_the_library_serves_tcp_and_says_so,
            node_that_may_not_use_the_devices_says_what_to_set,
        }
    }
}
