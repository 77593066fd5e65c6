//! `afs disk format|inspect|check`: looking after one disk while nothing uses it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use afs_env::{OsRandom, Random};
use afs_reactor::{DiskFile, DiskOptions, ReactorConfig, Reactors, RingDisk};
use afs_store::{Contents, DiskInfo, FormatError, FormatOptions};
use clap::Subcommand;
use conductor::size::{human, parse_size};
use uuid::Uuid;

/// Enough for the large reads of a check.
const BUFFER_BYTES: usize = 64 << 20;

/// What to do with a disk.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// Make a file or device an afs disk; refuses to overwrite anything unless forced
    Format {
        /// Overwrite whatever is there
        #[arg(long)]
        force: bool,
        /// Size of the file to make, such as 100G, if there is none
        #[arg(long, value_name = "SIZE")]
        size: Option<String>,
        /// File or device
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// Say what is on a file or device; changes nothing
    Inspect {
        /// File or device
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// Read all tables and the journal of an afs disk and say what is wrong; changes nothing
    Check {
        /// File or device
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

/// Runs the command on a reactor of its own.
pub fn run(command: DiskCommand) -> anyhow::Result<ExitCode> {
    match command {
        DiskCommand::Format { force, size, path } => format(&path, force, size.as_deref()),
        DiskCommand::Inspect { path } => inspect(&path),
        DiskCommand::Check { path } => check(&path),
    }
}

fn format(path: &Path, force: bool, size: Option<&str>) -> anyhow::Result<ExitCode> {
    let create_size = size.map(parse_size).transpose()?;
    let file = DiskFile::open(path, &DiskOptions { create_size, ..DiskOptions::default() })?;
    let info = on_reactor(&file, move |disk| async move {
        let options =
            FormatOptions { force, ..FormatOptions::new(Uuid::new_v4(), OsRandom.next_u64()) };
        afs_store::format(&disk, &options).await
    })?;
    match info {
        Ok(info) => {
            println!("{} is an afs disk now", path.display());
            print_info(&info);
            Ok(ExitCode::SUCCESS)
        }
        Err(FormatError::InUse(contents)) => anyhow::bail!(
            "{0} holds {contents}; nothing was written. If that may be destroyed: afs disk format --force {0}",
            path.display()
        ),
        Err(error) => anyhow::bail!("{}: {error}", path.display()),
    }
}

fn inspect(path: &Path) -> anyhow::Result<ExitCode> {
    let file = open_read_only(path)?;
    let contents = on_reactor(&file, |disk| async move { afs_store::inspect(&disk).await })??;
    println!("{}: {contents}", path.display());
    if let Contents::Afs(info) = &contents {
        print_info(info);
    }
    Ok(ExitCode::SUCCESS)
}

fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let file = open_read_only(path)?;
    let report = on_reactor(&file, |disk| async move { afs_store::check(&disk, |_| ()).await })?
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    print_info(&report.info);
    for replica in &report.replicas {
        let size = human(replica.blocks * u64::from(afs_store::BLOCK_BYTES));
        println!("replica   {} of {size}, {} used", replica.id, human(replica.allocated_bytes));
    }
    println!("used      {} chunks, {} blocks with data", report.chunks_used, report.blocks_data);
    for warning in &report.warnings {
        println!("warning   {warning}");
    }
    match &report.damage {
        None => {
            println!("{}: no damage found", path.display());
            Ok(ExitCode::SUCCESS)
        }
        Some(damage) => {
            println!("DAMAGE    {damage}");
            println!(
                "{}: what it holds must be rebuilt from other replicas or a backup",
                path.display()
            );
            Ok(ExitCode::FAILURE)
        }
    }
}

fn open_read_only(path: &Path) -> Result<DiskFile, afs_reactor::OpenError> {
    DiskFile::open(path, &DiskOptions { read_only: true, ..DiskOptions::default() })
}

fn on_reactor<T, F>(
    file: &DiskFile,
    work: impl FnOnce(RingDisk) -> F + Send + 'static,
) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let reactors =
        Reactors::start(ReactorConfig { buffer_bytes: BUFFER_BYTES, ..ReactorConfig::default() })?;
    let file = file.clone();
    let done = reactors.handle(0).run(move |local| async move {
        let disk = RingDisk::new(&local, &file)?;
        std::io::Result::Ok(work(disk).await)
    });
    Ok(done??)
}

fn print_info(info: &DiskInfo) {
    let lines = [
        ("identity", info.disk_id.to_string()),
        ("size", human(info.disk_bytes)),
        ("chunks", format!("{} of {}", info.chunks, human(u64::from(info.chunk_bytes)))),
        ("journal", human(info.journal_bytes)),
        ("version", info.version.to_string()),
        (
            "closed",
            if info.clean {
                "in good order"
            } else {
                "no: the journal is replayed at the next start"
            }
            .to_owned(),
        ),
    ];
    for (what, value) in lines {
        println!("{what:<9} {value}");
    }
}
