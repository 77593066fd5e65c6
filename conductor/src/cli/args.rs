//! What can be typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use conductor::size::parse_size;

use super::settings::ServeArguments;

/// Manages the volumes, subsystems and hosts of an Afs cluster.
#[derive(Debug, Parser)]
#[command(name = "conductor", version, about, propagate_version = true)]
pub(super) struct Arguments {
    /// Where the conductor's API is, or the APIs of several conductors with commas between them;
    /// `serve` listens there, on IP:PORT [default: 127.0.0.1:49180]
    #[arg(
        long,
        overrides_with = "api",
        env = "CONDUCTOR_API",
        global = true,
        value_name = "URL,...|IP:PORT"
    )]
    pub(super) api: Option<String>,
    /// How to print answers.
    #[arg(long, value_enum, default_value_t = Output::Table, global = true)]
    pub(super) output: Output,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// How to print answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Table,
    /// For programs: what the API answered.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(flatten)]
    Ask(Question),
    /// Run the conductor.
    Serve(ServeArguments),
}

/// What a conductor that runs is asked.
#[derive(Debug, Subcommand)]
pub(super) enum Question {
    /// Thin volumes.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// What hosts connect to.
    #[command(subcommand)]
    Subsystem(SubsystemCommand),
    /// Which volume is which namespace of which subsystem.
    #[command(subcommand)]
    Namespace(NamespaceCommand),
    /// Which host may use which subsystem.
    #[command(subcommand)]
    Host(HostCommand),
    /// Print the commands that connect a host.
    ConnectInfo {
        /// NQN of the subsystem.
        nqn: String,
        /// NQN of the host (on it: cat /etc/nvme/hostnqn).
        #[arg(value_name = "HOSTNQN")]
        host: Option<String>,
    },
    /// Servers that hold and export volumes.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Disks of all nodes.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// What happened, oldest first.
    Events {
        /// Go on printing as things happen.
        #[arg(long, short)]
        follow: bool,
        /// How many past events.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// The cluster on one page.
    Status,
}

#[derive(Debug, Subcommand)]
pub(super) enum VolumeCommand {
    /// Make a thin volume.
    Create {
        /// Its name: 1 to 63 of a-z 0-9 . _ -
        name: String,
        /// Its size, such as 10G (binary units K, M, G, T).
        #[arg(long, value_parser = parse_size)]
        size: u64,
        /// UUID or path of the disk; chosen by free space when left out. A null disk is chosen
        /// by itself only where there is no other.
        #[arg(long, value_name = "UUID|PATH", conflicts_with = "replicas")]
        disk: Option<String>,
        /// Copies of each block, each on a node of its own, 1 to 5; 1 when left out.
        #[arg(long, value_name = "N")]
        replicas: Option<u8>,
        /// Writes wait while fewer copies are in sync; 1 of 1, 1 of 2, 2 of 3 when left out.
        #[arg(long, value_name = "M")]
        min_in_sync: Option<u8>,
        /// Size of the pieces that are placed each by itself, such as 64G.
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        shard_size: Option<u64>,
    },
    /// List volumes.
    List,
    /// Show one volume.
    Show {
        /// Name or UUID.
        name: String,
    },
    /// Make a volume larger; hosts see it at once.
    Resize {
        /// Name or UUID.
        name: String,
        /// The new size, such as 20G.
        #[arg(long, value_parser = parse_size)]
        size: u64,
    },
    /// Let another node lead a volume; hosts are not disturbed.
    Lead {
        /// Name or UUID.
        name: String,
        /// The node.
        #[arg(long, value_name = "NODE")]
        on: String,
    },
    /// Set how many copies must be in sync; with fewer, writes wait.
    MinInSync {
        /// Name or UUID.
        name: String,
        /// How many.
        min_in_sync: u8,
    },
    /// Count one replica alone as in sync, when the others are lost.
    ///
    /// A replica that is out of sync may lack writes that hosts were told are done: they are lost
    /// then. It is refused while a node with an in-sync replica is there.
    Force {
        /// Name or UUID.
        name: String,
        /// The replica, from `volume show`.
        #[arg(long, value_name = "UUID")]
        replica: uuid::Uuid,
        /// Say that you know that data may be lost.
        #[arg(long, required = true)]
        data_may_be_lost: bool,
    },
    /// Delete a volume with all its data.
    Delete {
        /// Name or UUID.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SubsystemCommand {
    /// Make a subsystem.
    Create {
        /// Its NQN, such as nqn.2026-11.com.example:database
        nqn: String,
    },
    /// List subsystems.
    List,
    /// Show one with its namespaces and hosts.
    Show {
        /// Its NQN.
        nqn: String,
    },
    /// Delete one that has no namespaces.
    Delete {
        /// Its NQN.
        nqn: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum NamespaceCommand {
    /// Export a volume; connected hosts see the disk at once.
    Add {
        /// NQN of the subsystem.
        nqn: String,
        /// Name or UUID of the volume.
        #[arg(long, value_name = "NAME")]
        volume: String,
        /// Its NSID, 1 to 1024; the next free one when left out.
        #[arg(long, value_name = "N")]
        nsid: Option<u32>,
        /// Let hosts only read.
        #[arg(long)]
        read_only: bool,
    },
    /// Stop exporting a volume; its data stays.
    Remove {
        /// NQN of the subsystem.
        nqn: String,
        #[command(flatten)]
        which: WhichNamespace,
    },
    /// List the namespaces of a subsystem.
    List {
        /// NQN of the subsystem.
        nqn: String,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct WhichNamespace {
    /// By NSID.
    #[arg(long, value_name = "N")]
    pub(super) nsid: Option<u32>,
    /// By name or UUID of its volume.
    #[arg(long, value_name = "NAME")]
    pub(super) volume: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum HostCommand {
    /// Let a host use a subsystem.
    Allow {
        /// NQN of the subsystem.
        nqn: String,
        /// NQN of the host (on it: cat /etc/nvme/hostnqn), or `any`.
        #[arg(value_name = "HOSTNQN|any")]
        host: String,
    },
    /// Take a host off the list.
    Deny {
        /// NQN of the subsystem.
        nqn: String,
        /// NQN of the host, or `any`.
        #[arg(value_name = "HOSTNQN|any")]
        host: String,
    },
    /// List who may use a subsystem, or all subsystems.
    List {
        /// NQN of the subsystem.
        nqn: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// List nodes.
    List,
    /// Show one node with its listeners and disks.
    Show {
        /// Its name.
        name: String,
    },
    /// Empty a node: others lead its volumes, and its replicas move away.
    Drain {
        /// Its name.
        name: String,
    },
    /// Let a node take part again.
    Resume {
        /// Its name.
        name: String,
    },
    /// Forget a node that is stopped and empty.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DiskCommand {
    /// List disks.
    List,
    /// Show one disk.
    Show {
        /// UUID or path.
        disk: String,
    },
    /// Empty a disk: its replicas move away.
    Retire {
        /// UUID or path.
        disk: String,
    },
    /// Let a disk be used again.
    Restore {
        /// UUID or path.
        disk: String,
    },
}
