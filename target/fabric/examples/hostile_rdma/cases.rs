//! The cases, in the order of CONFORMANCE 2.

use std::net::SocketAddr;

use afs_fabric::{ControllerOptions, Endpoint, HostController, HostError, HostQueue};
use afs_nvme::command::{AdminCommand, FabricsCommand};
use afs_nvme::identify::cns;
use afs_nvme::property::{Cc, PropertyOffset};
use afs_nvme::rdma::{RejectStatus, Request, RequestData};
use afs_nvme::{HostId, Nqn, QueueId, Sgl, SglDescriptor, Sqe, Status};
use afs_reactor::Local;
use afs_reactor::verbs::{RemoteMemory, Verbs};
use zerocopy::IntoBytes;

use crate::raw::{Answer, NotConnected, Raw, keyed};

const ADMIN_SQSIZE: u16 = 31;
const ENTRIES: u16 = ADMIN_SQSIZE + 1;
/// Keep-alive time of a host in whose process all the others play: it may be late itself where the machine is slow.
const PATIENT: u32 = 60_000;
/// And of one that has its process to itself.
const IMPATIENT: u32 = 5_000;
/// Connections that one storm opens: a host with 128 processors and its admin queue.
const STORM: usize = 129;

/// What all cases use.
pub struct World {
    pub verbs: Verbs,
    pub target: (SocketAddr, Nqn),
    pub local: Local,
}

type Held = Result<(), String>;

/// Runs every case.
pub async fn all(world: World) -> Held {
    let good = Good::connect(&world).await.map_err(|error| format!("a good host: {error}"))?;
    private_data(&world).await?;
    good.works("private data").await?;
    capsules(&world).await?;
    good.works("capsules of wrong length").await?;
    descriptors(&world).await?;
    good.works("descriptors").await?;
    keys(&world, &good).await?;
    good.works("wrong keys").await?;
    too_many(&world).await?;
    good.works("more commands than the queue is deep").await?;
    storm(&world).await?;
    good.works("a storm of connections").await
}

/// A host as it should be.
struct Good {
    controller: HostController,
    queue: HostQueue,
}

impl Good {
    async fn connect(world: &World) -> Result<Good, HostError> {
        let controller = controller(world, 1, PATIENT).await?;
        let queue = controller.io_queues(1).await?.remove(0);
        Ok(Good { controller, queue })
    }

    async fn works(&self, after: &str) -> Held {
        let failed = |error: HostError| format!("after {after} a good host is not served: {error}");
        let pool = self.queue.local().pool();
        for bytes in [4096, 64 << 10] {
            let mut data = pool.alloc(bytes).await;
            data.fill(u8::try_from(after.len()).unwrap_or(1));
            let data = data.freeze();
            self.queue.write(1, 0, data.clone()).await.map_err(failed)?;
            let read = self.queue.read(1, 0, pool.alloc(bytes).await).await.map_err(failed)?;
            if read[..] != data[..] {
                return Err(format!("after {after} a good host reads other data than it wrote"));
            }
        }
        self.controller.identify().await.map_err(failed)?;
        println!("held: {after}");
        Ok(())
    }
}

async fn controller(world: &World, host: u8, kato_ms: u32) -> Result<HostController, HostError> {
    let name = Nqn::new(&format!("nqn.2026-11.io.afs.lab:hostile-{host}"))
        .map_err(|_| HostError::Argument("name"))?;
    let options = ControllerOptions::new(world.target.1.clone(), name, HostId([host; 16]));
    let options = ControllerOptions { kato_ms, ..options };
    let endpoint = Endpoint::Rdma { verbs: world.verbs.clone(), address: world.target.0 };
    HostController::connect(endpoint, &world.local, options).await
}

impl World {
    async fn open(&self, private_data: &[u8], receives: u16) -> Result<Raw, NotConnected> {
        Raw::open(&self.verbs, self.target.0, &self.local, private_data, receives).await
    }

    /// An admin queue that can take `receives` answers at once.
    async fn admin(&self, receives: u16) -> Result<Raw, String> {
        let request = Request::new(QueueId(0), ADMIN_SQSIZE, None).to_data();
        let opened = self.open(request.as_bytes(), receives).await;
        opened.map_err(|why| format!("a good request was refused: {why:?}"))
    }

