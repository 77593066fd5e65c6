//! Disks of a guest, and empty images for them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A disk of the guest: `/dev/vda` is the first.
#[derive(Clone, Debug)]
pub struct Drive {
    /// An image on the build machine.
    pub image: PathBuf,
    /// `raw` or `qcow2`. A qcow2 image keeps the place of new blocks in QEMU's memory until the guest flushes, so cutting the power
    /// loses first writes that were not flushed; raw images lose nothing.
    pub format: &'static str,
}

impl Drive {
    /// A sparse raw image of `bytes` zeroes.
    pub fn raw(image: PathBuf, bytes: u64) -> Result<Self> {
        let made = File::create(&image).and_then(|file| file.set_len(bytes));
        made.with_context(|| format!("make the image {}", image.display()))?;
        Ok(Self { image, format: "raw" })
    }

    /// An empty qcow2 image of `bytes` zeroes, at most 4 TiB.
    pub fn qcow2(image: PathBuf, bytes: u64) -> Result<Self> {
        write_qcow2(&image, bytes)
            .with_context(|| format!("make the image {}", image.display()))?;
        Ok(Self { image, format: "qcow2" })
    }
}

const CLUSTER_BITS: u32 = 16;
const CLUSTER: usize = 1 << CLUSTER_BITS;
/// Bytes of the disk behind one entry of the first-level table: a cluster full of 8-byte entries, a cluster each.
const L1_ENTRY_BYTES: u64 = (CLUSTER as u64 / 8) << CLUSTER_BITS;

/// Four clusters: header, refcount table, refcount block, first-level table (QEMU's docs/interop/qcow2.txt, version 3).
fn write_qcow2(image: &Path, bytes: u64) -> Result<()> {
    let entries = u32::try_from(bytes.div_ceil(L1_ENTRY_BYTES))?;
    let [table, block, first_level] = [1, 2, 3].map(|cluster: u64| cluster << CLUSTER_BITS);
    let mut file = vec![0; 4 * CLUSTER];
    let header = [
        b"QFI\xfb".to_vec(),
        3u32.to_be_bytes().to_vec(),
        // No image behind this one: offset and length of its name.
        vec![0; 12],
        CLUSTER_BITS.to_be_bytes().to_vec(),
        bytes.to_be_bytes().to_vec(),
        // Not encrypted.
        vec![0; 4],
        entries.to_be_bytes().to_vec(),
        first_level.to_be_bytes().to_vec(),
        table.to_be_bytes().to_vec(),
        1u32.to_be_bytes().to_vec(),
        // No snapshots, no features.
        vec![0; 36],
        // Refcounts of 16 bits; the header's length.
        4u32.to_be_bytes().to_vec(),
        104u32.to_be_bytes().to_vec(),
    ]
    .concat();
    file[..header.len()].copy_from_slice(&header);
    file[CLUSTER..][..8].copy_from_slice(&block.to_be_bytes());
    for cluster in 0..4 {
        file[2 * CLUSTER + 2 * cluster + 1] = 1;
    }
    fs::write(image, file)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::paths::RunDir;

    #[test]
    fn header_of_an_empty_image_has_its_length_and_the_size_of_the_disk() {
        let folder = RunDir::new("unit").unwrap();
        let drive = Drive::qcow2(folder.join("image"), 2 << 30).unwrap();
        let file = fs::read(drive.image).unwrap();
        assert_eq!(file.len(), 4 * CLUSTER);
        assert_eq!(file[24..32], (2u64 << 30).to_be_bytes());
        // 512 MiB for each entry of the first-level table.
        assert_eq!(file[36..40], [0, 0, 0, 4]);
        assert_eq!(file[100..104], 104u32.to_be_bytes());
    }
}
