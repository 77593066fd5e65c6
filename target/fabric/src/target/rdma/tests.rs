//! Listener and connections over a provider that does as it is told: hosts that stop half-way, and addresses that move.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use afs_nvme::command::AdminCommand;
use afs_nvme::identify::cns;
use afs_nvme::rdma::Request as ConnectionRequest;
use afs_nvme::{QueueId, Status};
use afs_reactor::verbs::fake::{FakeConnection, FakeNetwork, Finding};
use afs_reactor::{ReactorConfig, Reactors};
use tokio::sync::watch;
use zerocopy::IntoBytes;

use super::super::close::CloseReason;
use super::super::limits::{Limits, RdmaLimits};
use super::super::request::Request;
use super::super::service::{Completion, Service};
use super::RdmaListener;
use super::place::{Interfaces, Lookout};

/// How long anything may take that happens at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a test does not wait for.
const NEVER: Duration = Duration::from_secs(3600);
/// Enough for what a test does at once, also where much else is going on.
const STEP: Duration = Duration::from_millis(500);
const OFTEN: Duration = Duration::from_millis(10);

/// Answers nothing, and remembers how queue pairs ended.
struct Rude(Arc<Mutex<Vec<CloseReason>>>);

impl Service for Rude {
    async fn call(self: Rc<Self>, _: Request) -> Completion {
        Completion::error(Status::COMMAND_SEQUENCE_ERROR)
    }

    fn closed(&self, reason: &CloseReason) {
        self.0.lock().unwrap().push(reason.clone());
    }
}

/// What a test sees.
struct Stage {
    network: FakeNetwork,
    listening: watch::Receiver<bool>,
    place: Arc<Mutex<Interfaces>>,
    closed: Arc<Mutex<Vec<CloseReason>>>,
    /// What exists while nobody is connected.
    at_rest: i64,
}

/// Runs a test beside a listener whose connections have so much time for each step.
fn play<Fut: Future<Output = ()>>(
    (establish, connect): (Duration, Duration),
    test: impl FnOnce(Stage) -> Fut,
) {
    let config =
        ReactorConfig { ring_entries: 0, buffer_bytes: 4 << 20, ..ReactorConfig::default() };
    let reactors = Reactors::start(config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (network, verbs) = FakeNetwork::new();
        let place = Arc::new(Mutex::new(on("eth0")));
        let seen = Arc::clone(&place);
        let lookout = Lookout::new(OFTEN, Box::new(move |_| Ok(seen.lock().unwrap().clone())));
        let address = "10.0.0.1:4420".parse().unwrap();
        let listener = RdmaListener::open_at(&verbs, address, 8, lookout).unwrap();
        let closed = Arc::new(Mutex::new(Vec::new()));
        let stage = Stage {
            network,
            listening: listener.listening(),
            place,
            closed: Arc::clone(&closed),
            at_rest: network.objects(),
        };
        let rdma = RdmaLimits { establish_timeout: establish, ..RdmaLimits::default() };
        let limits = Limits { rdma, connect_timeout: connect, ..Limits::default() };
        let make = move |_: &_, _: &_| Rc::new(Rude(Arc::clone(&closed)));
        tokio::select! {
            ended = listener.serve(vec![reactors.handle(0)], limits, make) => panic!("{ended:?}"),
            () = test(stage) => {}
        }
    });
    reactors.shutdown();
}

fn on(interface: &str) -> Interfaces {
    Interfaces::from([(Some(1), interface.to_owned())])
}

/// Waits for something that other threads bring about, and that nobody is told of.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

impl Stage {
    /// A host asks for an admin queue and is accepted.
    async fn accepted(&self) -> FakeConnection {
        let host = SocketAddr::from(([10, 0, 0, 2], 1000));
        let data = ConnectionRequest::new(QueueId(0), 31, None).to_data();
        let connection = self.network.ask(host, data.as_bytes()).unwrap();
        until("a host to be accepted", || self.network.was_accepted(connection)).await;
        connection
    }

    async fn ends_with(&self, reasons: &[CloseReason]) {
        until("connections to end", || self.closed.lock().unwrap().len() == reasons.len()).await;
        assert_eq!(*self.closed.lock().unwrap(), reasons);
    }

