//! Who is alive, and which conductor is active.
//!
//! Conductors [`stand`](Coordination::stand) for election and follow their [`Role`]; nodes
//! [`register`](Coordination::register); both see who the conductors are, and a conductor which
//! nodes are there. [`Coordination`] has two implementations: [`Embedded`] for one conductor that
//! is always active, and [`ZooKeeper`] for several.
//!
//! Nothing here fails when ZooKeeper does: its absence is a [`Link`] that is away, said once in the
//! log, while connecting is tried again with growing pauses.
//!
//! On its own machine a daemon tells the [`ServiceManager`] that it lives.
//!
//! Safety never rests on this crate. A [`Role`] is a belief that may be out of date by the time it
//! is read (a stopped process, a frozen link), so an active conductor fences its decisions by the
//! token that it takes in MetaDB.
//!
//! Invariants:
//! - `Role::Active` is published only while the session is connected, the conductors were listed
//!   since it last connected, and the own entry is the first in the queue;
//! - the role is lost as soon as the connection is, not only when the session is;
//! - an entry belongs to one session: a later session never adopts the place of an earlier one.

#![forbid(unsafe_code)]

mod backoff;
mod board;
mod config;
mod drive;
mod embedded;
mod enter;
mod mirror;
mod paths;
mod records;
mod service_manager;
mod zookeeper;

use tokio::sync::watch;

use board::Board;
pub use board::{Conductors, Link, Nodes, Role};
pub use config::{ConfigError, DEFAULT_SESSION_TIMEOUT, ZooKeeperConfig, ZooKeeperSettings};
pub use embedded::Embedded;
pub use records::{ConductorRecord, DiskRecord, NodeRecord};
pub use service_manager::ServiceManager;
pub use zookeeper::ZooKeeper;

/// Where conductors and nodes learn of each other.
#[derive(Debug)]
pub enum Coordination {
    /// One conductor, always active; which nodes are alive shows in their reports alone.
    Embedded(Embedded),
    /// Several conductors, and nodes that register.
    ZooKeeper(ZooKeeper),
}

impl Coordination {
    fn board(&self) -> &Board {
        match self {
            Self::Embedded(embedded) => embedded.board(),
            Self::ZooKeeper(zookeeper) => zookeeper.board(),
        }
    }

    /// Stands for election as a conductor, under this record.
    pub fn stand(&self, record: ConductorRecord) {
        self.board().stand(record);
        self.settle();
    }

    /// Tells the others that this conductor decides now, under the token that it took in MetaDB.
    /// Until then, and again after the role was lost, it is shown as standing by.
    pub fn took_over(&self, token: i64) {
        self.board().announce(Some(token));
        self.settle();
    }

    /// Tells the others that this conductor does not decide any more.
    pub fn stepped_down(&self) {
        self.board().announce(None);
        self.settle();
    }

    /// Lets every other conductor have its turn first.
    pub fn stand_aside(&self) {
        self.board().queue_again();
        self.settle();
    }

    /// Registers a node; again, with what has changed.
    pub fn register(&self, record: NodeRecord) {
        self.board().register(record);
    }

    /// What this conductor is, now and whenever it changes.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.board().role.subscribe()
    }

    /// The connection to ZooKeeper, now and whenever it changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.board().link.subscribe()
    }

    /// All conductors, the first in the queue first. Without a connection: as last seen.
    pub fn conductors(&self) -> watch::Receiver<Conductors> {
        self.board().conductors.subscribe()
    }

    /// The nodes that are registered, for those who asked to watch them.
    pub fn nodes(&self) -> watch::Receiver<Nodes> {
        self.board().nodes.subscribe()
    }

    /// Leaves: takes back what was entered, so that nobody has to wait for a time-out.
    pub async fn close(&self) {
        if let Self::ZooKeeper(zookeeper) = self {
            zookeeper.close().await;
        }
    }

    fn settle(&self) {
        if let Self::Embedded(embedded) = self {
            embedded.settle();
        }
    }
}
