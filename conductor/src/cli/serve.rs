//! `conductor serve`: the daemon.

use std::io::IsTerminal;
use std::sync::Arc;

use afs_coordination::ServiceManager;
use conductor::server::Conductor;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use super::settings::{InForce, LogFormat, ServeArguments};

/// Serves until SIGTERM or SIGINT; `api` is the program's `--api`.
pub(super) fn run(arguments: ServeArguments, api: Option<String>) -> Result<(), Failure> {
    let settings = arguments.in_force(api.as_deref())?;
    start_log(&settings)?;
    allow_connections();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::other("cannot start"))?;
    runtime.block_on(async {
        // Before anything is opened, so that a signal during the start is not lost.
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let told = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        tokio::pin!(told);
        let manager = Arc::new(ServiceManager::of_this_process());
        // The start may wait for a database.
        manager.doing("opening MetaDB");
        let started = tokio::select! {
            started = Conductor::start(settings.conductor) => started,
            () = &mut told => return Ok(()),
        };
        let running = started.map_err(|error| Failure::Other(error.to_string()))?;
        let lives = Arc::clone(&manager);
        tokio::spawn(async move { lives.beat_while(|| std::future::ready(true)).await });
        tokio::select! {
            () = told => {}
            () = ready(&manager) => {}
        }
        manager.stopping();
        running.stop().await;
        Ok(())
    })
}

/// Tells the service manager, and does not end.
async fn ready(manager: &ServiceManager) {
    manager.ready().await;
    std::future::pending().await
}

/// Each connection is an open file, and the usual limit, which a process may raise by itself, is below what a large cluster needs.
fn allow_connections() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn no_signals(error: std::io::Error) -> Failure {
    Failure::Other(format!("cannot wait for signals: {error}"))
}

fn start_log(settings: &InForce) -> Result<(), Failure> {
    // What ZooKeeper's client has to say at each attempt is said once by its user.
    let filter = EnvFilter::try_new(format!("zookeeper_client=off,{}", settings.log))
        .map_err(|error| Failure::Usage(format!("log = `{}`: {error}", settings.log)))?;
    // A reader of the log that goes away must not take the conductor with it.
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    let log = log.with_writer(std::io::stderr);
    let started = match settings.log_format {
        LogFormat::Human => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(Failure::other("cannot start the log"))
}
