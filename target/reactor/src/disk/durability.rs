//! What it takes to make a write durable on a disk: found out from the kernel's description of
//! the device, which for a file is the device beneath its file system.

use std::fs;
use std::path::{Path, PathBuf};

use super::BLOCK_BYTES;

/// How a durable write is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The device has no volatile cache: every completed write is durable.
    WriteThrough,
    /// Each write says that it must be durable (`RWF_DSYNC`), which the device does by itself
    /// (FUA), or the kernel does for file-system metadata.
    EachWrite,
    /// Plain writes, and one sync for all that completed before it; when many are under way, the later ones say each
    /// that they must be durable, and the kernel flushes for them.
    SharedSync,
}

/// What the kernel says about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeviceTraits {
    /// A power cut takes completed writes back.
    pub(super) volatile_cache: bool,
    /// The device can write through its cache.
    pub(super) fua: bool,
    /// What the device writes whole, in bytes; 512 when unknown.
    pub(super) physical_block: u32,
}

impl DeviceTraits {
    /// Nothing is known: the worst is assumed.
    pub(super) const UNKNOWN: DeviceTraits =
        DeviceTraits { volatile_cache: true, fua: false, physical_block: 512 };

    /// Reads about device `major:minor` below `sysfs` (`/sys`).
    pub(super) fn read(sysfs: &Path, major: u32, minor: u32) -> DeviceTraits {
        let Some(queue) = queue_directory(sysfs, major, minor) else {
            return DeviceTraits::UNKNOWN;
        };
        let value = |name: &str| fs::read_to_string(queue.join(name)).ok();
        let volatile_cache = value("write_cache").is_none_or(|v| v.trim() != "write through");
        let fua = value("fua").is_some_and(|v| v.trim() == "1");
        let physical_block = value("physical_block_size")
            .and_then(|v| v.trim().parse().ok())
            .filter(|bytes: &u32| bytes.is_power_of_two())
            .unwrap_or(DeviceTraits::UNKNOWN.physical_block);
        DeviceTraits { volatile_cache, fua, physical_block }
    }

    /// For a whole device or a partition of it.
    pub(super) fn of_device(self) -> Durability {
        match (self.volatile_cache, self.fua) {
            (false, _) => Durability::WriteThrough,
            (true, true) => Durability::EachWrite,
            (true, false) => Durability::SharedSync,
        }
    }

    /// For a file on the device. Even when the device has no volatile cache, the file system may
    /// have to note that a block was written for the first time, so each write must say that it
    /// is to be durable; where nothing is to be noted that costs nothing. Buffered writes sit in
    /// memory and are better synced together.
    pub(super) fn of_file(self, direct: bool) -> Durability {
        match self.of_device() {
            Durability::WriteThrough | Durability::EachWrite if direct => Durability::EachWrite,
            _ => Durability::SharedSync,
        }
    }

    /// What a file with blocks of `file_system_block` writes whole.
    pub(super) fn atomic_unit_of_file(self, file_system_block: u64) -> u32 {
        let unit = u64::from(self.physical_block).min(file_system_block.max(512)).min(BLOCK_BYTES);
        u32::try_from(unit).ok().filter(|unit| unit.is_power_of_two()).unwrap_or(512)
    }
}

/// The `queue` directory of the disk that the device is, or is a partition of.
fn queue_directory(sysfs: &Path, major: u32, minor: u32) -> Option<PathBuf> {
    // Major 0 is for file systems that are not on one device (tmpfs, overlay, btrfs).
    if major == 0 {
        return None;
    }
    let device = fs::canonicalize(sysfs.join(format!("dev/block/{major}:{minor}"))).ok()?;
    let disk = if device.join("partition").exists() { device.parent()? } else { &device };
    Some(disk.join("queue"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sysfs(cache: &str, fua: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("devices/disk");
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir_all(disk.join("disk1")).unwrap();
        fs::write(disk.join("disk1/partition"), "1\n").unwrap();
        fs::write(disk.join("queue/write_cache"), cache).unwrap();
        fs::write(disk.join("queue/fua"), fua).unwrap();
        fs::write(disk.join("queue/physical_block_size"), "4096\n").unwrap();
        let links = root.path().join("dev/block");
        fs::create_dir_all(&links).unwrap();
        std::os::unix::fs::symlink("../../devices/disk", links.join("8:0")).unwrap();
        std::os::unix::fs::symlink("../../devices/disk/disk1", links.join("8:1")).unwrap();
        root
    }

    #[test]
    fn the_kernels_words_decide_how_writes_become_durable() {
        let cases = [
            ("write through\n", "0\n", Durability::WriteThrough, Durability::EachWrite),
            ("write back\n", "1\n", Durability::EachWrite, Durability::EachWrite),
            ("write back\n", "0\n", Durability::SharedSync, Durability::SharedSync),
        ];
        for (cache, fua, device, file) in cases {
            let root = sysfs(cache, fua);
            let traits = DeviceTraits::read(root.path(), 8, 0);
            assert_eq!((traits.of_device(), traits.of_file(true)), (device, file));
            assert_eq!(traits.of_file(false), Durability::SharedSync);
            assert_eq!(traits.physical_block, 4096);
        }
    }

    #[test]
    fn a_partition_is_like_its_disk() {
        let root = sysfs("write through\n", "0\n");
        let disk = DeviceTraits::read(root.path(), 8, 0);
        assert_eq!(DeviceTraits::read(root.path(), 8, 1), disk);
    }

    #[test]
    fn an_unknown_device_is_taken_to_be_volatile() {
        let root = sysfs("write through\n", "0\n");
        for (major, minor) in [(0, 35), (9, 9)] {
            assert_eq!(DeviceTraits::read(root.path(), major, minor), DeviceTraits::UNKNOWN);
        }
    }
}
