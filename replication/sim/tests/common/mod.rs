//! A store on a simulated disk, workloads for it, and the comparison of what a power cut left with
//! what may be left.

pub mod marks;

use std::cell::RefCell;
use std::rc::Rc;

use afs_env::{BufferPool, Disk, Random};
use afs_sim::model::{History, Tag, fill, tag_of};
use afs_sim::{DiskConfig, Loss, Sim, SimDisk, SimRandom, Snapshot};
use afs_store::{
    FormatOptions, OpenError, OpenOptions, Replica, ReplicaId, Store, StoreError, check,
};
use uuid::Uuid;

use marks::LABEL;

/// Blocks of each replica: 4 chunks of 4 blocks.
pub const BLOCKS: u64 = 16;
const CHUNK: u32 = 16 << 10;

pub fn pool() -> BufferPool {
    thread_local! {
        static POOL: BufferPool = BufferPool::new(64 << 20).unwrap();
    }
    POOL.with(Clone::clone)
}

pub fn id(replica: u64) -> ReplicaId {
    Uuid::from_u128(0x1000 + u128::from(replica)).into()
}

/// What a test world is like.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub disk: DiskConfig,
    pub seed: u64,
    pub clients: usize,
    pub operations: usize,
    /// What the clients do.
    pub draw: fn(&SimRandom) -> Step,
}

impl Setup {
    /// 11 chunks of 16 KiB, fewer than what the replicas could hold.
    pub fn new(seed: u64) -> Self {
        let size = (128 << 10) + (64 << 10) + 6 * 4096 + 2 * 4096 + 12 * u64::from(CHUNK);
        Self {
            disk: DiskConfig { size, atomic: 4096, volatile_cache: true, slow: (0, 0) },
            seed,
            clients: 3,
            operations: 12,
            draw: random_step,
        }
    }
}

/// One step of a client.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Write { replica: u64, lba: u64, blocks: u64 },
    Trim { replica: u64, lba: u64, blocks: u64 },
    Zero { replica: u64, lba: u64, blocks: u64, deallocate: bool },
    Generation { replica: u64, step: u64 },
    Label { replica: u64 },
    Resize { replica: u64, blocks: u64 },
    Recreate { replica: u64 },
    Checkpoint,
}

pub fn random_step(random: &SimRandom) -> Step {
    let replica = 1 + random.below(2) as u64;
    // Few places, so that operations meet.
    let lba = random.below(BLOCKS as usize) as u64;
    let most = (BLOCKS - lba).min(6);
    let blocks = 1 + random.below(most as usize) as u64;
    match random.below(100) {
        0..53 => Step::Write { replica, lba, blocks },
        53..71 => Step::Trim { replica, lba, blocks: (blocks * 2).min(BLOCKS - lba) },
        71..80 => Step::Zero { replica, lba, blocks, deallocate: random.chance(30) },
        80..86 => Step::Generation { replica, step: random.below(4) as u64 },
        86..90 => Step::Label { replica },
        90..93 => Step::Resize { replica, blocks: 8 + random.below(9) as u64 },
        93..95 => Step::Recreate { replica: 3 },
        _ => Step::Checkpoint,
    }
}

/// Writes and trims of three blocks of one chunk, which a fourth one keeps.
pub fn crowded_step(random: &SimRandom) -> Step {
    let (replica, lba) = (1, 1 + random.below(3) as u64);
    match random.below(8) {
        0..5 => Step::Write { replica, lba, blocks: 1 },
        5..7 => Step::Trim { replica, lba, blocks: 1 },
        _ => Step::Write { replica, lba: 0, blocks: 1 },
    }
}

/// Replicas as they may be: for each, the sizes that are possible (0: it does not exist).
#[derive(Clone, Debug, Default)]
pub struct Sizes(pub std::collections::BTreeMap<u64, Vec<u64>>);

