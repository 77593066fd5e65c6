//! What can go wrong between a conductor and PostgreSQL, played by a proxy between the two.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::tests::{DISK, report, server};
use super::*;
use afs_decisions::ClusterView;

use crate::api::Severity;

/// A simple query's text ends with NUL.
const COMMIT: &[u8] = b"COMMIT\0";

/// What the proxy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing.
    Pass,
    /// The next COMMIT arrives, its answer does not; the connection breaks.
    LoseAnswer,
    /// The next COMMIT does not arrive; the connection breaks.
    LoseCommit,
    /// As `LoseAnswer`, and then nobody can connect.
    LoseAnswerAndAll,
    /// Nobody can connect, and who is connected is not for long.
    Refuse,
    /// Nothing arrives, nothing breaks.
    Silence,
}

struct Proxy {
    mode: Arc<Mutex<Mode>>,
    url: PostgresUrl,
}

impl Proxy {
    async fn start(server: &server::Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let database = server.new_database().unwrap();
        let url = format!("postgres://afs@{}/{database}", listener.local_addr().unwrap());
        let mode = Arc::new(Mutex::new(Mode::Pass));
        let (socket, shared) = (server.socket(), mode.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *shared.lock() != Mode::Refuse {
                    tokio::spawn(carry(client, socket.clone(), shared.clone()));
                }
            }
        });
        Self { mode, url: url.parse().unwrap() }
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    async fn open(&self) -> MetaDb {
        let db = MetaDb::open(&self.url.clone().into()).await.unwrap();
        db.register(&report("n1", DISK), |_, _| false).await.unwrap();
        db
    }
}

/// Carries one connection, until something breaks it.
async fn carry(mut client: TcpStream, socket: PathBuf, mode: Arc<Mutex<Mode>>) -> Option<()> {
    let mut server = UnixStream::connect(socket).await.ok()?;
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let asked = asked.get(..read.ok().filter(|read| *read > 0)?)?;
                let commit = asked.windows(COMMIT.len()).any(|bytes| bytes == COMMIT);
                let now = *mode.lock();
                match now {
                    Mode::Silence => std::future::pending().await,
                    Mode::Refuse => return None,
                    Mode::LoseCommit if commit => {
                        *mode.lock() = Mode::Pass;
                        return None;
                    }
                    Mode::LoseAnswer | Mode::LoseAnswerAndAll if commit => {
                        server.write_all(asked).await.ok()?;
                        // By its answer it is durable.
                        server.readable().await.ok()?;
                        let then = if now == Mode::LoseAnswer { Mode::Pass } else { Mode::Refuse };
                        *mode.lock() = then;
                        return None;
                    }
                    _ => server.write_all(asked).await.ok()?,
                }
            }
            read = server.read(&mut answered) => {
                client.write_all(answered.get(..read.ok().filter(|read| *read > 0)?)?).await.ok()?;
            }
        }
    }
}

async fn volumes(db: &MetaDb) -> Vec<String> {
    db.snapshot().await.unwrap().volumes.into_iter().map(|volume| volume.name).collect()
}

#[tokio::test]
async fn decision_whose_commit_arrived_is_a_success_although_the_answer_was_lost() {
    if !server::may_run("decision_whose_commit_arrived") {
        return;
    }
    let proxy = Proxy::start(server::shared()).await;
    let db = proxy.open().await;
    let before = *db.revision().borrow();
    proxy.set(Mode::LoseAnswer);
    let made = db.create_volume("v", 4096, DISK).await.unwrap();
    assert_eq!(*proxy.mode.lock(), Mode::Pass, "the answer was lost");
    assert_eq!((made.revision, *db.revision().borrow()), (before + 1, before + 1));
    assert_eq!(volumes(&db).await, ["v"]);
    assert_eq!(
        db.resize_volume("v", 8192, None, &ClusterView::default()).await.unwrap().revision,
        before + 2
    );
}

#[tokio::test]
async fn decision_whose_commit_was_lost_is_a_failure_and_can_be_made_again() {
    if !server::may_run("decision_whose_commit_was_lost") {
        return;
    }
    let proxy = Proxy::start(server::shared()).await;
    let db = proxy.open().await;
    let before = *db.revision().borrow();
    proxy.set(Mode::LoseCommit);
    let error = db.create_volume("v", 4096, DISK).await.unwrap_err();
    assert!(matches!(error, DbError::Unavailable(_)), "{error}");
    assert_eq!(*proxy.mode.lock(), Mode::Pass, "the commit was lost");
    assert_eq!(*db.revision().borrow(), before);
    assert!(volumes(&db).await.is_empty());
    assert_eq!(db.create_volume("v", 4096, DISK).await.unwrap().revision, before + 1);
}

