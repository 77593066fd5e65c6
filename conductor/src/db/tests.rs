//! MetaDB against a plain model, and the decisions that need words of their own.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

#[path = "../../tests/common/postgres.rs"]
pub(super) mod server;

use afs_decisions::ClusterView;
use parking_lot::Mutex;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::api::{
    DiskKind, DiskReport, DiskState, ErrorCode, NodeReport, NodeState, PortalReport, Severity,
    StateNews,
};
use crate::names::ANY_HOST;

pub(super) const DISK: Uuid = Uuid::from_u128(0xd15c);
const NODE: &str = "n1";
const NQNS: [&str; 2] = ["nqn.2026-11.com.example:a", "nqn.2026-11.com.example:b"];
const HOSTS: [&str; 3] = ["nqn.2026-11.com.host:1", "nqn.2026-11.com.host:2", ANY_HOST];
const VOLUMES: [&str; 3] = ["red", "green", "blue"];

pub(super) fn report(node: &str, disk: Uuid) -> NodeReport {
    NodeReport {
        node: node.to_owned(),
        applied_revision: 0,
        portals: vec![PortalReport {
            transport: "tcp".to_owned(),
            address: "192.0.2.1".to_owned(),
            service: "4420".to_owned(),
        }],
        disks: vec![DiskReport {
            uuid: disk,
            kind: DiskKind::Store,
            path: "/disk".to_owned(),
            total_bytes: 1 << 40,
            free_bytes: 1 << 40,
            state: DiskState::Online,
            error: None,
        }],
        volumes: Vec::new(),
        deleted: Vec::new(),
        ..NodeReport::default()
    }
}

/// Where a test's MetaDB is.
pub(super) struct Home {
    pub(super) place: Place,
    _folder: Option<tempfile::TempDir>,
}

impl Home {
    pub(super) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { place: folder.path().into(), _folder: Some(folder) }
    }

    pub(super) fn postgres(test: &str) -> Option<Self> {
        if !server::may_run(test) {
            return None;
        }
        let url: PostgresUrl = server::database().parse().unwrap();
        Some(Self { place: url.into(), _folder: None })
    }
}

async fn with_node(place: &Place) -> MetaDb {
    let db = MetaDb::open(place).await.unwrap();
    db.register(&report(NODE, DISK), |_, _| false).await.unwrap();
    db
}

async fn state(db: &MetaDb) -> NodeState {
    state_of(db, NODE).await.unwrap()
}

/// What nodes were told last, by who told it and their names.
static TOLD: Mutex<BTreeMap<(Uuid, String), NodeState>> = Mutex::new(BTreeMap::new());

/// What a node is told. It is written field by field; none may be missing, be it one that a reader can do without. What is kept in
/// memory has to be what MetaDB says, and what is new since the last time has to lead to the same.
pub(super) async fn state_of(db: &MetaDb, node: &str) -> Option<NodeState> {
    let text = db.node_state(node, None).await.unwrap();
    assert_eq!(text, db.node_state_anew(node).await.unwrap());
    assert_eq!(db.snapshot().await.unwrap(), db.snapshot_anew().await.unwrap());
    let text = text?;
    let state: NodeState = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&state).unwrap(), text);
    let before = TOLD.lock().insert((state.source, node.to_owned()), state.clone());
    if let Some(before) = before {
        let known = Known { revision: before.revision, source: Some(before.source) };
        let text = db.node_state(node, Some(known)).await.unwrap().unwrap();
        let news: StateNews = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&news).unwrap(), text);
        let led = |state: &NodeState| -> Vec<Uuid> {
            state.leads.iter().map(|config| config.volume).collect()
        };
        let told = news.after(Some(&before)).unwrap();
        assert_eq!(led(&told), led(&state));
        // What a leader itself asked for it is not told again.
        assert_eq!(NodeState { leads: state.leads.clone(), ..told }, state);
    }
    Some(state)
}