#[derive(Clone, Default)]
pub struct Expected {
    pub history: History,
    pub sizes: Sizes,
    pub next_tag: Tag,
    pub next_replica: u64,
    /// For each replica, the generation that was set since the disk was opened.
    pub generations: std::collections::BTreeMap<u64, u64>,
    /// The highest that was ever set.
    pub generation_max: u64,
    /// The labels that were durable when the power was cut.
    pub durable_labels: std::collections::BTreeMap<u64, Tag>,
}

/// A running world.
#[derive(Clone)]
pub struct World {
    pub sim: Sim,
    pub disk: SimDisk,
    pub store: Rc<Store<SimDisk>>,
    pub expected: Rc<RefCell<Expected>>,
}

pub fn format_disk(setup: &Setup) -> Snapshot {
    let sim = Sim::new(setup.seed);
    let disk = SimDisk::new(setup.disk, &pool());
    sim.add_disk(&disk);
    let handle = disk.clone();
    let options = FormatOptions {
        chunk_bytes: CHUNK,
        journal_bytes: Some(64 << 10),
        ..FormatOptions::new(Uuid::from_u128(9), 4711)
    };
    sim.run(async move { Store::format(&handle, &options).await }).unwrap().unwrap();
    disk.snapshot()
}

impl World {
    pub fn open(setup: &Setup, image: &Snapshot, expected: Expected) -> Result<World, OpenError> {
        Self::open_observed(setup, image, expected, |_, _| {})
    }

    pub fn open_observed(
        setup: &Setup,
        image: &Snapshot,
        expected: Expected,
        mut observe: impl FnMut(&SimDisk, &Sim) + 'static,
    ) -> Result<World, OpenError> {
        let sim = Sim::new(setup.seed);
        let disk = SimDisk::from_snapshot(setup.disk, image, &pool());
        sim.add_disk(&disk);
        let (handle, watched, sim2) = (disk.clone(), disk.clone(), sim.clone());
        sim.observe(move || observe(&watched, &sim2));
        let opened = sim.run(async move { Store::open(handle, OpenOptions::default()).await });
        sim.observe(|| {});
        let store = Rc::new(opened.expect("open does not hang")?);
        sim.spawn(store.background());
        Ok(World { sim, disk, store, expected: Rc::new(RefCell::new(expected)) })
    }

    pub fn create(&self, replica: u64, blocks: u64) {
        let world = self.clone();
        self.sim.run(async move { world.create_now(replica, blocks).await }).unwrap();
    }

    async fn create_now(&self, replica: u64, blocks: u64) {
        self.expected.borrow_mut().sizes.0.insert(replica, vec![0, blocks]);
        if self.store.create_replica(id(replica), blocks).await.is_ok() {
            self.expected.borrow_mut().sizes.0.insert(replica, vec![blocks]);
        }
    }

    pub fn replica(&self, replica: u64) -> Option<Replica<SimDisk>> {
        self.store.replica(id(replica))
    }

    pub async fn step(&self, step: Step) -> Result<(), StoreError> {
        match step {
            Step::Write { replica, lba, blocks } => self.write(replica, lba, blocks).await,
            Step::Trim { replica, lba, blocks } => self.clear(replica, lba, blocks, None).await,
            Step::Zero { replica, lba, blocks, deallocate } => {
                self.clear(replica, lba, blocks, Some(deallocate)).await
            }
            Step::Generation { replica, step } => {
                self.set_generation(replica, step);
                Ok(())
            }
            Step::Label { replica } => self.set_label(replica).await,
            Step::Resize { replica, blocks } => self.resize(replica, blocks).await,
            Step::Recreate { replica } => self.recreate(replica).await,
            Step::Checkpoint => {
                self.store.request_checkpoint();
                Ok(())
            }
        }
    }

    async fn write(&self, number: u64, lba: u64, blocks: u64) -> Result<(), StoreError> {
        let Some(replica) = self.replica(number) else { return Ok(()) };
        let mut buffer = self.disk.pool().try_alloc(blocks as usize * 4096).unwrap();
        let operations: Vec<_> = {
            let mut expected = self.expected.borrow_mut();
            let generation = expected.generation(number);
            (lba..)
                .zip(buffer.chunks_mut(4096))
                .map(|(lba, block)| {
                    expected.next_tag += 1;
                    let tag = expected.next_tag;
                    fill(tag, block);
                    expected.history.begin(number, lba, tag, generation)
                })
                .collect()
        };
        let result = replica.write(lba, buffer.freeze()).await;
        let mut expected = self.expected.borrow_mut();
        for operation in operations {
            expected.history.end(operation, result.is_ok());
        }
        result
    }