    /// The admin queue of a controller that is enabled.
    async fn connected(&self) -> Result<Raw, String> {
        let raw = self.admin(ENTRIES).await?;
        self.enable(&raw).await?;
        Ok(raw)
    }

    async fn enable(&self, raw: &Raw) -> Held {
        let answer = self.connect(raw, keyed).await;
        status(&answer, Status::SUCCESS, "a good Connect")?;
        let enable = FabricsCommand::PropertySet {
            offset: PropertyOffset::Cc as u32,
            size: PropertyOffset::Cc.size(),
            value: u64::from(Cc::for_host(true).get()),
        };
        let answer = raw.command(Sqe { sgl: nothing(), ..enable.to_sqe() }, &[]).await;
        status(&answer, Status::SUCCESS, "enabling the controller")
    }

    async fn connect(&self, raw: &Raw, sgl: impl FnOnce(RemoteMemory, u32) -> Sgl) -> Answer {
        let host = Nqn::new("nqn.2026-11.io.afs.lab:hostile-raw");
        let Ok(host) = host else { return Answer::Nothing };
        raw.connect((0, ADMIN_SQSIZE), (&self.target.1, &host), sgl).await
    }
}

fn status(answer: &Answer, wanted: Status, what: &str) -> Held {
    match answer {
        Answer::Completion(cqe) if cqe.status() == wanted => Ok(()),
        Answer::Completion(cqe) => Err(format!("{what}: {} instead of {wanted}", cqe.status())),
        other => Err(format!("{what}: {other:?} instead of {wanted}")),
    }
}

fn ended(answer: &Answer, what: &str) -> Held {
    match answer {
        Answer::Ended => Ok(()),
        other => Err(format!("{what}: {other:?} instead of the end of the queue pair")),
    }
}

/// CONFORMANCE 2.1. A request shorter than 32 bytes arrives padded with zeroes, so its sizes are wrong.
async fn private_data(world: &World) -> Held {
    let good = Request::new(QueueId(1), 127, None).to_data();
    let admin = Request::new(QueueId(0), ADMIN_SQSIZE, None).to_data();
    let cases: [(RequestData, RejectStatus); 7] = [
        (RequestData { recfmt: 1.into(), ..good }, RejectStatus::RecordFormat),
        (RequestData { qid: u16::MAX.into(), ..good }, RejectStatus::QueueId),
        (RequestData { hsqsize: 0.into(), ..good }, RejectStatus::HostSendQueueSize),
        (RequestData { hsqsize: 1024.into(), ..good }, RejectStatus::HostSendQueueSize),
        (RequestData { hsqsize: u16::MAX.into(), ..good }, RejectStatus::HostSendQueueSize),
        (RequestData { hsqsize: 32.into(), ..admin }, RejectStatus::HostSendQueueSize),
        (RequestData { hrqsize: 0.into(), ..good }, RejectStatus::HostReceiveQueueSize),
    ];
    for (data, wanted) in cases {
        refused(world, data.as_bytes(), wanted).await?;
    }
    for length in [0, 1, 7, 8, 16] {
        let short = &good.as_bytes()[..length.min(6)];
        refused(world, short, RejectStatus::HostSendQueueSize).await?;
    }
    let mut long = good.as_bytes().to_vec();
    long.resize(56, 0xff);
    world.open(&long, 4).await.map(drop).map_err(|why| format!("padded private data: {why:?}"))
}

async fn refused(world: &World, data: &[u8], wanted: RejectStatus) -> Held {
    match world.open(data, 4).await.map(drop) {
        Err(NotConnected::Rejected(status)) if status == wanted => Ok(()),
        other => Err(format!("private data {data:?}: {other:?} instead of {wanted:?}")),
    }
}

/// CONFORMANCE R-10, F-2.
async fn capsules(world: &World) -> Held {
    for length in [0, 1, 63] {
        let raw = world.connected().await?;
        raw.send(&vec![0; length]).await;
        ended(&raw.answer().await, &format!("a capsule of {length} bytes"))?;
    }
    for length in [64 + 4097, 64 + 16384] {
        let raw = world.connected().await?;
        raw.send(&vec![0; length]).await;
        ended(&raw.answer().await, &format!("a capsule of {length} bytes"))?;
    }
    let raw = world.admin(ENTRIES).await?;
    let identify = identify(0);
    let answer = raw.command(identify, &[]).await;
    status(&answer, Status::COMMAND_SEQUENCE_ERROR, "a command before Connect")
}