fn code(error: DbError) -> ErrorCode {
    match error {
        DbError::Refused(refusal) => refusal.code(),
        other => panic!("{other}"),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Create(usize, u64),
    Resize(usize, u64),
    Delete(usize),
    Subsystem(usize),
    DropSubsystem(usize),
    Add(usize, usize, Option<u32>),
    Remove(usize, u32),
    Allow(usize, usize),
    Deny(usize, usize),
    Deleted,
}

fn op() -> impl Strategy<Value = Op> {
    let size = || prop_oneof![Just(0u64), 1u64..40_000, Just(u64::MAX)];
    let nsid = prop_oneof![3 => Just(None), 2 => (0u32..6).prop_map(Some)];
    prop_oneof![
        3 => (0usize..3, size()).prop_map(|(v, s)| Op::Create(v, s)),
        1 => (0usize..3, size()).prop_map(|(v, s)| Op::Resize(v, s)),
        1 => (0usize..3).prop_map(Op::Delete),
        3 => (0usize..2).prop_map(Op::Subsystem),
        1 => (0usize..2).prop_map(Op::DropSubsystem),
        4 => (0usize..2, 0usize..3, nsid).prop_map(|(q, v, n)| Op::Add(q, v, n)),
        3 => (0usize..2, 0u32..6).prop_map(|(q, n)| Op::Remove(q, n)),
        1 => (0usize..2, 0usize..3).prop_map(|(q, h)| Op::Allow(q, h)),
        1 => (0usize..2, 0usize..3).prop_map(|(q, h)| Op::Deny(q, h)),
        1 => Just(Op::Deleted),
    ]
}

#[derive(Default)]
struct Model {
    volumes: BTreeMap<&'static str, (Uuid, u64)>,
    subsystems: BTreeMap<&'static str, BTreeSet<&'static str>>,
    exported: BTreeMap<Uuid, (&'static str, u32)>,
    meant: BTreeMap<(&'static str, u32), Uuid>,
    retired: usize,
    ever: BTreeSet<Uuid>,
}

/// What an operation should do: refuse with this code, or change this much.
type Expected = Result<bool, ErrorCode>;

impl Model {
    fn subsystem(&self, q: usize) -> Result<(), ErrorCode> {
        self.subsystems.get(NQNS[q]).map(|_| ()).ok_or(ErrorCode::NotFound)
    }

    fn volume(&self, v: usize) -> Result<(Uuid, u64), ErrorCode> {
        self.volumes.get(VOLUMES[v]).copied().ok_or(ErrorCode::NotFound)
    }

    fn size(bytes: u64) -> Result<u64, ErrorCode> {
        let ok = (1..=64 << 40).contains(&bytes);
        if ok { Ok(bytes.div_ceil(4096) * 4096) } else { Err(ErrorCode::Invalid) }
    }

    fn create(&self, v: usize, bytes: u64) -> Expected {
        Self::size(bytes)?;
        if self.volume(v).is_ok() { Err(ErrorCode::Exists) } else { Ok(true) }
    }

    fn resize(&mut self, v: usize, bytes: u64) -> Expected {
        let new = Self::size(bytes)?;
        let (uuid, old) = self.volume(v)?;
        if new < old {
            return Err(ErrorCode::Invalid);
        }
        self.volumes.insert(VOLUMES[v], (uuid, new));
        Ok(new > old)
    }

    fn delete(&mut self, v: usize) -> Expected {
        let (uuid, _) = self.volume(v)?;
        if self.exported.contains_key(&uuid) {
            return Err(ErrorCode::InUse);
        }
        self.volumes.remove(VOLUMES[v]);
        self.retired += 1;
        Ok(true)
    }

    fn drop_subsystem(&mut self, q: usize) -> Expected {
        self.subsystem(q)?;
        if self.exported.values().any(|(nqn, _)| *nqn == NQNS[q]) {
            return Err(ErrorCode::InUse);
        }
        self.subsystems.remove(NQNS[q]);
        Ok(true)
    }

    /// Which NSIDs are right.
    fn add(&self, q: usize, v: usize, nsid: Option<u32>) -> Result<Vec<u32>, ErrorCode> {
        if nsid == Some(0) {
            return Err(ErrorCode::Invalid);
        }
        self.subsystem(q)?;
        let (uuid, _) = self.volume(v)?;
        if self.exported.contains_key(&uuid) {
            return Err(ErrorCode::InUse);
        }
        let meant = |nsid: u32| self.meant.get(&(NQNS[q], nsid)).copied();
        if let Some(nsid) = nsid {
            let free = meant(nsid).is_none_or(|meant| meant == uuid)
                && !self.exported.values().any(|export| *export == (NQNS[q], nsid));
            return if free { Ok(vec![nsid]) } else { Err(ErrorCode::InUse) };
        }
        let former: Vec<u32> = (1..=1024).filter(|nsid| meant(*nsid) == Some(uuid)).collect();
        let fresh = (1..=1024).find(|nsid| meant(*nsid).is_none());
        Ok(if former.is_empty() { fresh.into_iter().collect() } else { former })
    }

    fn remove(&mut self, q: usize, nsid: u32) -> Expected {
        self.subsystem(q)?;
        let export = self.exported.iter().find(|(_, export)| **export == (NQNS[q], nsid));
        let uuid = *export.ok_or(ErrorCode::NotFound)?.0;
        self.exported.remove(&uuid);
        Ok(true)
    }

    fn deny(&mut self, q: usize, host: &'static str) -> Expected {
        self.subsystem(q)?;
        let hosts = self.subsystems.get_mut(NQNS[q]).unwrap();
        match (hosts.remove(host), host == ANY_HOST) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) if hosts.contains(ANY_HOST) => Err(ErrorCode::InUse),
            (false, false) => Err(ErrorCode::NotFound),
        }
    }

    fn check(&self, state: &NodeState) {
        let volumes: BTreeMap<&str, (Uuid, u64)> =
            state.volumes.iter().map(|v| (v.name.as_str(), (v.volume, v.size_bytes))).collect();
        assert_eq!(volumes, self.volumes);
        assert_eq!(state.retired.len(), self.retired);
        let names: Vec<&str> = state.subsystems.iter().map(|s| s.nqn.as_str()).collect();
        assert_eq!(names, self.subsystems.keys().copied().collect::<Vec<_>>());
        let mut exported = BTreeMap::new();
        for subsystem in &state.subsystems {
            let mut hosts: BTreeSet<&str> = subsystem.hosts.iter().map(String::as_str).collect();
            hosts.extend(subsystem.allow_any_host.then_some(ANY_HOST));
            assert_eq!(&hosts, &self.subsystems[subsystem.nqn.as_str()]);
            for namespace in &subsystem.namespaces {
                exported.insert(namespace.volume, (subsystem.nqn.as_str(), namespace.nsid));
            }
        }
        assert_eq!(exported, self.exported);
    }
}

async fn apply(db: &MetaDb, model: &mut Model, op: Op) {
    let before = *db.revision().borrow();
    let (expected, got): (Expected, Result<u64, DbError>) = match op {
        Op::Create(v, size) => {
            let expected = model.create(v, size);
            let got = db.create_volume(VOLUMES[v], size, DISK).await;
            if let Ok(made) = &got {
                assert!(model.ever.insert(made.value), "a volume id was used twice");
                model.volumes.insert(VOLUMES[v], (made.value, Model::size(size).unwrap()));
            }
            (expected, got.map(|done| done.revision))
        }
        Op::Resize(v, size) => (
            model.resize(v, size),
            db.resize_volume(VOLUMES[v], size, None, &ClusterView::default())
                .await
                .map(|done| done.revision),
        ),
        Op::Delete(v) => {
            (model.delete(v), db.delete_volume(VOLUMES[v], None).await.map(|done| done.revision))
        }
        Op::Subsystem(q) => {
            let exists = model.subsystem(q).is_ok();
            model.subsystems.entry(NQNS[q]).or_default();
            let expected = if exists { Err(ErrorCode::Exists) } else { Ok(true) };
            (expected, db.create_subsystem(NQNS[q]).await.map(|done| done.revision))
        }
        Op::DropSubsystem(q) => (
            model.drop_subsystem(q),
            db.delete_subsystem(NQNS[q], None).await.map(|done| done.revision),
        ),
        Op::Add(q, v, nsid) => {
            let right = model.add(q, v, nsid);
            let got = db.add_namespace(NQNS[q], VOLUMES[v], nsid, false).await;
            if let (Ok(right), Ok(added)) = (&right, &got) {
                assert!(right.contains(&added.value), "{right:?} {added:?}");
                let uuid = model.volume(v).unwrap().0;
                model.exported.insert(uuid, (NQNS[q], added.value));
                model.meant.insert((NQNS[q], added.value), uuid);
            }
            (right.map(|_| true), got.map(|done| done.revision))
        }
        Op::Remove(q, nsid) => (
            model.remove(q, nsid),
            db.remove_namespace(NQNS[q], nsid).await.map(|done| done.revision),
        ),
        Op::Allow(q, h) => {
            let expected = model.subsystem(q).map(|()| {
                model.subsystems.get_mut(NQNS[q]).is_some_and(|hosts| hosts.insert(HOSTS[h]))
            });
            (expected, db.allow_host(NQNS[q], HOSTS[h]).await.map(|done| done.revision))
        }
        Op::Deny(q, h) => (
            model.deny(q, HOSTS[h]),
            db.deny_host(NQNS[q], HOSTS[h]).await.map(|done| done.revision),
        ),
        Op::Deleted => {
            let deleted = state(db).await.retired;
            let count = deleted.len();
            let report = NodeReport { deleted, ..report(NODE, DISK) };
            model.retired = 0;
            let got = db.register(&report, |_, _| false).await.map(|done| done.revision);
            (Ok(count > 0), got)
        }
    };
    match (expected, got) {
        (Ok(changes), Ok(revision)) => assert_eq!(revision, before + u64::from(changes)),
        (Err(expected), Err(got)) => assert_eq!(code(got), expected),
        (expected, got) => panic!("expected {expected:?}, got {got:?}"),
    }
    model.check(&state(db).await);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn decide_like_a_plain_model(home: Home, ops: Vec<Op>) {
    let db = with_node(&home.place).await;
    let mut model = Model::default();
    for op in ops {
        apply(&db, &mut model, op).await;
        state(&db).await;
    }
    let before = state(&db).await;
    db.close().await;
    drop(db);
    let again = MetaDb::open(&home.place).await.unwrap();
    let after = state(&again).await;
    assert_ne!(after.source, before.source, "the new one does not know what was told before");
    let before = NodeState { source: after.source, ..before };
    assert_eq!(after, before, "what was decided survives a restart");
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn metadb_decides_like_a_plain_model(ops in proptest::collection::vec(op(), 1..60)) {
        runtime().block_on(decide_like_a_plain_model(Home::sqlite(), ops));
    }
}

proptest! {
    #![proptest_config(cases(6))]

    #[test]
    fn metadb_decides_like_a_plain_model_on_postgres(
        ops in proptest::collection::vec(op(), 1..60)
    ) {
        runtime().block_on(async {
            if let Some(home) = Home::postgres("metadb_decides_like_a_plain_model") {
                decide_like_a_plain_model(home, ops).await;
            }
        });
    }
}

#[tokio::test]
async fn data_folder_in_use_names_the_process_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = MetaDb::open(&folder.path().into()).await.unwrap();
    let error = MetaDb::open(&folder.path().into()).await.unwrap_err();
    assert!(
        matches!(error, OpenError::InUse { pid, .. } if pid == Some(std::process::id())),
        "{error}"
    );
    drop(first);
    MetaDb::open(&folder.path().into()).await.unwrap();
}

#[tokio::test]
async fn file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(sqlite::FILE);
    std::fs::write(&file, vec![7; 8192]).unwrap();
    let error = MetaDb::open(&folder.path().into()).await.unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), vec![7; 8192]);
}

