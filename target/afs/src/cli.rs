//! The command line of `afs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use afs_coordination::ServiceManager;
use clap::{Args, Parser, Subcommand};
use conductor::api::{DEFAULT_LISTEN, DEFAULT_URL};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, NodeConfig, Settings};
use crate::data_folder::DataFolder;
use crate::disk_command::{self, DiskCommand};
use crate::signals::StopSignals;
use crate::standalone::{ConductorPlace, Process};

/// Threads for everything that is not I/O of hosts.
const CONTROL_THREADS: usize = 2;

/// Flash in servers as one SAN for stock Linux hosts, over NVMe-oF.
#[derive(Debug, Parser)]
#[command(name = "afs", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node and a conductor in this one process
    Standalone(StandaloneArgs),
    /// Run a node that follows a conductor elsewhere
    Serve(ServeArgs),
    /// Look after one disk while nothing uses it
    #[command(subcommand)]
    Disk(DiskCommand),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file (TOML); every key is also a flag and an environment variable
    #[arg(long, env = "AFS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct StandaloneArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// Where the conductor's API is
    #[arg(long, env = "AFS_API", value_name = "ADDR:PORT", default_value = DEFAULT_LISTEN)]
    api: SocketAddr,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("afs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let (args, api) = match cli.command {
        Command::Disk(command) => return disk_command::run(command),
        Command::Serve(args) => (args, None),
        Command::Standalone(args) => (args.serve, Some(args.api)),
    };
    let settings = args.settings.with_file(args.config.as_deref())?;
    start_log(&settings)?;
    let config = NodeConfig::new(&settings)?;
    let zookeeper = config.zookeeper.is_some();
    let place = conductor_place(api, settings.conductor.as_deref(), zookeeper)?;
    raise_file_limit();
    let data = DataFolder::open(&config.data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    runtime.block_on(run_process(&config, &data, place))?;
    Ok(ExitCode::SUCCESS)
}

fn conductor_place(
    api: Option<SocketAddr>,
    conductor: Option<&str>,
    zookeeper: bool,
) -> anyhow::Result<ConductorPlace> {
    // With ZooKeeper there need be no address: it knows them.
    let usual = if zookeeper { "" } else { DEFAULT_URL };
    match (api, conductor) {
        (Some(_), _) if zookeeper => anyhow::bail!(
            "`zookeeper` is set, but standalone has its own conductor: remove it, or use `afs serve`"
        ),
        (Some(_), Some(_)) => anyhow::bail!(
            "`conductor` is set, but standalone has its own conductor: remove it, or use `afs serve`"
        ),
        (Some(api), None) => Ok(ConductorPlace::Here(api)),
        (None, url) => Ok(ConductorPlace::At(url.unwrap_or(usual).to_owned())),
    }
}

async fn run_process(
    config: &NodeConfig,
    data: &DataFolder,
    place: ConductorPlace,
) -> anyhow::Result<()> {
    let mut signals = StopSignals::new()?;
    let manager = Arc::new(ServiceManager::of_this_process());
    manager.doing("opening disks");
    let mut process = tokio::select! {
        started = Process::start(config, data, place) => started?,
        () = signals.next() => return Ok(()),
    };
    manager.doing("waiting for the conductor");
    let served = tokio::select! {
        served = process.node.serve() => served.map(|()| true),
        () = signals.next() => Ok(false),
    };
    let result = match served {
        Ok(true) => until_stopped(&mut process, &mut signals, &manager).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error.into()),
    };
    manager.stopping();
    signals.exit_at_next();
    process.stop().await;
    result
}

async fn until_stopped(
    process: &mut Process,
    signals: &mut StopSignals,
    manager: &Arc<ServiceManager>,
) -> anyhow::Result<()> {
    print!("{}", process.summary());
    std::io::Write::flush(&mut std::io::stdout())?;
    process.node.beat(manager);
    let ready = async {
        manager.ready().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = ready => Ok(()),
        () = signals.next() => {
            tracing::info!("stopping; once more to stop at once");
            Ok(())
        }
        error = process.node.failed() => Err(error.into()),
    }
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = settings.log.as_deref().unwrap_or("info");
    // What ZooKeeper's client has to say at each attempt is said once by its user.
    let filter = EnvFilter::try_new(format!("zookeeper_client=off,{filter}")).map_err(|error| {
        anyhow::anyhow!("`log = {filter}`: {error}; write a level such as info, or afs=debug")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let started = match settings.log_format.unwrap_or_default() {
        LogFormat::Human => log.with_target(false).with_ansi(ansi).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}

/// Every connection is a file descriptor, and the usual soft limit of 1024 is for programs that use select(2).
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is; many hosts may not be served");
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistyped_flag_is_answered_with_the_right_one() {
        let error = Cli::try_parse_from(["afs", "standalone", "--lisen", "x"])
            .err()
            .map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("'--listen'")));
    }
}
