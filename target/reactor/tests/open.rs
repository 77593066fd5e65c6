//! Opening and creating disks.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use afs_reactor::{DiskError, DiskFile, DiskOptions, Local, OpenError, RingDisk};
use common::{BLOCK, disk, filled, reactors};

#[test]
fn a_disk_that_is_in_use_is_refused_with_its_path() {
    let (folder, file) = disk(1 << 20);
    let path = folder.path().join("disk");
    let error = DiskFile::open(&path, &DiskOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains(path.to_str().unwrap()));
    let reader = DiskOptions { exclusive: false, read_only: true, ..DiskOptions::default() };
    assert_eq!(DiskFile::open(&path, &reader).unwrap().identity(), file.identity());
    drop(file);
    DiskFile::open(&path, &DiskOptions::default()).unwrap();
}

#[test]
fn a_new_file_has_all_its_space_and_an_old_one_is_left_alone() {
    use std::os::unix::fs::MetadataExt;
    let (folder, file) = disk((1 << 20) + 100);
    let path = folder.path().join("disk");
    assert!(file.was_created() && file.size() == 1 << 20);
    assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
    drop(file);
    let larger = DiskOptions { create_size: Some(8 << 20), ..DiskOptions::default() };
    let file = DiskFile::open(&path, &larger).unwrap();
    assert!(!file.was_created());
    assert_eq!(file.size(), 1 << 20);
}

#[test]
fn what_is_no_disk_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &std::path::Path| DiskFile::open(path, &DiskOptions::default()).unwrap_err();
    assert!(matches!(open(folder.path()), OpenError::NotADisk { .. }));
    assert!(matches!(open(std::path::Path::new("/dev/null")), OpenError::NotADisk { .. }));
    assert!(matches!(open(&folder.path().join("none")), OpenError::NotFound { .. }));
    let short = folder.path().join("short");
    fs::write(&short, "too short").unwrap();
    assert!(matches!(open(&short), OpenError::TooSmall { bytes: 9, .. }));
}

#[test]
fn a_file_system_without_direct_io_is_served_through_the_cache() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return };
    let options = DiskOptions { create_size: Some(1 << 20), ..DiskOptions::default() };
    let file = DiskFile::open(folder.path().join("disk"), &options).unwrap();
    assert!(file.needs_flush());
    let reactors = reactors(1, 8);
    let run = move |local: Local| async move {
        let disk = RingDisk::new(&local, &file).unwrap();
        disk.write_durable(8192, filled(local.pool(), BLOCK, 5).await).await.unwrap();
        let (buffer, result) = disk.read(8192, local.pool().alloc(BLOCK).await).await;
        result.unwrap();
        assert!(buffer.iter().all(|&byte| byte == 5));
    };
    reactors.handle(0).run(run).unwrap();
}

#[test]
fn a_read_only_disk_takes_no_writes() {
    let (folder, file) = disk(1 << 20);
    drop(file);
    let options = DiskOptions { read_only: true, ..DiskOptions::default() };
    let file = DiskFile::open(folder.path().join("disk"), &options).unwrap();
    let reactors = reactors(1, 8);
    let run = move |local: Local| async move {
        let disk = RingDisk::new(&local, &file).unwrap();
        disk.write(0, filled(local.pool(), BLOCK, 5).await).await
    };
    assert_eq!(reactors.handle(0).run(run).unwrap(), Err(DiskError::Io { errno: 30 }));
}

#[test]
fn preallocating_with_zeros_wipes_the_disk_and_tells_how_far_it_is() {
    let (folder, file) = disk(3 << 20);
    fs::write(folder.path().join("other"), "").unwrap();
    let mut told = Vec::new();
    file.preallocate_zeroed(|done, all| told.push((done, all))).unwrap();
    assert_eq!(told, [(1 << 20, 3 << 20), (2 << 20, 3 << 20), (3 << 20, 3 << 20)]);
    assert!(fs::read(folder.path().join("disk")).unwrap().iter().all(|&byte| byte == 0));
}

#[test]
fn a_file_larger_than_the_room_for_it_is_refused_and_leaves_nothing() {
    let (folder, _file) = disk(1 << 20);
    let options = DiskOptions { create_size: Some(1 << 60), ..DiskOptions::default() };
    let path = folder.path().join("huge");
    let error = DiskFile::open(&path, &options).unwrap_err();
    assert!(matches!(error, OpenError::NoSpace { .. }), "{error}");
    assert!(!path.exists());
}
