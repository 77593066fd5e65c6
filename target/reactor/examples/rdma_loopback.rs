//! Both ends of RDMA connections in one process, to try a device or soft RDMA:
//! `rdma_loopback ADDRESS [ROUNDS]`. Each round connects, sends messages with and without data,
//! reads and writes remote memory, disconnects, and checks that everything came back; every other
//! round drops its ends in the middle of the traffic instead.
//! `rdma_loopback ADDRESS removal` connects and waits until the device is removed
//! (`rdma link delete`), closes everything, and waits for a device to come again.
//! `rdma_loopback ADDRESS churn` keeps one connection busy while a hundred others die in the
//! middle of messages, and tells how many receives were lost with them.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "an example")]

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use afs_reactor::verbs::{
    CmChannel, CmEventKind, CmId, CmKey, ConnectRequest, DeviceOptions, QueuePair, QueuePairEvent,
    QueuePairOptions, RdmaDevice, RemoteMemory, Verbs,
};
use afs_reactor::{Local, ReactorConfig, Reactors};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const DEPTH: u16 = 32;
const DATA: usize = 8192;
const TRANSFER: usize = 256 << 10;
const OPTIONS: DeviceOptions = DeviceOptions { capsule_data_bytes: DATA, receives_max: 256 };

/// First byte of a message: what the target shall do.
const ECHO: u8 = 1;
const FETCH: u8 = 2;
const STORE: u8 = 3;
const BREAK: u8 = 4;

type Events = UnboundedReceiver<CmEventKind>;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().expect("an address of an RDMA device");
    let mode = arguments.next().unwrap_or_else(|| "10".into());
    let verbs = match Verbs::load() {
        Ok(verbs) => verbs,
        Err(error) => {
            println!("{error}");
            std::process::exit(1);
        }
    };
    println!("devices: {:?}", verbs.devices().unwrap());
    let config = ReactorConfig {
        threads: 2,
        ring_entries: 0,
        buffer_bytes: 16 << 20,
        ..ReactorConfig::default()
    };
    let reactors = Reactors::start(config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address: SocketAddr = format!("{address}:4420").parse().unwrap();
    runtime.block_on(async {
        match mode.as_str() {
            "removal" => removal(&verbs, &reactors, address).await,
            "churn" => Lab::new(&verbs, &reactors, address).churn().await,
            rounds => {
                let mut lab = Lab::new(&verbs, &reactors, address);
                for round in 0..rounds.parse().unwrap() {
                    lab.round(round % 2 == 1).await;
                }
                println!("{rounds} rounds done");
            }
        }
    });
    for index in 0..2 {
        println!("reactor {index}: {:?}", reactors.handle(index).stats());
    }
    reactors.shutdown();
}

async fn removal(verbs: &Verbs, reactors: &Reactors, address: SocketAddr) {
    let mut lab = Lab::new(verbs, reactors, address);
    lab.until_removed().await;
    drop(lab);
    println!("everything is closed; waiting for a device");
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let channel = CmChannel::open(verbs);
        match channel.and_then(|channel| channel.listen(address, 1)) {
            Ok(_) => break,
            Err(error) => println!("not yet: {error}"),
        }
    }
    println!("a device is back: {:?}", verbs.devices().unwrap());
    Lab::new(verbs, reactors, address).round(false).await;
    println!("and works");
}

/// The listener, and everybody who wants to know about connections.
struct Lab<'a> {
    reactors: &'a Reactors,
    address: SocketAddr,
    channel: CmChannel,
    listener: Option<CmId>,
    ends: HashMap<CmKey, UnboundedSender<CmEventKind>>,
}

