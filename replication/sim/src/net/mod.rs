//! A network of machines: calls between processes, and all that can become of them.
//!
//! - [`SimNet::call`] sends a request from a process on one machine to a service on another and
//!   waits for the answer; [`SimNet::serve`] is the other end; [`SimLink`] is an [`afs_env::Link`]
//!   over it.
//! - Requests have no order among each other: each draws its own latency.
//! - A path from one machine to another can be cut, each direction by itself. What is sent into a
//!   cut path is lost without a word, or, as a transport does that sends again, held and delivered
//!   when the path is whole: long after, perhaps when its sender is dead (a ghost).
//! - A connection can break with requests under way: their callers get [`LinkError::Lost`], the
//!   requests may arrive all the same.
//! - A [`SimLink`] may have to be connected before it carries anything ([`NetConfig::connect_max`]).
//! - A machine whose process is dead resets connections; one that has no power says nothing.
//!
//! What the network promises, as the real one does: an answer belongs to its request; a request
//! meant for one incarnation of a process never reaches the next; [`LinkError::Unreachable`] only
//! if the request was not carried out and will not be.

mod call;
mod connect;
mod link;
mod path;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::executor::{Process, ProcessId, Sim};
use crate::random::SimRandom;

pub use afs_env::LinkError;
use call::Calls;
pub use call::Closed;
use connect::Connections;
pub use link::{LinkMessage, SimLink};
use path::Paths;
pub use path::{Cut, PathState};

/// A machine in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u32);

/// What the network is like when nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub struct NetConfig {
    /// The shortest way of a message.
    pub latency_min: Duration,
    /// What is drawn on top of it, mostly.
    pub latency_spread: Duration,
    /// Of a million messages so many take a hundred times the spread.
    pub stragglers: u32,
    /// Of a million requests so many arrive twice. A transport does not do this; who sends again
    /// does.
    pub duplicates: u32,
    /// [`SimLink`]s are connected when they are first used, which takes up to so long. At zero they always are.
    pub connect_max: Duration,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            latency_min: Duration::from_micros(10),
            latency_spread: Duration::from_micros(60),
            stragglers: 1_000,
            duplicates: 0,
            connect_max: Duration::ZERO,
        }
    }
}

/// What became of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Requests and answers sent.
    pub sent: u64,
    /// Lost in a cut path.
    pub vanished: u64,
    /// Held in a cut path, delivered later.
    pub held: u64,
    /// Delivered after their sender had died or had stopped waiting.
    pub ghosts: u64,
    /// Calls that ended with an error.
    pub failed: u64,
}

type Payload = Box<dyn Any>;
type Served = Pin<Box<dyn Future<Output = Payload>>>;
type Service = Rc<dyn Fn(Address, Payload, Closed) -> Served>;

struct Machine {
    process: Process,
    powered: bool,
    services: BTreeMap<String, Service>,
}

struct State {
    config: NetConfig,
    machines: BTreeMap<Address, Machine>,
    paths: Paths,
    calls: Calls,
    connections: Connections,
    counts: NetCounts,
}

/// See the module documentation. Clones are handles to the same network.
#[derive(Clone)]
pub struct SimNet {
    sim: Sim,
    random: SimRandom,
    state: Rc<RefCell<State>>,
}

impl SimNet {
    /// A network without machines, moved by `sim`.
    pub fn new(sim: &Sim, config: NetConfig) -> Self {
        let state = State {
            config,
            machines: BTreeMap::new(),
            paths: Paths::default(),
            calls: Calls::default(),
            connections: Connections::default(),
            counts: NetCounts::default(),
        };
        let (sim, random) = (sim.clone(), sim.random().clone());
        Self { sim, random, state: Rc::new(RefCell::new(state)) }
    }

    /// From now on `process` is what runs at `address`, instead of any that did before.
    pub fn attach(&self, address: Address, process: &Process) {
        let machine =
            Machine { process: process.clone(), powered: true, services: BTreeMap::new() };
        let old = self.state.borrow_mut().machines.insert(address, machine);
        drop(old);
        let (net, id) = (self.clone(), process.id());
        process.at_end(move || net.process_ended(address, id));
    }

    /// The machine says nothing any more until a process is attached to it again.
    pub fn power_off(&self, address: Address) {
        if let Some(machine) = self.state.borrow_mut().machines.get_mut(&address) {
            machine.powered = false;
        }
    }

    /// Lets `handler` answer the requests for `service` that reach the process at `address`. Each
    /// request is a task of that process, and runs to its end whether or not anybody still waits.
    pub fn serve<Q, A, F>(
        &self,
        address: Address,
        service: &str,
        handler: impl Fn(Address, Q) -> F + 'static,
    ) where
        Q: 'static,
        A: 'static,
        F: Future<Output = A> + 'static,
    {
        self.serve_bound(address, service, move |from, request, _| handler(from, request));
    }