async fn older_conductor_is_fenced_by_the_token_of_the_next(home: Home) {
    let db = with_node(&home.place).await;
    take_over(db.maker.pool.clone()).await.unwrap();
    let error = db.create_volume("late", 4096, DISK).await.unwrap_err();
    assert!(matches!(error, DbError::Fenced), "{error}");
}

async fn of_two_operators_who_read_the_same_version_one_gets_a_conflict(home: Home) {
    let db = with_node(&home.place).await;
    db.create_volume("v", 4096, DISK).await.unwrap();
    let view = ClusterView::default();
    let (one, two) = tokio::join!(
        db.resize_volume("v", 8192, Some(1), &view),
        db.resize_volume("v", 12288, Some(1), &view),
    );
    let errors: Vec<_> = [one.err(), two.err()].into_iter().flatten().map(code).collect();
    assert_eq!(errors, [ErrorCode::Conflict]);
    assert_eq!(code(db.delete_volume("v", Some(1)).await.unwrap_err()), ErrorCode::Conflict);
}

async fn racing_decisions_each_get_their_own_revision(home: Home) {
    let db = Arc::new(with_node(&home.place).await);
    let before = *db.revision().borrow();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let db = db.clone();
            tokio::spawn(async move {
                db.create_volume(&format!("v{}", n / 2), 4096, DISK).await.map(|d| d.revision)
            })
        })
        .collect();
    let mut revisions = BTreeSet::new();
    let mut refused = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(revision) => assert!(revisions.insert(revision)),
            Err(error) => {
                assert_eq!(code(error), ErrorCode::Exists);
                refused += 1;
            }
        }
    }
    assert_eq!((revisions.len(), refused), (10, 10));
    assert_eq!(*db.revision().borrow(), before + 10);
}