impl<'a> Lab<'a> {
    fn new(verbs: &Verbs, reactors: &'a Reactors, address: SocketAddr) -> Lab<'a> {
        let channel = CmChannel::open(verbs).unwrap();
        let listener = channel.listen(address, 16).unwrap();
        println!("listening on {:?} of {:?}", listener.local(), listener.device_name());
        Lab { reactors, address, channel, listener: Some(listener), ends: HashMap::new() }
    }

    async fn round(&mut self, abrupt: bool) {
        let (done, mut results) = unbounded_channel();
        self.connect(&done, if abrupt { Part::Abrupt } else { Part::Whole }).await;
        drop(done);
        loop {
            tokio::select! {
                event = self.channel.next() => self.pass_on(event.unwrap()),
                result = results.recv() => match result {
                    Some(line) => println!("{line}"),
                    None => break,
                },
            }
        }
        self.ends.retain(|_, end| !end.is_closed());
    }

    async fn churn(&mut self) {
        let (done, mut results) = unbounded_channel();
        self.connect(&done, Part::Pings).await;
        drop(done);
        for _ in 0..100 {
            self.round(true).await;
        }
        // A last one finds what was lost: its messages came later than all of that.
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.round(true).await;
        self.ends.clear();
        while let Some(line) = results.recv().await {
            println!("{line}");
        }
    }

    async fn until_removed(&mut self) {
        let (done, mut results) = unbounded_channel();
        self.connect(&done, Part::Pings).await;
        drop(done);
        println!("connected: remove the device");
        loop {
            tokio::select! {
                event = self.channel.next() => {
                    let event = event.unwrap();
                    println!("{:?} {:?}", event.key, event.kind);
                    if matches!(event.kind, CmEventKind::DeviceRemoval)
                        && self.listener.as_ref().is_some_and(|known| known.key() == event.key)
                    {
                        self.listener = None;
                    }
                    self.pass_on(event);
                }
                result = results.recv() => match result {
                    Some(line) => println!("{line}"),
                    None if self.listener.is_none() => return,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                },
            }
        }
    }

    /// Resolves, and starts both ends on their reactors.
    async fn connect(&mut self, done: &UnboundedSender<String>, part: Part) {
        let mut active = Some(self.channel.resolve(self.address, Duration::from_secs(3)).unwrap());
        let mut wanted = true;
        while wanted || active.is_some() {
            let event = self.channel.next().await.unwrap();
            match event.kind {
                CmEventKind::AddressResolved => {
                    active.as_ref().unwrap().resolve_route(Duration::from_secs(3)).unwrap();
                }
                CmEventKind::RouteResolved => {
                    let (id, events, done) =
                        (active.take().unwrap(), self.end(event.key), done.clone());
                    self.reactors.handle(1).spawn(move |local| async move {
                        let _ = done.send(host(&local, id, events, part).await);
                    });
                }
                CmEventKind::ConnectRequest(request) => {
                    let (events, done) = (self.end(request.id.key()), done.clone());
                    wanted = false;
                    self.reactors.handle(0).spawn(move |local| async move {
                        let _ = done.send(target(&local, request, events, part).await);
                    });
                }
                CmEventKind::Rejected { .. } | CmEventKind::ConnectError(_) => {
                    panic!("{:?}", event.kind)
                }
                _ => self.pass_on(event),
            }
        }
    }

    fn end(&mut self, key: CmKey) -> Events {
        let (sender, receiver) = unbounded_channel();
        self.ends.insert(key, sender);
        receiver
    }

    fn pass_on(&self, event: afs_reactor::verbs::CmEvent) {
        if let Some(end) = self.ends.get(&event.key) {
            let _ = end.send(event.kind);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Whole,
    Abrupt,
    Pings,
}

/// What an end does next.
enum Step {
    Work(QueuePairEvent),
    Ended,
}

async fn next(pair: &QueuePair, events: &mut Events) -> Step {
    loop {
        tokio::select! {
            event = poll_fn(|cx| pair.poll_event(cx)) => return Step::Work(event),
            event = events.recv() => match event {
                Some(CmEventKind::Disconnected | CmEventKind::DeviceRemoval) | None => return Step::Ended,
                Some(_) => {}
            },
        }
    }
}

/// The passive side: answers until the peer goes.
async fn target(local: &Local, request: ConnectRequest, mut events: Events, part: Part) -> String {
    let device = RdmaDevice::of(local, &request.id, &OPTIONS, &[]).unwrap();
    let initiator_depth = request.initiator_depth.min(4).min(device.limits().initiator_depth);
    let options = QueuePairOptions { depth: DEPTH, initiator_depth, private_data: b"welcome" };
    let pair = QueuePair::accept(&device, request.id, &options).unwrap();
    let mut kept = HashMap::new();
    let mut failure = None;
    while let Step::Work(event) = next(&pair, &mut events).await {
        match event {
            QueuePairEvent::Received { header, len, data } => {
                let tag = u16::from(header[1]);
                let remote = remote(&header);
                let count = u64::from_le_bytes(header[24..32].try_into().unwrap()) as usize;
                match header[0] {
                    ECHO => {
                        assert_eq!(len, 64 + count);
                        assert_eq!(data.as_deref().map_or(0, <[u8]>::len), count);
                        let sum = data.as_deref().map_or(0, sum);
                        pair.send(tag, &sum.to_le_bytes(), None, None, None);
                    }
                    FETCH => {
                        let mut into = local.pool().alloc(count).await;
                        into.set_len(count);
                        pair.read(tag, into, remote);
                    }
                    STORE => {
                        let data: afs_reactor::Buffer = kept.remove(&tag).unwrap();
                        let sum = sum(&data);
                        pair.send(tag, &sum.to_le_bytes(), None, Some((data, remote)), None);
                    }
                    // A key that the peer does not have.
                    _ => pair.send(tag, &[0; 16], None, None, Some(remote.key ^ 0x55)),
                }
            }
            QueuePairEvent::ReadDone { tag, buffer } => {
                let sum = sum(&buffer);
                kept.insert(tag, buffer.freeze());
                pair.send(tag, &sum.to_le_bytes(), None, None, None);
            }
            QueuePairEvent::Sent { .. } => {}
            QueuePairEvent::Failed(error) => failure = Some(error),
        }
        let _ = pair.flush();
    }
    drop(kept);
    finish("target", local, device, pair, part, failure).await
}

/// The active side: asks for everything, and checks the answers.
async fn host(local: &Local, id: CmId, mut events: Events, part: Part) -> String {
    let device = RdmaDevice::of(local, &id, &OPTIONS, &[]).unwrap();
    let options = QueuePairOptions { depth: DEPTH, initiator_depth: 0, private_data: b"hello" };
    let pair = QueuePair::connect(&device, id, &options).unwrap();
    loop {
        match events.recv().await {
            Some(CmEventKind::Established { private_data }) => {
                assert_eq!(&private_data[..7], b"welcome");
                break;
            }
            Some(CmEventKind::Rejected { .. } | CmEventKind::ConnectError(_)) | None => {
                panic!("not connected")
            }
            Some(_) => {}
        }
    }
    let mut failure = None;
    match part {
        Part::Whole => failure = everything(local, &device, &pair, &mut events).await,
        Part::Abrupt => {
            // Some of it is on the way when this end vanishes.
            burst(local, &pair, DEPTH);
        }
        Part::Pings => {
            burst(local, &pair, 1);
            while let Step::Work(event) = next(&pair, &mut events).await {
                match event {
                    QueuePairEvent::Received { .. } => burst(local, &pair, 1),
                    QueuePairEvent::Failed(error) => {
                        failure = Some(error);
                        break;
                    }
                    _ => {}
                }
            }
        }
    }
    finish("host", local, device, pair, part, failure).await
}

async fn everything(
    local: &Local,
    device: &RdmaDevice,
    pair: &QueuePair,
    events: &mut Events,
) -> Option<afs_reactor::verbs::WorkError> {
    for count in [0, 1, 4096, DATA] {
        let payload = filled(local, count).await;
        let expected = sum(&payload);
        pair.send(0, &message(ECHO, 0, None, count), Some(payload), None, None);
        assert_eq!(answer(pair, events).await.unwrap().1, expected);
    }
    // More than the target's initiator depth at once, then all of it back.
    let mut memory = Vec::new();
    for tag in 0..DEPTH / 2 {
        let data = filled(local, TRANSFER).await;
        let remote = device.remote_key(&data).unwrap();
        pair.send(tag, &message(FETCH, tag, Some(remote), TRANSFER), None, None, None);
        memory.push((data, remote));
    }
    for _ in 0..DEPTH / 2 {
        let (_, _) = answer(pair, events).await.unwrap();
    }
    for (tag, (data, _)) in memory.into_iter().enumerate() {
        let expected = data.to_vec();
        let mut target = data.try_into_mut().unwrap();
        target.zero();
        let remote = device.remote_key(&target).unwrap();
        let tag = u16::try_from(tag).unwrap();
        pair.send(tag, &message(STORE, tag, Some(remote), TRANSFER), None, None, None);
        let (_, told) = answer(pair, events).await.unwrap();
        assert_eq!(told, sum(&target));
        assert!(target[..] == expected[..]);
    }
    let data = filled(local, 4096).await;
    let remote = device.remote_key(&data).unwrap();
    pair.send(0, &message(BREAK, 0, Some(remote), 0), None, None, None);
    answer(pair, events).await.err()
}

/// Messages with data, as many as the queue holds at most.
fn burst(local: &Local, pair: &QueuePair, count: u16) {
    for tag in 0..count {
        let Some(mut data) = local.pool().try_alloc(DATA) else { return };
        data.fill(7);
        pair.send(tag, &message(ECHO, tag, None, DATA), Some(data.freeze()), None, None);
    }
    let _ = pair.flush();
}

/// Closes an end and looks whether everything came back.
async fn finish(
    name: &str,
    local: &Local,
    device: RdmaDevice,
    pair: QueuePair,
    part: Part,
    failure: Option<afs_reactor::verbs::WorkError>,
) -> String {
    if part != Part::Abrupt {
        pair.disconnect();
        poll_fn(|cx| pair.poll_idle(cx)).await;
        assert_eq!(pair.outstanding(), 0);
    }
    let ended = pair.work_ended();
    let before = device.figures();
    drop(pair);
    let after = device.figures();
    drop(device);
    // The device's task lets go of its part in its next turn.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let leaked = local.pool().total_bytes() - local.pool().free_bytes();
    assert!(leaked == 0 || after.queue_pairs > 0, "{name}: {leaked} bytes of the pool are missing");
    let failure = failure.map_or_else(|| "no failure".to_owned(), |error| error.to_string());
    format!(
        "{name}: {ended} works, {} doorbells, {} completions, {} armings, {} lost receives; {} receives posted, {} after; {failure}",
        before.doorbells,
        before.completions,
        before.armings,
        after.receives_lost,
        before.receives_posted,
        after.receives_posted
    )
}

/// Waits for the answer to one message: its tag and the sum in it.
async fn answer(
    pair: &QueuePair,
    events: &mut Events,
) -> Result<(u16, u64), afs_reactor::verbs::WorkError> {
    let (mut failed, _) = (pair.flush(), ());
    loop {
        match next(pair, events).await {
            Step::Work(QueuePairEvent::Received { header, .. }) => {
                return Ok((0, u64::from_le_bytes(header[..8].try_into().unwrap())));
            }
            Step::Work(QueuePairEvent::Failed(error)) => return Err(error),
            Step::Work(_) => {}
            Step::Ended => {
                failed = failed.and(Err(std::io::Error::other("ended")));
                pair.disconnect();
                let cause = afs_reactor::verbs::WorkCause::Device;
                let operation = afs_reactor::verbs::WorkOperation::Connection;
                println!("{failed:?}");
                return Err(afs_reactor::verbs::WorkError { operation, cause });
            }
        }
    }
}

async fn filled(local: &Local, count: usize) -> afs_reactor::Buffer {
    let mut data = local.pool().alloc(count).await;
    for (index, byte) in data.iter_mut().enumerate() {
        *byte = (index * 7 + count) as u8;
    }
    data.freeze()
}

fn message(what: u8, tag: u16, remote: Option<RemoteMemory>, count: usize) -> [u8; 64] {
    let mut message = [0; 64];
    message[0] = what;
    message[1] = tag as u8;
    let remote = remote.unwrap_or(RemoteMemory { address: 0, key: 0 });
    message[8..16].copy_from_slice(&remote.address.to_le_bytes());
    message[16..20].copy_from_slice(&remote.key.to_le_bytes());
    message[24..32].copy_from_slice(&(count as u64).to_le_bytes());
    message
}

fn remote(header: &[u8; 64]) -> RemoteMemory {
    RemoteMemory {
        address: u64::from_le_bytes(header[8..16].try_into().unwrap()),
        key: u32::from_le_bytes(header[16..20].try_into().unwrap()),
    }
}

fn sum(data: &[u8]) -> u64 {
    data.iter().fold(0, |sum: u64, &byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}