    async fn clear(
        &self,
        number: u64,
        lba: u64,
        blocks: u64,
        zero: Option<bool>,
    ) -> Result<(), StoreError> {
        let Some(replica) = self.replica(number) else { return Ok(()) };
        let operations: Vec<_> = {
            let mut expected = self.expected.borrow_mut();
            let generation = expected.generation(number);
            (lba..lba + blocks)
                .map(|lba| expected.history.begin(number, lba, 0, generation))
                .collect()
        };
        let result = match zero {
            None => replica.deallocate(lba, blocks).await,
            Some(deallocate) => replica.write_zeroes(lba, blocks as u32, deallocate).await,
        };
        let mut expected = self.expected.borrow_mut();
        for operation in operations {
            expected.history.end(operation, result.is_ok());
        }
        result
    }

    async fn resize(&self, number: u64, blocks: u64) -> Result<(), StoreError> {
        if self.replica(number).is_none() {
            return Ok(());
        }
        let operations: Vec<_> = {
            let mut expected = self.expected.borrow_mut();
            let sizes = expected.sizes.0.entry(number).or_default();
            if sizes.len() > 1 {
                // Another one is under way.
                return Ok(());
            }
            sizes.push(blocks);
            let generation = expected.generation(number);
            (blocks..BLOCKS).map(|lba| expected.history.begin(number, lba, 0, generation)).collect()
        };
        let result = self.store.resize_replica(id(number), blocks).await;
        let mut expected = self.expected.borrow_mut();
        if result.is_ok() {
            expected.sizes.0.insert(number, vec![blocks]);
        }
        for operation in operations {
            expected.history.end(operation, result.is_ok());
        }
        Ok(())
    }

    /// Deletes a replica that has data, and makes another one.
    async fn recreate(&self, base: u64) -> Result<(), StoreError> {
        let fresh = {
            let mut expected = self.expected.borrow_mut();
            expected.next_replica += 1;
            base + expected.next_replica
        };
        self.create_now(fresh, BLOCKS).await;
        let _ = self.write(fresh, 2, 6).await;
        let _ = self.set_label(fresh).await;
        if let Some(sizes) = self.expected.borrow_mut().sizes.0.get_mut(&fresh) {
            sizes.push(0);
        }
        if self.store.delete_replica(id(fresh)).await.is_ok() {
            self.expected.borrow_mut().sizes.0.insert(fresh, vec![0]);
        }
        Ok(())
    }

    /// Runs clients side by side to their end.
    pub fn run_clients(&self, setup: &Setup, salt: u64) {
        let draw = SimRandom::new(setup.seed ^ salt);
        let mut clients = Vec::new();
        for _ in 0..setup.clients {
            let steps: Vec<_> = (0..setup.operations).map(|_| (setup.draw)(&draw)).collect();
            let world = self.clone();
            clients.push(async move {
                for step in steps {
                    let result = world.step(step).await;
                    let allowed = [StoreError::Full, StoreError::OutOfRange, StoreError::Deleted];
                    assert!(
                        result.is_ok_and(|()| true) || allowed.iter().any(|e| Err(*e) == result),
                        "{step:?}: {result:?}"
                    );
                }
            });
        }
        let all = futures_util::future::join_all(clients);
        if self.sim.run(async move { drop(all.await) }).is_err() {
            panic!("deadlock: {}", self.store.describe());
        }
        self.store.check_invariants().unwrap();
    }

    pub fn close(&self) {
        let store = self.store.clone();
        self.sim.run(async move { store.close().await }).unwrap().unwrap();
    }

