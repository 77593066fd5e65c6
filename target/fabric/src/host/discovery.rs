//! Reads the discovery log of a discovery controller (CONFORMANCE 4.7, D-8).

use afs_nvme::log::{DiscoveryEntry, DiscoveryHeader, lid};
use zerocopy::FromBytes;

use super::controller::HostController;
use super::error::HostError;

/// Bytes of the header and of each entry.
const RECORD_BYTES: usize = 1024;
/// Entries read with one command.
const ENTRIES_PER_READ: u64 = 4;
/// Times that the log is read anew because it changed meanwhile.
const ATTEMPTS: usize = 10;
/// Entries that are believed; a larger number is a broken controller.
const MAX_ENTRIES: u64 = 1 << 20;

/// A consistent copy of a discovery log.
#[derive(Clone, Debug)]
pub struct DiscoveryLog {
    /// Generation of the content.
    pub generation: u64,
    /// Its entries.
    pub entries: Vec<DiscoveryEntry>,
}

/// Reads the whole log, again if it changes meanwhile.
///
/// # Errors
/// See [`HostController::log_page`]; [`HostError::Unusable`] when it never stops changing.
pub async fn read_discovery_log(controller: &HostController) -> Result<DiscoveryLog, HostError> {
    for _ in 0..ATTEMPTS {
        let (generation, count) = header(controller).await?;
        let mut entries = Vec::new();
        while (entries.len() as u64) < count {
            let first = entries.len() as u64;
            let wanted = ENTRIES_PER_READ.min(count - first);
            let bytes = RECORD_BYTES * usize::try_from(wanted).unwrap_or(1);
            let offset = (first + 1) * RECORD_BYTES as u64;
            let data = controller.log_page(lid::DISCOVERY, 0, offset, bytes).await?;
            for record in data.chunks_exact(RECORD_BYTES) {
                let entry = DiscoveryEntry::read_from_bytes(record)
                    .map_err(|_| HostError::Unusable("discovery entry of the wrong length"))?;
                entries.push(entry);
            }
        }
        if header(controller).await? == (generation, count) {
            return Ok(DiscoveryLog { generation, entries });
        }
    }
    Err(HostError::Unusable("the discovery log changes faster than it can be read"))
}

async fn header(controller: &HostController) -> Result<(u64, u64), HostError> {
    let data = controller.log_page(lid::DISCOVERY, 0, 0, RECORD_BYTES).await?;
    let header = DiscoveryHeader::ref_from_bytes(&data)
        .map_err(|_| HostError::Unusable("discovery header of the wrong length"))?;
    let count = header.numrec.get();
    if count > MAX_ENTRIES {
        return Err(HostError::Unusable("a discovery log of more than a million entries"));
    }
    Ok((header.genctr.get(), count))
}