fn identify(cid: u16) -> Sqe {
    let mut sqe = AdminCommand::Identify { cns: cns::CONTROLLER, cntid: 0, csi: 0 }.to_sqe(0);
    sqe.cid.set(cid);
    sqe.sgl = nothing();
    sqe
}

/// The descriptor of no data.
fn nothing() -> Sgl {
    keyed(RemoteMemory { address: 0, key: 0 }, 0)
}

/// CONFORMANCE, T-25, T-77, F-1.
async fn descriptors(world: &World) -> Held {
    let raw = world.connected().await?;
    for kind in 0..=u8::MAX {
        let sqe = identify(u16::from(kind));
        let answer = raw.command(Sqe { sgl: Sgl { kind, ..sqe.sgl }, ..sqe }, &[]).await;
        let wanted = match kind {
            0x01 | 0x40 | 0x4f => Status::DATA_SGL_LENGTH_INVALID.dnr(),
            _ => Status::SGL_DESCRIPTOR_TYPE_INVALID.dnr(),
        };
        status(&answer, wanted, &format!("Identify with a descriptor of type {kind:#04x}"))?;
    }
    let long = Sqe { sgl: keyed(RemoteMemory { address: 1, key: 1 }, 0xff_ffff), ..identify(1) };
    status(&raw.command(long, &[]).await, Status::INVALID_FIELD.dnr(), "a length above MDTS")?;
    let prp = Sqe { flags: 0, ..identify(2) };
    status(&raw.command(prp, &[]).await, Status::INVALID_FIELD.dnr(), "PRPs")?;
    let read_in_capsule = Sqe { sgl: Sgl::in_capsule(4096), ..identify(3) };
    let answer = raw.command(read_in_capsule, &[0; 4096]).await;
    status(&answer, Status::INVALID_FIELD.dnr(), "a read with data in its capsule")?;

    let raw = world.admin(ENTRIES).await?;
    let answer = world.connect(&raw, |memory, _| keyed(memory, 1023)).await;
    status(&answer, Status::DATA_SGL_LENGTH_INVALID.dnr(), "Connect with 1023 bytes")?;
    let answer = world.connect(&raw, |_, length| Sgl::in_capsule(length)).await;
    status(&answer, Status::SGL_OFFSET_INVALID.dnr(), "Connect in the capsule of an admin queue")?;
    let shifted = |_, length| SglDescriptor::InCapsule { offset: u64::MAX, length }.to_sgl();
    let answer = world.connect(&raw, shifted).await;
    status(&answer, Status::SGL_OFFSET_INVALID.dnr(), "Connect at an offset of the capsule")
}

/// CONFORMANCE R-20: the queue pair dies, nothing else does.
async fn keys(world: &World, good: &Good) -> Held {
    let raw = world.admin(ENTRIES).await?;
    let wrong = |memory: RemoteMemory, length| {
        keyed(RemoteMemory { key: memory.key ^ 0xa5a5, ..memory }, length)
    };
    ended(&world.connect(&raw, wrong).await, "RDMA READ with a wrong key")?;
    let raw = world.connected().await?;
    let sgl = keyed(RemoteMemory { address: 4096, key: 0xdead }, 4096);
    ended(&raw.command(Sqe { sgl, ..identify(1) }, &[]).await, "RDMA WRITE with a wrong key")?;
    let raw = world.admin(ENTRIES).await?;
    let beyond = |memory: RemoteMemory, length| {
        keyed(RemoteMemory { address: memory.address.wrapping_sub(1 << 40), ..memory }, length)
    };
    ended(&world.connect(&raw, beyond).await, "RDMA READ out of bounds")?;
    good.works("a dead queue pair beside it").await
}