    /// Every block of every replica.
    pub fn read_all(&self) -> Vec<((u64, u64), Option<Tag>)> {
        let world = self.clone();
        let numbers: Vec<u64> = self.expected.borrow().sizes.0.keys().copied().collect();
        self.sim
            .run(async move {
                let mut found = Vec::new();
                for number in numbers {
                    let Some(replica) = world.replica(number) else { continue };
                    let buffer = world.disk.pool().try_alloc(replica.blocks() as usize * 4096);
                    let (buffer, result) = replica.read(0, buffer.unwrap()).await;
                    result.unwrap();
                    for (lba, block) in (0..).zip(buffer.chunks(4096)) {
                        found.push(((number, lba), tag_of(block)));
                    }
                }
                found
            })
            .unwrap()
    }

    /// Compares everything with what may be there; returns what is there.
    pub fn compare(&self) -> Result<Expected, String> {
        let found = self.read_all();
        let expected = self.expected.borrow().clone();
        let mut sizes = Sizes::default();
        for (number, possible) in &expected.sizes.0 {
            let size = self.replica(*number).map_or(0, |replica| replica.blocks());
            if !possible.contains(&size) {
                return Err(format!("replica {number} has {size} blocks, not one of {possible:?}"));
            }
            sizes.0.insert(*number, vec![size]);
        }
        let mut held = std::collections::BTreeMap::<u64, Vec<(u64, Tag)>>::new();
        for (key, tag) in found {
            let allowed = expected.history.allowed(key.0, key.1);
            match tag {
                Some(tag) if allowed.contains(&tag) => {
                    held.entry(key.0).or_default().push((key.1, tag));
                }
                other => {
                    return Err(format!("block {key:?} holds {other:?}, not one of {allowed:?}"));
                }
            }
        }
        let mut start = Vec::new();
        for (number, found) in held {
            let since = self.compare_stamps(&expected, number, &found)?;
            start.extend(found.iter().zip(since).map(|((lba, tag), g)| ((number, *lba), *tag, g)));
            start.push(((number, LABEL), self.compare_label(&expected, number)?, 0));
        }
        self.store.check_invariants()?;
        let history = History::starting_with(start);
        let (generations, durable_labels) = Default::default();
        Ok(Expected { history, sizes, generations, durable_labels, ..expected })
    }
}

/// Opens what a cut left, and compares.
pub fn recover(
    setup: &Setup,
    image: &Snapshot,
    expected: Expected,
) -> Result<(World, Expected), String> {
    check_image(setup, image)?;
    let world = World::open(setup, image, expected).map_err(|error| error.to_string())?;
    let found = world.compare()?;
    Ok((world, found))
}

pub fn check_image(setup: &Setup, image: &Snapshot) -> Result<(), String> {
    let sim = Sim::new(setup.seed);
    let disk = SimDisk::from_snapshot(setup.disk, image, &pool());
    sim.add_disk(&disk);
    let report = sim.run(async move { check(&disk, |_| {}).await }).unwrap();
    match report.map_err(|error| error.to_string())?.damage {
        None => Ok(()),
        Some(damage) => Err(format!("check: {damage}")),
    }
}

/// How much to explore.
#[derive(Clone, Copy)]
pub struct Depth {
    /// One in so many cuts is followed by more I/O and another cut.
    pub second: usize,
    /// One in so many cuts is followed by cuts during its recovery.
    pub recovery: usize,
}

/// What was tried.
#[derive(Default, Clone, Copy, Debug)]
pub struct Tried {
    pub cuts: usize,
    pub seconds: usize,
    pub recoveries: usize,
}