#[tokio::test]
async fn decision_that_cannot_be_read_back_is_called_unknown_and_learnt_of_later() {
    if !server::may_run("decision_that_cannot_be_read_back") {
        return;
    }
    let proxy = Proxy::start(server::shared()).await;
    let db = proxy.open().await;
    let before = *db.revision().borrow();
    proxy.set(Mode::LoseAnswerAndAll);
    let error = db.create_volume("v", 4096, DISK).await.unwrap_err();
    assert!(matches!(error, DbError::Unknown(_)), "{error}");
    assert_eq!(*db.revision().borrow(), before, "nothing is assumed");
    assert!(matches!(db.check().await, Err(DbError::Unavailable(_))));
    proxy.set(Mode::Pass);
    db.check().await.unwrap();
    assert_eq!(*db.revision().borrow(), before + 1, "it was durable");
    assert_eq!(volumes(&db).await, ["v"]);
    assert_eq!(
        db.resize_volume("v", 8192, None, &ClusterView::default()).await.unwrap().revision,
        before + 2
    );
}

#[tokio::test]
async fn decision_after_one_of_unknown_fate_goes_with_what_that_changed() {
    if !server::may_run("decision_after_one_of_unknown_fate") {
        return;
    }
    let proxy = Proxy::start(server::shared()).await;
    let db = proxy.open().await;
    assert!(volumes(&db).await.is_empty());
    proxy.set(Mode::LoseAnswerAndAll);
    let error = db.create_volume("v", 4096, DISK).await.unwrap_err();
    assert!(matches!(error, DbError::Unknown(_)), "{error}");
    proxy.set(Mode::Pass);
    db.create_volume("w", 4096, DISK).await.unwrap();
    assert_eq!(volumes(&db).await, ["v", "w"]);
}

#[tokio::test]
async fn database_that_hangs_is_given_up_in_time_and_used_again_when_it_answers() {
    if !server::may_run("database_that_hangs") {
        return;
    }
    let proxy = Proxy::start(server::shared()).await;
    let db = proxy.open().await;
    proxy.set(Mode::Silence);
    let started = Instant::now();
    let (decided, read) = tokio::join!(db.create_volume("v", 4096, DISK), db.snapshot());
    assert!(matches!(decided, Err(DbError::Unavailable(_))), "{decided:?}");
    assert!(matches!(read, Err(DbError::Unavailable(_))), "{read:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    proxy.set(Mode::Pass);
    db.create_volume("v", 4096, DISK).await.unwrap();
    assert_eq!(volumes(&db).await, ["v"]);
}

#[tokio::test]
async fn of_two_conductors_the_newer_decides_and_no_revision_is_given_twice() {
    if !server::may_run("of_two_conductors") {
        return;
    }
    let place: Place = server::database().parse::<PostgresUrl>().unwrap().into();
    let old = Arc::new(MetaDb::open(&place).await.unwrap());
    old.register(&report("n1", DISK), |_, _| false).await.unwrap();
    let before = *old.revision().borrow();
    let deciding = |db: Arc<MetaDb>, who: &'static str, times: usize| async move {
        let mut revisions = Vec::new();
        for n in 0..times {
            match db.create_volume(&format!("{who}{n}"), 4096, DISK).await {
                Ok(decided) => revisions.push(decided.revision),
                Err(DbError::Fenced) => break,
                Err(error) => panic!("{error}"),
            }
        }
        revisions
    };
    let tasks: Vec<_> =
        // The old one goes on until it is told that it is not the one that decides any more.
        ["a", "b", "c"].map(|who| tokio::spawn(deciding(old.clone(), who, usize::MAX))).into();
    while *old.revision().borrow() < before + 5 {
        tokio::task::yield_now().await;
    }
    let new = Arc::new(MetaDb::open(&place).await.unwrap());
    let taken_over_at = *new.revision().borrow();
    let mut revisions = deciding(new.clone(), "n", 20).await;
    assert_eq!(revisions.len(), 20);
    for task in tasks {
        let decided = task.await.unwrap();
        assert!(decided.iter().all(|revision| *revision <= taken_over_at), "{decided:?}");
        revisions.extend(decided);
    }
    revisions.sort_unstable();
    let last = *new.revision().borrow();
    assert_eq!(revisions, (before + 1..=last).collect::<Vec<_>>());
    assert!(matches!(old.snapshot().await, Err(DbError::Fenced)), "it serves nothing any more");
    assert!(matches!(old.check().await, Err(DbError::Fenced)));
}

#[tokio::test]
async fn conductor_that_freezes_in_a_decision_loses_it_and_lets_the_next_one_in() {
    if !server::may_run("conductor_that_freezes") {
        return;
    }
    let place: Place = server::database().parse::<PostgresUrl>().unwrap().into();
    let frozen = MetaDb::open(&place).await.unwrap();
    let mut decision = frozen.begin().await.unwrap();
    decision.changed("late", "x", String::new());
    let next = MetaDb::open(&place).await.unwrap();
    next.note(Severity::Info, "next", "x", String::new()).await.unwrap();
    let late = decision.commit(()).await.unwrap_err();
    assert!(matches!(late, DbError::Unavailable(_)), "{late}");
    let late = frozen.begin().await.err().unwrap();
    assert!(matches!(late, DbError::Fenced), "{late}");
    let events = next.events(None, 10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["next"]);
}