/// CONFORMANCE T-78: duplicate command ids, and more commands than the queue is deep.
async fn too_many(world: &World) -> Held {
    let raw = world.connected().await?;
    let event = AdminCommand::AsyncEventRequest.to_sqe(0);
    let event = Sqe { sgl: nothing(), ..event };
    raw.send(event.as_bytes()).await;
    ended(&raw.command(event, &[]).await, "a command id used twice")?;

    let raw = world.connected().await?;
    // Four events may wait; each further request is answered, so these never fill the queue.
    for cid in 0..512 {
        let mut sqe = event;
        sqe.cid.set(cid);
        raw.send(sqe.as_bytes()).await;
    }
    loop {
        match raw.answer().await {
            Answer::Completion(_) => {}
            Answer::Ended => return Ok(()),
            // All were taken and answered, one after the other: that is as good.
            Answer::Nothing => return Ok(()),
        }
    }
}

/// CONFORMANCE R-5: all connections of a large host at once, from three hosts.
async fn storm(world: &World) -> Held {
    let request = Request::new(QueueId(1), 31, None).to_data();
    let tasks: Vec<_> = (0..3 * STORM)
        .map(|_| {
            let (verbs, address, local) =
                (world.verbs.clone(), world.target.0, world.local.clone());
            world.local.spawn_local(async move {
                Raw::open(&verbs, address, &local, request.as_bytes(), 4).await
            })
        })
        .collect();
    let mut open = Vec::new();
    for task in tasks {
        let raw = task.await.map_err(|error| error.to_string())?;
        open.push(raw.map_err(|why| format!("one of {} at once: {why:?}", 3 * STORM))?);
    }
    println!("{} connections are open at once", open.len());
    Ok(())
}

/// A host that stops returning credits: it has one receive, sends eight commands and does not look at the answers. Ends
/// only when it is killed.
///
/// Receives are shared by all queue pairs of a process, so this one has its process to itself.
pub async fn no_credits(world: World) -> Held {
    let raw = world.admin(1).await?;
    world.enable(&raw).await?;
    for cid in 1..=8 {
        raw.send(identify(cid).as_bytes()).await;
    }
    println!("not looking");
    // The reactor, too, so that nothing posts receives.
    stand_still()
}

fn stand_still() -> ! {
    loop {
        std::thread::park();
    }
}

/// Connections of which each waiting host has so many.
const WAITING: usize = 16;

/// Connection requests, admin and I/O, whose acceptance is never confirmed. Ends only when it is killed.
pub async fn half_open(world: World) -> Held {
    let mut open = Vec::new();
    for index in 0..WAITING {
        let qid = u16::try_from(index % 2).unwrap_or(0);
        let data = Request::new(QueueId(qid), ADMIN_SQSIZE, None).to_data();
        let (verbs, address) = (&world.verbs, world.target.0);
        let asked = Raw::ask(verbs, address, &world.local, data.as_bytes(), ENTRIES).await;
        open.push(asked.map_err(|why| format!("a request that is left alone: {why:?}"))?);
    }
    println!("waiting");
    stand_still()
}

/// Connections that are established, and no Connect follows. Ends only when it is killed.
pub async fn no_connect(world: World) -> Held {
    let mut open = Vec::new();
    for _ in 0..WAITING {
        open.push(world.admin(ENTRIES).await?);
    }
    println!("waiting");
    stand_still()
}

/// Large reads and writes at depth, until the process is killed.
pub async fn drown(world: World) -> Held {
    let failed = |error: HostError| error.to_string();
    let controller = controller(&world, 2, IMPATIENT).await.map_err(failed)?;
    let queues = controller.io_queues(4).await.map_err(failed)?;
    let mut tasks = Vec::new();
    for queue in queues {
        for task in 0..16_u64 {
            let queue = queue.clone();
            tasks.push(world.local.spawn_local(async move {
                for turn in 0_u64.. {
                    let lba = (task + turn * 16) % 64 * 128;
                    let data = queue.local().pool().alloc(512 << 10).await.freeze();
                    queue.write(1, lba, data.clone()).await?;
                    queue.read(1, lba, queue.local().pool().alloc(512 << 10).await).await?;
                }
                Ok::<(), HostError>(())
            }));
        }
    }
    println!("under way");
    for task in tasks {
        task.await.map_err(|error| error.to_string())?.map_err(failed)?;
    }
    Ok(())
}