    async fn rests(&self) {
        until("everything to be given back", || self.network.objects() == self.at_rest).await;
    }
}

#[test]
fn hosts_that_never_confirm_are_given_up_and_the_others_are_served() {
    play((STEP, NEVER), |stage| async move {
        let good = stage.accepted().await;
        stage.network.tell(good, Finding::Established);
        let identify = AdminCommand::Identify { cns: cns::CONTROLLER, cntid: 0, csi: 0 };
        for round in 1..=2 {
            let mut silent = Vec::new();
            for _ in 0..8 {
                silent.push(stage.accepted().await);
            }
            stage.ends_with(&vec![CloseReason::NotEstablished; 8 * round]).await;
            let gone = || silent.iter().all(|silent| !stage.network.is_accepted(*silent));
            until("silent connections to be destroyed", gone).await;
            stage.network.send(good, identify.to_sqe(0).as_bytes());
            until("an answer", || stage.network.work()).await;
        }
        assert!(stage.network.is_accepted(good));
        stage.network.tell(good, Finding::Disconnected);
        stage.rests().await;
    });
}

#[test]
fn what_the_connection_manager_gives_up_is_freed_at_once() {
    let findings = [
        Finding::Unreachable,
        Finding::ConnectError,
        Finding::Rejected,
        Finding::Disconnected,
        Finding::TimewaitExit,
    ];
    for is_established in [false, true] {
        play((NEVER, NEVER), |stage| async move {
            for (index, finding) in findings.into_iter().enumerate() {
                let connection = stage.accepted().await;
                if is_established {
                    stage.network.tell(connection, Finding::Established);
                }
                stage.network.tell(connection, finding);
                stage.ends_with(&vec![CloseReason::PeerClosed; index + 1]).await;
                stage.rests().await;
            }
        });
    }
}

#[test]
fn a_confirmed_host_has_the_time_that_connect_may_take_and_no_more() {
    play((STEP, STEP + STEP / 10), |stage| async move {
        let connection = stage.accepted().await;
        stage.network.tell(connection, Finding::Established);
        stage.ends_with(&[CloseReason::NoConnect]).await;
        stage.rests().await;
    });
}

#[test]
fn a_message_that_overtakes_the_confirmation_stands_for_it() {
    play((STEP, STEP + STEP / 10), |stage| async move {
        let connection = stage.accepted().await;
        let keep_alive = AdminCommand::KeepAlive.to_sqe(0);
        stage.network.send(connection, keep_alive.as_bytes());
        until("an answer", || stage.network.work()).await;
        stage.ends_with(&[CloseReason::NoConnect]).await;
        stage.rests().await;
    });
}

#[test]
fn an_address_that_disappears_is_listened_on_again_where_it_appears() {
    play((NEVER, NEVER), |mut stage| async move {
        let connection = stage.accepted().await;
        stage.network.has_address(false);
        *stage.place.lock().unwrap() = Interfaces::new();
        stage.listening.wait_for(|is| !is).await.unwrap();
        assert_eq!(stage.network.listeners(), 0);
        assert!(stage.network.is_accepted(connection), "it ends when its packets do");
        // Back on another interface, whose device knows it a little later.
        *stage.place.lock().unwrap() = on("eth1");
        stage.network.has_address(true);
        stage.listening.wait_for(|is| *is).await.unwrap();
        assert_eq!((stage.network.listeners(), stage.network.listened()), (1, 2));
        stage.network.tell(connection, Finding::Disconnected);
        stage.accepted().await;
    });
}

#[test]
fn an_address_that_moves_is_listened_on_anew() {
    play((NEVER, NEVER), |stage| async move {
        *stage.place.lock().unwrap() = on("eth1");
        until("a new listener", || stage.network.listened() == 2).await;
        assert_eq!(stage.network.listeners(), 1);
        stage.network.tell_address_change();
        until("a new listener on the other adapter", || stage.network.listened() == 3).await;
        assert_eq!(stage.network.listeners(), 1);
        stage.accepted().await;
    });
}