async fn abandoned_decision_leaves_no_trace_and_blocks_nobody(home: Home) {
    let db = with_node(&home.place).await;
    let mut decision = db.begin().await.unwrap();
    query("DELETE FROM disks").execute(decision.connection()).await.unwrap();
    decision.changed("never", "x", String::new());
    drop(decision);
    db.create_volume("v", 4096, DISK).await.unwrap();
    let kinds: Vec<String> =
        db.events(None, 100).await.unwrap().into_iter().map(|event| event.kind).collect();
    assert!(!kinds.contains(&"never".to_owned()), "{kinds:?}");
}

async fn events_are_numbered_without_gaps_and_notes_do_not_move_the_revision(home: Home) {
    let db = with_node(&home.place).await;
    let before = *db.revision().borrow();
    db.note(Severity::Warning, "node_down", NODE, "gone".to_owned()).await.unwrap();
    assert_eq!(*db.revision().borrow(), before);
    let events = db.events(Some(0), 1000).await.unwrap();
    let ids: Vec<u64> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids, (1..=*db.last_event().borrow()).collect::<Vec<_>>());
    assert_eq!(db.events(None, 1).await.unwrap().first().unwrap().kind, "node_down");
}

async fn disk_claimed_by_two_live_nodes_is_refused_and_one_that_moved_follows(home: Home) {
    let db = with_node(&home.place).await;
    let copy = report("n2", DISK);
    let error = db.register(&copy, |node, _| node == NODE).await.unwrap_err();
    assert_eq!(code(error), ErrorCode::Invalid);
    assert!(state_of(&db, "n2").await.is_none(), "nothing of it was taken in");
    db.create_volume("v", 4096, DISK).await.unwrap();
    db.register(&copy, |_, _| false).await.unwrap();
    assert_eq!(state_of(&db, "n2").await.unwrap().volumes.len(), 1);
    assert!(state(&db).await.volumes.is_empty());
}

