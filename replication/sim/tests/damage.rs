//! Damaged, wrong and failing disks: each ends in a clear error, or in nothing lost.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "shared with other tests")]
mod common;

use std::sync::Arc;

use afs_env::Disk;
use afs_sim::{Loss, Sim, SimDisk, SimRandom, Snapshot};
use afs_store::{
    Contents, Damage, FormatError, FormatOptions, OpenDisks, OpenError, OpenOptions, StopReason,
    Store, StoreError, check, inspect,
};
use common::{BLOCKS, Expected, Setup, Step, World, format_disk, id, pool};
use uuid::Uuid;

const SUPERBLOCKS: [u64; 2] = [0, 64 << 10];
const JOURNAL: u64 = 128 << 10;
const CATALOG: u64 = JOURNAL + (64 << 10);
const TABLE: u64 = CATALOG + 6 * 4096;
const DATA: u64 = (TABLE + 2 * 4096).next_multiple_of(16 << 10);

/// A disk with two checkpoints behind it and six whole journal blocks, after a power cut.
fn used_disk() -> (Setup, Snapshot, Expected) {
    let setup = Setup::new(7);
    let image = format_disk(&setup);
    let world = World::open(&setup, &image, Expected::default()).unwrap();
    world.create(1, BLOCKS);
    for round in 0..6 {
        if round == 2 || round == 4 {
            world.store.request_checkpoint();
        }
        run(&world, Step::Write { replica: 1, lba: round * 2, blocks: 2 }).unwrap();
        let trim = Step::Trim { replica: 1, lba: round * 2 + 1, blocks: 1 };
        run(&world, trim).unwrap();
    }
    assert_eq!(world.store.stats().checkpoints, 2);
    let image = world.disk.cut(Loss::All, &SimRandom::new(1));
    let expected = world.expected.borrow().clone();
    world.sim.kill();
    (setup, image, expected)
}

fn run(world: &World, step: Step) -> Result<(), StoreError> {
    let handle = world.clone();
    world.sim.run(async move { handle.step(step).await }).unwrap()
}

fn flipped(image: &Snapshot, offset: u64) -> Snapshot {
    let mut image = image.clone();
    image.flip(offset, 0x10);
    image
}

fn open(setup: &Setup, image: &Snapshot, expected: &Expected) -> Result<World, OpenError> {
    World::open(setup, image, expected.clone())
}

fn damage(setup: &Setup, image: &Snapshot, expected: &Expected) -> Damage {
    match open(setup, image, expected) {
        Err(OpenError::Damaged(damage)) => damage,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    }
}

#[test]
fn one_flipped_superblock_costs_nothing_and_two_are_an_error() {
    let (setup, image, expected) = used_disk();
    for offset in SUPERBLOCKS {
        for byte in [0, 9, 13, 40, 150, 4000] {
            let image = flipped(&image, offset + byte);
            let world = open(&setup, &image, &expected).unwrap();
            world.compare().unwrap();
            world.sim.kill();
        }
    }
    let both = flipped(&flipped(&image, 100), (64 << 10) + 100);
    assert_eq!(damage(&setup, &both, &expected), Damage::Superblocks);
}

#[test]
fn a_superblock_lost_after_a_clean_close_does_not_lose_what_came_since() {
    let (setup, image, expected) = used_disk();
    let world = open(&setup, &image, &expected).unwrap();
    world.close();
    let closed = world.disk.snapshot();
    let expected = world.expected.borrow().clone();
    let world = open(&setup, &closed, &expected).unwrap();
    assert!(world.store.was_clean());
    run(&world, Step::Write { replica: 1, lba: 3, blocks: 4 }).unwrap();
    let cut = world.disk.cut(Loss::All, &SimRandom::new(1));
    let expected = world.expected.borrow().clone();
    for offset in SUPERBLOCKS {
        // One of the two says "closed in good order".
        let world = open(&setup, &flipped(&cut, offset + 20), &expected).unwrap();
        world.compare().unwrap();
        world.sim.kill();
    }
}

#[test]
fn a_flipped_byte_in_the_tables_is_found_and_named() {
    let (setup, image, expected) = used_disk();
    let mut named = Vec::new();
    for copy in 0..2 {
        for (offset, name) in [
            (TABLE + copy * 4096 + 300, "table"),
            (CATALOG + copy * 3 * 4096 + 70, "layers"),
            (CATALOG + copy * 3 * 4096 + 4096 + 70, "replicas"),
            (CATALOG + copy * 3 * 4096 + 2 * 4096 + 70, "labels"),
        ] {
            let image = flipped(&image, offset);
            match open(&setup, &image, &expected) {
                Err(OpenError::Damaged(damage)) => named.push((name, damage)),
                Err(other) => panic!("{other}"),
                // The copy that is not current.
                Ok(world) => {
                    world.compare().unwrap();
                    world.sim.kill();
                }
            }
        }
    }
    assert_eq!(named.len(), 4, "{named:?}");
    assert!(matches!(named[0], ("table", Damage::Table { page: 0, .. })), "{named:?}");
    assert!(matches!(named[1], ("layers", Damage::Catalog { page: 0, .. })), "{named:?}");
    assert!(matches!(named[2], ("replicas", Damage::Catalog { page: 1, .. })), "{named:?}");
    assert!(matches!(named[3], ("labels", Damage::Catalog { page: 2, .. })), "{named:?}");
}

