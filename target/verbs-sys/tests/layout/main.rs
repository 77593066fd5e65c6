//! The generated structs lie in memory as the C compiler lays them out. The expected numbers were
//! printed by a C program (`generate/layout.c`) on x86-64.
#![cfg(target_arch = "x86_64")]

use std::mem::{offset_of, size_of};

use afs_verbs_sys::*;

include!("expected.rs");

#[test]
fn structs_have_the_layout_of_c() {
    for (what, rust, c) in expected() {
        assert_eq!(rust, c, "{what}");
    }
}