async fn listeners_keep_their_ids_and_no_id_is_given_twice(home: Home) {
    let db = with_node(&home.place).await;
    let first = state(&db).await.portals;
    let mut moved = report(NODE, DISK);
    moved.portals[0].service = "4421".to_owned();
    db.register(&moved, |_, _| false).await.unwrap();
    let second = state(&db).await.portals;
    assert_ne!(first[0].portal_id, second[0].portal_id);
    assert_eq!(second.len(), 1);
    db.register(&report(NODE, DISK), |_, _| false).await.unwrap();
    assert_eq!(state(&db).await.portals, first);
}

async fn both_transports_of_one_address_are_listeners_of_their_own(home: Home) {
    let db = with_node(&home.place).await;
    let mut both = report(NODE, DISK);
    both.portals.push(PortalReport { transport: "rdma".to_owned(), ..both.portals[0].clone() });
    db.register(&both, |_, _| false).await.unwrap();
    let listed = state(&db).await.portals;
    let transports: Vec<_> = listed.iter().map(|portal| portal.transport.as_str()).collect();
    assert_eq!(transports, ["tcp", "rdma"]);
    assert_ne!(listed[0].portal_id, listed[1].portal_id);
    db.register(&report(NODE, DISK), |_, _| false).await.unwrap();
    assert_eq!(state(&db).await.portals, listed[..1]);
    db.register(&both, |_, _| false).await.unwrap();
    assert_eq!(state(&db).await.portals, listed, "a device that comes back has its old id");
}

async fn controller_ids_of_nodes_are_disjoint_and_outlive_the_subsystem(home: Home) {
    let db = with_node(&home.place).await;
    db.create_subsystem(NQNS[0]).await.unwrap();
    db.register(&report("n2", Uuid::from_u128(2)), |_, _| false).await.unwrap();
    let range = async |node: &str| state_of(&db, node).await.unwrap().subsystems[0].controller_ids;
    let (one, two) = (range(NODE).await, range("n2").await);
    assert!(one.1 < two.0, "{one:?} {two:?}");
    db.delete_subsystem(NQNS[0], None).await.unwrap();
    db.create_subsystem(NQNS[0]).await.unwrap();
    assert_eq!((range(NODE).await, range("n2").await), (one, two));
}