#[test]
fn a_flipped_byte_in_the_journal_is_damage_and_not_a_shorter_journal() {
    let (setup, image, expected) = used_disk();
    let mut damaged = 0;
    for block in 0..16 {
        match open(&setup, &flipped(&image, JOURNAL + block * 4096 + 80), &expected) {
            Err(OpenError::Damaged(Damage::Journal { .. })) => damaged += 1,
            Err(other) => panic!("{other}"),
            Ok(world) => world.sim.kill(),
        }
    }
    assert_eq!(damaged, report_blocks(&setup, &image), "each block that a replay reads");
}

/// Journal blocks that a replay of this disk reads, by its check.
fn report_blocks(setup: &Setup, image: &Snapshot) -> u64 {
    let sim = Sim::new(1);
    let disk = SimDisk::from_snapshot(setup.disk, image, &pool());
    sim.add_disk(&disk);
    let report = sim.run(async move { check(&disk, |_| {}).await }).unwrap().unwrap();
    assert_eq!(report.damage, None);
    assert!(report.journal_blocks >= 3);
    report.journal_blocks
}

/// CRC32C, bit by bit: the superblock's checksum, which a test cannot ask the store for.
fn crc32c(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ (crc & 1).wrapping_neg() & 0x82f6_3b78;
    !bytes.into_iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[test]
fn a_disk_of_another_format_version_is_refused_and_both_versions_are_named() {
    let (setup, image, expected) = used_disk();
    for version in [1_u32, 3] {
        let mut other = image.clone();
        for offset in SUPERBLOCKS {
            let mut block = image.bytes(offset, 4096);
            block[8..12].copy_from_slice(&version.to_le_bytes());
            let seed = 0x6166_735f_7375_7062_u64.to_le_bytes();
            let covered = seed.iter().chain(&block[..12]).chain(&block[16..]).copied();
            let checksum = crc32c(covered);
            block[12..16].copy_from_slice(&checksum.to_le_bytes());
            other.write(offset, &block);
        }
        let error = open(&setup, &other, &expected).err().unwrap();
        assert!(
            matches!(error, OpenError::Version { found, supported: 2 } if found == version),
            "{error}"
        );
    }
}

#[test]
fn a_disk_cut_short_is_refused() {
    let (mut setup, image, expected) = used_disk();
    let mut short = image.clone();
    let formatted = setup.disk.size;
    setup.disk.size -= 4096;
    short.resize(setup.disk.size);
    match open(&setup, &short, &expected).err().unwrap() {
        OpenError::CutShort { formatted: f, actual } => {
            assert_eq!((f, actual), (formatted, setup.disk.size));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_second_disk_with_the_same_identity_is_refused() {
    let (setup, image, _) = used_disk();
    let disks = Arc::new(OpenDisks::default());
    let open = |disks: &Arc<OpenDisks>| {
        let sim = Sim::new(1);
        let disk = SimDisk::from_snapshot(setup.disk, &image, &pool());
        sim.add_disk(&disk);
        let options = OpenOptions { identities: Some(disks.clone()), ..OpenOptions::default() };
        sim.run(async move { Store::open(disk, options).await }).unwrap()
    };
    let first = open(&disks).unwrap();
    assert!(
        matches!(open(&disks), Err(OpenError::DuplicateIdentity(id)) if id == Uuid::from_u128(9))
    );
    drop(first);
    open(&disks).unwrap();
}

#[test]
fn format_refuses_what_it_finds_and_says_what_it_is() {
    let signatures: [(usize, &[u8], &str); 9] = [
        (1080, &[0x53, 0xef], "ext"),
        (0, b"XFSB", "XFS"),
        (65536 + 64, b"_BHRfS_M", "btrfs"),
        (512, b"LABELONE", "LVM"),
        (512, b"EFI PART", "GPT"),
        (510, &[0x55, 0xaa], "MBR"),
        (4086, b"SWAPSPACE2", "swap"),
        (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "md"),
        (0, b"LUKS\xba\xbe", "LUKS"),
    ];
    for (offset, magic, name) in signatures {
        let mut bytes = vec![0; 128 << 10];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        let found = refused(0, &bytes);
        assert!(matches!(found, Contents::Known(text) if text.contains(name)), "{found}");
    }
    let mut zfs = vec![0; 1024];
    zfs[..8].copy_from_slice(&0x00ba_b10c_u64.to_le_bytes());
    assert!(refused(128 << 10, &zfs).to_string().contains("ZFS"));
    assert_eq!(refused(100 << 10, &[1; 512]), Contents::Unknown);
    let mut afs = format_disk(&Setup::new(1)).bytes(0, 128 << 10);
    assert!(matches!(refused(0, &afs), Contents::Afs(info) if info.disk_id == Uuid::from_u128(9)));
    afs[700] ^= 1;
    afs[(64 << 10) + 700] ^= 1;
    assert_eq!(refused(0, &afs), Contents::AfsDamaged);
}

/// Formats a disk with these bytes; returns what it was said to hold.
fn refused(offset: u64, bytes: &[u8]) -> Contents {
    let setup = Setup::new(1);
    let sim = Sim::new(1);
    let disk = SimDisk::new(setup.disk, &pool());
    let mut image = disk.snapshot();
    image.write(offset, bytes);
    let disk = SimDisk::from_snapshot(setup.disk, &image, &pool());
    sim.add_disk(&disk);
    sim.run(async move {
        let options = FormatOptions {
            chunk_bytes: 16 << 10,
            journal_bytes: Some(64 << 10),
            ..FormatOptions::new(Uuid::from_u128(1), 1)
        };
        let found = inspect(&disk).await.unwrap();
        match Store::format(&disk, &options).await {
            Err(FormatError::InUse(contents)) => assert_eq!(contents, found),
            other => panic!("{other:?}"),
        }
        assert_eq!(disk.snapshot().bytes(0, 4096), image.bytes(0, 4096), "nothing was written");
        let force = FormatOptions { force: true, ..options };
        Store::format(&disk, &force).await.unwrap();
        assert!(matches!(inspect(&disk).await.unwrap(), Contents::Afs(_)));
        found
    })
    .unwrap()
}

#[test]
fn a_full_pool_refuses_new_blocks_and_goes_on_with_the_rest() {
    let setup = Setup::new(3);
    let world = World::open(&setup, &format_disk(&setup), Expected::default()).unwrap();
    for replica in 1..=4 {
        world.create(replica, BLOCKS);
    }
    let chunks = world.store.stats().chunks_total;
    for chunk in 0..chunks {
        let (replica, lba) = (1 + chunk / 4, chunk % 4 * 4);
        run(&world, Step::Write { replica, lba, blocks: 1 }).unwrap();
    }
    assert_eq!(world.store.stats().chunks_free, 0);
    let (replica, lba) = (1 + chunks / 4, chunks % 4 * 4);
    let beyond = Step::Write { replica, lba, blocks: 1 };
    assert_eq!(run(&world, beyond), Err(StoreError::Full));
    run(&world, Step::Write { replica: 1, lba: 0, blocks: 4 }).unwrap();
    run(&world, Step::Trim { replica: 2, lba: 0, blocks: 4 }).unwrap();
    run(&world, beyond).unwrap();
    assert_eq!(run(&world, Step::Write { replica: 2, lba: 0, blocks: 1 }), Err(StoreError::Full));
    let handle = world.store.clone();
    world.sim.run(async move { handle.delete_replica(id(1)).await }).unwrap().unwrap();
    world.expected.borrow_mut().sizes.0.insert(1, vec![0]);
    assert_eq!(world.store.stats().chunks_free, 4);
    run(&world, Step::Write { replica: 2, lba: 0, blocks: 1 }).unwrap();
    world.compare().unwrap();
    world.close();
}

#[test]
fn zeroing_keeps_the_chunk_and_trimming_frees_it() {
    let setup = Setup::new(3);
    let world = World::open(&setup, &format_disk(&setup), Expected::default()).unwrap();
    world.create(1, BLOCKS);
    let all = world.store.stats().chunks_free;
    run(&world, Step::Write { replica: 1, lba: 0, blocks: 4 }).unwrap();
    run(&world, Step::Zero { replica: 1, lba: 0, blocks: 4, deallocate: false }).unwrap();
    assert_eq!(world.store.stats().chunks_free, all - 1);
    run(&world, Step::Trim { replica: 1, lba: 0, blocks: 1 }).unwrap();
    assert_eq!(world.store.stats().chunks_free, all);
    run(&world, Step::Write { replica: 1, lba: 5, blocks: 2 }).unwrap();
    run(&world, Step::Trim { replica: 1, lba: 4, blocks: 2 }).unwrap();
    assert_eq!(world.store.stats().chunks_free, all - 1, "one block still holds data");
    run(&world, Step::Zero { replica: 1, lba: 6, blocks: 1, deallocate: true }).unwrap();
    assert_eq!(world.store.stats().chunks_free, all);
    world.compare().unwrap();
}

#[test]
fn a_failed_first_write_is_never_seen_and_a_second_failure_stops_the_disk() {
    let setup = Setup::new(3);
    let world = World::open(&setup, &format_disk(&setup), Expected::default()).unwrap();
    world.create(1, BLOCKS);
    let free = world.store.stats().chunks_free;
    let handle = world.clone();
    // The data is on its way before the record is: so it is the data that fails.
    world.disk.fail_writes_at(DATA, u64::MAX, 1);
    let write = Step::Write { replica: 1, lba: 0, blocks: 2 };
    assert_eq!(run(&world, write), Err(StoreError::Media));
    assert_eq!(handle.store.stats().chunks_free, free, "its chunk went back");
    world.store.check_invariants().unwrap();
    assert_eq!(world.read_all()[0], ((1, 0), Some(0)));
    let image = world.disk.cut(Loss::Nothing, &SimRandom::new(1));
    let again = World::open(&setup, &image, handle.expected.borrow().clone()).unwrap();
    assert_eq!(again.read_all()[0], ((1, 0), Some(0)));
    again.sim.kill();
    world.disk.fail_writes_at(DATA, u64::MAX, 1);
    assert!(run(&world, write).is_err());
    assert_eq!(world.store.stats().stop_reason, Some(StopReason::WritesFailed));
    assert_eq!(run(&world, write), Err(StoreError::Stopped));
}

#[test]
fn one_failed_sync_stops_the_disk_and_acknowledges_nothing() {
    let setup = Setup::new(3);
    let world = World::open(&setup, &format_disk(&setup), Expected::default()).unwrap();
    world.create(1, BLOCKS);
    world.disk.fail_syncs(1);
    let write = Step::Write { replica: 1, lba: 0, blocks: 1 };
    assert_eq!(run(&world, write), Err(StoreError::Stopped));
    assert_eq!(world.store.stats().stop_reason, Some(StopReason::SyncFailed));
}

#[test]
fn a_group_of_first_writes_costs_one_journal_write_and_one_sync() {
    let setup = Setup::new(3);
    let world = World::open(&setup, &format_disk(&setup), Expected::default()).unwrap();
    world.create(1, BLOCKS);
    let before = world.store.stats();
    let writes = (0..BLOCKS).map(|lba| {
        let world = world.clone();
        async move { world.step(Step::Write { replica: 1, lba, blocks: 1 }).await }
    });
    let all = futures_util::future::join_all(writes.collect::<Vec<_>>());
    for result in world.sim.run(all).unwrap() {
        result.unwrap();
    }
    let after = world.store.stats();
    assert_eq!(after.first_writes - before.first_writes, BLOCKS);
    assert_eq!(after.journal_writes - before.journal_writes, 1);
    assert_eq!(after.journal_syncs - before.journal_syncs, 1);
}

#[test]
fn a_write_dropped_with_its_data_on_the_way_stops_the_disk() {
    let setup = Setup::new(3);
    let world = World::open(&setup, &format_disk(&setup), Expected::default()).unwrap();
    world.create(1, BLOCKS);
    let replica = world.store.replica(id(1)).unwrap();
    let data = world.disk.pool().try_alloc(4096).unwrap().freeze();
    {
        let mut write = Box::pin(replica.write(0, data));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(write.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(world.store.stats().stop_reason, Some(StopReason::WriteAbandoned));
}

#[test]
fn an_unreadable_block_is_a_media_error_and_nothing_else_suffers() {
    let setup = Setup::new(3);
    let world = World::open(&setup, &format_disk(&setup), Expected::default()).unwrap();
    world.create(1, BLOCKS);
    run(&world, Step::Write { replica: 1, lba: 0, blocks: 8 }).unwrap();
    world.disk.fail_reads(DATA, 4096);
    let replica = world.store.replica(id(1)).unwrap();
    let verify = replica.clone();
    let result = world.sim.run(async move { verify.verify(0, 4).await }).unwrap();
    let other = world.sim.run(async move { replica.verify(4, 4).await }).unwrap();
    assert!(result == Err(StoreError::Media) || other == Err(StoreError::Media));
    assert!(result.is_ok() || other.is_ok());
}

#[test]
fn a_clean_close_leaves_nothing_to_replay() {
    let (setup, image, expected) = used_disk();
    let world = open(&setup, &image, &expected).unwrap();
    assert!(!world.store.was_clean());
    let incarnation = world.store.incarnation();
    world.close();
    assert_eq!(run(&world, Step::Trim { replica: 1, lba: 0, blocks: 1 }), Err(StoreError::Stopped));
    let closed = world.disk.cut(Loss::All, &SimRandom::new(1));
    let again = open(&setup, &closed, &expected).unwrap();
    assert!(again.store.was_clean());
    assert_eq!(again.store.incarnation(), incarnation + 1);
    again.compare().unwrap();
}
