//! What the fabric and the reactor are about to offer for RDMA, with the same names and meaning, until they do.
#![allow(missing_docs, reason = "the real ones are documented")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use afs_fabric::{Limits, Queue, Service};
use afs_reactor::{Local, ReactorHandle};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Tcp,
    Rdma,
}

impl Transport {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Rdma => "rdma",
        }
    }
}

pub trait QueueTransport {
    fn transport(&self) -> Transport;
    fn in_capsule_bytes(&self) -> u32;
}

impl QueueTransport for Queue {
    fn transport(&self) -> Transport {
        Transport::Tcp
    }

    fn in_capsule_bytes(&self) -> u32 {
        16 << 10
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("this build has no RDMA")]
    NoLibrary {},
    #[error("this machine has no RDMA device")]
    NoDevices,
    #[error("RDMA is refused: {0}")]
    Refused(std::io::Error),
}

#[derive(Clone)]
pub struct Verbs(Infallible);

impl Verbs {
    pub fn load() -> Result<Verbs, Unavailable> {
        Err(Unavailable::NoLibrary {})
    }

    pub fn devices(&self) -> std::io::Result<Vec<String>> {
        match self.0 {}
    }
}

pub struct RdmaListener(Infallible);

impl RdmaListener {
    pub fn open(verbs: &Verbs, _: SocketAddr, _: u32) -> std::io::Result<RdmaListener> {
        match verbs.0 {}
    }

    pub fn listening(&self) -> watch::Receiver<bool> {
        match self.0 {}
    }

    pub async fn serve<S, M>(self, _: Vec<ReactorHandle>, _: Limits, _: M) -> std::io::Result<()>
    where
        S: Service,
        M: Fn(&Queue, &Local) -> Rc<S> + Clone + Send + 'static,
    {
        match self.0 {}
    }
}