async fn replica_is_deleted_only_by_the_node_that_has_its_disk(home: Home) {
    let db = with_node(&home.place).await;
    db.create_volume("v", 4096, DISK).await.unwrap();
    let wanted = state(&db).await.volumes[0].replica;
    let claim = |node, disk| NodeReport { deleted: vec![wanted], ..report(node, disk) };
    db.register(&claim(NODE, DISK), |_, _| false).await.unwrap();
    assert_eq!(state(&db).await.volumes.len(), 1, "a replica that is wanted is not given up");
    db.delete_volume("v", None).await.unwrap();
    db.register(&claim("n2", Uuid::from_u128(2)), |_, _| false).await.unwrap();
    assert_eq!(state(&db).await.retired, [wanted]);
    db.register(&claim(NODE, DISK), |_, _| false).await.unwrap();
    assert!(state(&db).await.retired.is_empty());
}

async fn older_copy_is_noticed_by_what_a_node_has_applied_and_numbers_go_on_above(home: Home) {
    let db = with_node(&home.place).await;
    let ahead = NodeReport { applied_revision: 57, ..report(NODE, DISK) };
    assert_eq!(db.register(&ahead, |_, _| false).await.unwrap().revision, 58);
    let told = db.went_back().unwrap();
    assert!(told.contains("node n1") && told.contains("57"), "{told}");
    let event = db.events(None, 1).await.unwrap().remove(0);
    assert_eq!((event.kind.as_str(), event.revision), ("metadb_went_back", 58));
    assert_eq!(event.severity, Severity::Warning);
    assert_eq!(db.register(&ahead, |_, _| false).await.unwrap().revision, 58, "once");
    assert_eq!(db.create_volume("v", 4096, DISK).await.unwrap().revision, 59);
}

async fn copy_that_is_put_in_place_under_a_running_conductor_is_noticed(home: Home) {
    let db = with_node(&home.place).await;
    db.create_volume("v", 4096, DISK).await.unwrap();
    let (revision, last_event) = (*db.revision().borrow(), *db.last_event().borrow());
    assert_eq!(state(&db).await.volumes.len(), 1);
    let mut old = db.maker.pool.begin_decision().await.unwrap();
    for statement in
        ["DELETE FROM events WHERE id > 1", "DELETE FROM replicas", "DELETE FROM volumes"]
    {
        query(statement).execute(&mut old).await.unwrap();
    }
    query("UPDATE settings SET revision = 1, fencing_token = 0, last_event = 1")
        .execute(&mut old)
        .await
        .unwrap();
    old.commit().await.unwrap();
    let made = db.create_volume("w", 4096, DISK).await.unwrap();
    assert_eq!(made.revision, revision + 1);
    assert_eq!(state(&db).await.volumes[0].volume, made.value, "v is not there any more");
    assert!(db.went_back().unwrap().contains("this conductor"));
    let events = db.events(Some(last_event), 10).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["metadb_went_back", "volume_created"]);
    let next = MetaDb::open(&home.place);
    if matches!(home.place, Place::Postgres(_)) {
        next.await.unwrap();
        let error = db.create_volume("x", 4096, DISK).await.unwrap_err();
        assert!(matches!(error, DbError::Fenced), "the token was raised again: {error}");
    }
}

async fn nul_in_a_text_is_no_failure_of_the_database(home: Home) {
    let db = with_node(&home.place).await;
    let error = db.resize_volume("v\0", 4096, None, &ClusterView::default()).await.unwrap_err();
    assert_eq!(code(error), ErrorCode::NotFound);
    let mut odd = report(NODE, DISK);
    odd.disks[0].path = "/disk\0".to_owned();
    db.register(&odd, |_, _| false).await.unwrap();
    assert_eq!(db.snapshot().await.unwrap().disks[0].path, "/disk\u{fffd}");
}

server::on_both!(
    older_copy_is_noticed_by_what_a_node_has_applied_and_numbers_go_on_above,
    copy_that_is_put_in_place_under_a_running_conductor_is_noticed,
    nul_in_a_text_is_no_failure_of_the_database,
    older_conductor_is_fenced_by_the_token_of_the_next,
    of_two_operators_who_read_the_same_version_one_gets_a_conflict,
    racing_decisions_each_get_their_own_revision,
    abandoned_decision_leaves_no_trace_and_blocks_nobody,
    events_are_numbered_without_gaps_and_notes_do_not_move_the_revision,
    disk_claimed_by_two_live_nodes_is_refused_and_one_that_moved_follows,
    listeners_keep_their_ids_and_no_id_is_given_twice,
    both_transports_of_one_address_are_listeners_of_their_own,
    controller_ids_of_nodes_are_disjoint_and_outlive_the_subsystem,
    replica_is_deleted_only_by_the_node_that_has_its_disk,
);