/// Runs a workload and cuts the power after every event, in every way.
pub fn explore(setup: &Setup, depth: Depth) -> Result<Tried, String> {
    let image = format_disk(setup);
    let world = World::open(setup, &image, Expected::default()).unwrap();
    let tried = Rc::new(RefCell::new(Tried::default()));
    let failure = Rc::new(RefCell::new(None));
    let draw = SimRandom::new(setup.seed ^ 0xc07);
    let observer = {
        let (world, tried, failure, setup) =
            (world.clone(), tried.clone(), failure.clone(), *setup);
        move || {
            if failure.borrow().is_some() {
                return;
            }
            for loss in Loss::ALL {
                let image = world.disk.cut(loss, &draw);
                let expected = world.expected_after_cut();
                let outcome = try_cut(&setup, &image, expected, depth, &draw, &tried);
                if let Err(what) = outcome {
                    let operations = world.disk.operations();
                    let text =
                        format!("{setup:?}, after {operations} operations, {loss:?}: {what}");
                    *failure.borrow_mut() = Some(text);
                    return;
                }
            }
        }
    };
    world.sim.observe(observer);
    world.create(1, BLOCKS);
    world.create(2, BLOCKS);
    world.run_clients(setup, 1);
    if failure.borrow().is_none() {
        world.close();
    }
    world.sim.observe(|| {});
    world.sim.kill();
    let result = failure.borrow_mut().take();
    match result {
        Some(what) => Err(what),
        None => Ok(*tried.borrow()),
    }
}

fn try_cut(
    setup: &Setup,
    image: &Snapshot,
    expected: Expected,
    depth: Depth,
    draw: &SimRandom,
    tried: &Rc<RefCell<Tried>>,
) -> Result<(), String> {
    tried.borrow_mut().cuts += 1;
    if draw.below(depth.recovery) == 0 {
        cut_recovery(setup, image, &expected, tried)?;
    }
    let (world, found) = recover(setup, image, expected)?;
    if draw.below(depth.second) == 0 {
        let more = Setup { operations: 4, seed: draw.next_u64(), ..*setup };
        let result = second_life(&more, &world, found, tried);
        world.sim.kill();
        return result;
    }
    world.sim.kill();
    Ok(())
}

/// Cuts the power after every event of a recovery: the second recovery must find the same.
fn cut_recovery(
    setup: &Setup,
    image: &Snapshot,
    expected: &Expected,
    tried: &Rc<RefCell<Tried>>,
) -> Result<(), String> {
    let images = Rc::new(RefCell::new(Vec::new()));
    let list = images.clone();
    let opened = World::open_observed(setup, image, expected.clone(), move |disk, sim| {
        for loss in [Loss::All, Loss::Torn, Loss::Nothing] {
            list.borrow_mut().push(disk.cut(loss, sim.random()));
        }
    });
    let world = opened.map_err(|error| error.to_string())?;
    world.sim.kill();
    for image in images.borrow().iter() {
        tried.borrow_mut().recoveries += 1;
        let (world, _) = recover(setup, image, expected.clone())
            .map_err(|what| format!("cut during recovery: {what}"))?;
        world.sim.kill();
    }
    Ok(())
}

/// Goes on after a recovery, and cuts the power again, now and then.
fn second_life(
    setup: &Setup,
    world: &World,
    found: Expected,
    tried: &Rc<RefCell<Tried>>,
) -> Result<(), String> {
    *world.expected.borrow_mut() = found;
    let failure = Rc::new(RefCell::new(None));
    let draw = SimRandom::new(setup.seed ^ 0x5ec0);
    let observer = {
        let (world, failure, setup, tried) =
            (world.clone(), failure.clone(), *setup, tried.clone());
        move || {
            if failure.borrow().is_some() || !draw.chance(15) {
                return;
            }
            let loss = Loss::ALL[draw.below(Loss::ALL.len())];
            let image = world.disk.cut(loss, &draw);
            let expected = world.expected_after_cut();
            tried.borrow_mut().seconds += 1;
            match recover(&setup, &image, expected) {
                Ok((recovered, _)) => recovered.sim.kill(),
                Err(what) => *failure.borrow_mut() = Some(format!("second cut, {loss:?}: {what}")),
            }
        }
    };
    world.sim.observe(observer);
    world.run_clients(setup, 2);
    world.sim.observe(|| {});
    let failed = failure.borrow_mut().take();
    failed.map_or(Ok(()), Err)
}

impl World {
    /// What a closed disk holds, compared like after a cut.
    pub fn compare_closed(&self, setup: &Setup, image: &Snapshot) -> Result<Expected, String> {
        let (world, found) = recover(setup, image, self.expected.borrow().clone())?;
        world.sim.kill();
        Ok(found)
    }
}