    /// [`serve`](SimNet::serve) for requests that come by [`call_bound`](SimNet::call_bound): the
    /// handler can see that the connection is closed.
    pub fn serve_bound<Q, A, F>(
        &self,
        address: Address,
        service: &str,
        handler: impl Fn(Address, Q, Closed) -> F + 'static,
    ) where
        Q: 'static,
        A: 'static,
        F: Future<Output = A> + 'static,
    {
        let service_fn = move |from: Address, payload: Payload, closed: Closed| -> Served {
            match payload.downcast::<Q>() {
                Ok(request) => {
                    let answer = handler(from, *request, closed);
                    Box::pin(async move { Box::new(answer.await) as Payload })
                }
                Err(_) => Box::pin(std::future::pending()),
            }
        };
        let old = match self.state.borrow_mut().machines.get_mut(&address) {
            Some(machine) => machine.services.insert(service.into(), Rc::new(service_fn)),
            None => None,
        };
        drop(old);
    }

    /// Takes a service away: requests for it are refused.
    pub fn withdraw(&self, address: Address, service: &str) {
        let machine = |state: &mut State| {
            state.machines.get_mut(&address).and_then(|machine| machine.services.remove(service))
        };
        let old = machine(&mut self.state.borrow_mut());
        drop(old);
    }

    /// What became of messages so far.
    pub fn counts(&self) -> NetCounts {
        self.state.borrow().counts
    }

    /// Makes the network good or bad.
    pub fn set_config(&self, config: NetConfig) {
        self.state.borrow_mut().config = config;
    }

    /// How a path is now.
    pub fn path(&self, from: Address, to: Address) -> PathState {
        self.state.borrow().paths.get(from, to)
    }

    /// Changes one direction of one path. What a cut held goes on when there is none any more.
    pub fn set_path(&self, from: Address, to: Address, path: PathState) {
        let freed = self.state.borrow_mut().paths.set(from, to, path);
        for deliver in freed {
            // They come in any order, some right after the others, some later.
            let spread = if self.random.chance(70) { 1_000 } else { 500_000 };
            let delay = Duration::from_micros(self.random.below(spread) as u64);
            self.sim.clock().after(delay, deliver);
        }
    }

    /// Makes every path whole.
    pub fn heal(&self) {
        let broken = self.state.borrow().paths.broken();
        for (from, to) in broken {
            self.set_path(from, to, PathState::default());
        }
    }

    /// Forgets all machines and all that is held for them, so that nothing holds anything.
    pub fn clear(&self) {
        let machines = std::mem::take(&mut self.state.borrow_mut().machines);
        let paths = std::mem::take(&mut self.state.borrow_mut().paths);
        let connections = std::mem::take(&mut self.state.borrow_mut().connections);
        drop((machines, paths, connections));
    }

    fn has_power(&self, address: Address) -> bool {
        self.state.borrow().machines.get(&address).is_some_and(|machine| machine.powered)
    }

    fn process_at(&self, address: Address) -> Option<ProcessId> {
        let state = self.state.borrow();
        let machine = state.machines.get(&address).filter(|machine| machine.powered)?;
        machine.process.is_alive().then(|| machine.process.id())
    }

    /// Sends one message: `deliver` is called when it arrives, if it does.
    fn transmit(&self, from: Address, to: Address, deliver: impl FnOnce() + 'static) {
        self.state.borrow_mut().counts.sent += 1;
        let latency = self.latency(from, to);
        let net = self.clone();
        self.sim.clock().after(latency, move || net.arrive(from, to, Box::new(deliver)));
    }

    fn arrive(&self, from: Address, to: Address, deliver: Box<dyn FnOnce()>) {
        let rest = {
            let state = &mut *self.state.borrow_mut();
            match state.paths.get(from, to).cut {
                None => Some(deliver),
                Some(Cut { kept, .. }) if self.random.chance(kept as usize) => {
                    state.counts.held += 1;
                    state.paths.hold(from, to, deliver);
                    None
                }
                Some(_) => {
                    state.counts.vanished += 1;
                    None
                }
            }
        };
        if let Some(deliver) = rest {
            deliver();
        }
    }

    fn latency(&self, from: Address, to: Address) -> Duration {
        let state = self.state.borrow();
        let spread = u64::try_from(state.config.latency_spread.as_nanos()).unwrap_or(u64::MAX);
        let draw = self.random.below(usize::try_from(spread).unwrap_or(usize::MAX)) as u64;
        let straggles = self.random.below(1_000_000) < state.config.stragglers as usize;
        let drawn = Duration::from_nanos(if straggles { draw.saturating_mul(100) } else { draw });
        let path = state.paths.get(from, to);
        state.config.latency_min + drawn + path.extra_latency(&self.random)
    }
}
