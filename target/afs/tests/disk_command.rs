//! `afs disk format|inspect|check` from outside.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;

use common::{Place, run};

#[test]
fn a_new_file_is_formatted_inspected_and_checked() {
    let place = Place::new();
    let path = place.path("disk");
    let path = path.to_str().unwrap();
    let (status, output) = run(&["disk", "format", "--size", "64M", path]);
    assert!(status.success() && output.contains("is an afs disk now"), "{output}");
    let (status, output) = run(&["disk", "inspect", path]);
    assert!(status.success() && output.contains("afs disk") && output.contains("64M"), "{output}");
    let (status, output) = run(&["disk", "check", path]);
    assert!(status.success() && output.contains("no damage found"), "{output}");
}

#[test]
fn an_afs_disk_is_not_formatted_again_unless_forced() {
    let place = Place::new();
    let path = place.path("disk");
    let path = path.to_str().unwrap();
    assert!(run(&["disk", "format", "--size", "64M", path]).0.success());
    let (status, output) = run(&["disk", "format", path]);
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("holds afs disk") && output.contains("--force"), "{output}");
    let (status, output) = run(&["disk", "format", "--force", path]);
    assert!(status.success(), "{output}");
}

#[test]
fn damage_is_named_and_fails_the_check() {
    let place = Place::new();
    let path = place.path("disk");
    assert!(run(&["disk", "format", "--size", "64M", path.to_str().unwrap()]).0.success());
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xa5; 16], 64).unwrap();
    let (status, output) = run(&["disk", "check", path.to_str().unwrap()]);
    assert!(
        status.success() && output.contains("warning"),
        "one spare superblock is left:\n{output}"
    );
    file.write_all_at(&[0xa5; 16], (64 << 10) + 64).unwrap();
    let (status, output) = run(&["disk", "check", path.to_str().unwrap()]);
    assert!(!status.success() && output.contains("damaged"), "{output}");
}

#[test]
fn what_is_no_disk_is_named() {
    let place = Place::new();
    for (path, part) in
        [("none", "no such file"), ("", "neither a block device nor a regular file")]
    {
        for command in ["inspect", "check", "format"] {
            let path = place.path(path);
            let (status, output) = run(&["disk", command, path.to_str().unwrap()]);
            assert_eq!(status.code(), Some(1), "{output}");
            assert!(output.contains(part) && !output.contains("panicked"), "{output}");
        }
    }
    fs::write(place.path("noise"), vec![0x5a; 1 << 20]).unwrap();
    let path = place.path("noise");
    let (status, output) = run(&["disk", "inspect", path.to_str().unwrap()]);
    assert!(status.success() && output.contains("unknown data"), "{output}");
    let (status, output) = run(&["disk", "format", path.to_str().unwrap()]);
    assert!(!status.success() && output.contains("nothing was written"), "{output}");
}
