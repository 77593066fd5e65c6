//! Figures of the process itself, under the names that every Prometheus client library uses.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::export::Exposition;

/// Adds the process figures and `afs_build_info`. A figure that cannot be read is left out.
pub(super) fn collect(scrape: &mut Exposition) {
    let labels = [("version", env!("CARGO_PKG_VERSION"))];
    scrape.gauge("afs_build_info", "Version of this program; the value is always 1.", &labels, 1.0);
    scrape.counter_seconds(
        "process_cpu_seconds_total",
        "User and system CPU time.",
        &[],
        cpu_time().as_secs_f64(),
    );
    if let Some(files) = open_files() {
        scrape.gauge("process_open_fds", "Open file descriptors.", &[], files as f64);
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        scrape.gauge("process_max_fds", "File descriptors that may be open.", &[], limit as f64);
    }
    if let Some((virtual_bytes, resident_bytes)) = memory() {
        scrape.gauge("process_virtual_memory_bytes", "Virtual memory.", &[], virtual_bytes);
        scrape.gauge("process_resident_memory_bytes", "Resident memory.", &[], resident_bytes);
    }
    if let Some(start) = start_time() {
        scrape.gauge(
            "process_start_time_seconds",
            "Start of the process, seconds since 1970.",
            &[],
            start,
        );
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn open_files() -> Option<usize> {
    fs::read_dir("/proc/self/fd").ok().map(Iterator::count)
}

/// Virtual and resident bytes, from `/proc/self/statm` (in pages).
fn memory() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').map(|field| field.trim().parse::<f64>().ok());
    let page_bytes = rustix::param::page_size() as f64;
    Some((pages.next()?? * page_bytes, pages.next()?? * page_bytes))
}

/// The process folder in `/proc` is as old as the process.
fn start_time() -> Option<f64> {
    let made: SystemTime = fs::metadata("/proc/self/stat").ok()?.modified().ok()?;
    made.duration_since(UNIX_EPOCH).ok().map(|age| age.as_secs_f64())
}
