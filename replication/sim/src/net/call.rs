//! One call: its request, its handler, its answer, and the ways in which it ends without one.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::{Address, LinkError, Payload, SimNet};
use crate::executor::ProcessId;

/// Where the outcome is left for the caller.
#[derive(Default)]
struct Slot {
    outcome: Option<Result<Payload, LinkError>>,
    waker: Option<Waker>,
}

/// Tells a service that the connection by which a request came is closed: its caller does not wait
/// any more, and the news of that has arrived.
#[derive(Clone, Default)]
pub struct Closed(Rc<RefCell<(bool, Vec<Waker>)>>);

impl Closed {
    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.0.borrow().0
    }

    /// Waits until it is closed.
    pub async fn wait(&self) {
        poll_fn(|context| {
            let mut inner = self.0.borrow_mut();
            if inner.0 {
                return Poll::Ready(());
            }
            inner.1.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn close(&self) {
        let wakers = {
            let mut inner = self.0.borrow_mut();
            inner.0 = true;
            std::mem::take(&mut inner.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

struct Waiting {
    from: Address,
    to: Address,
    /// The process that was there when the request was sent.
    server: Option<ProcessId>,
    /// A handler has it.
    begun: bool,
    slot: Rc<RefCell<Slot>>,
    /// Of a connection of its own: tells the handler.
    closed: Option<Closed>,
}

/// Calls whose callers wait.
#[derive(Default)]
pub(super) struct Calls {
    waiting: BTreeMap<u64, Waiting>,
    number: u64,
}

/// What travels.
struct Request {
    call: u64,
    from: Address,
    to: Address,
    server: Option<ProcessId>,
    service: String,
    payload: Payload,
    /// Vanishes with its caller.
    bound: bool,
    closed: Closed,
}

/// Forgets a call whose caller does not wait any more.
struct Forget<'a> {
    net: &'a SimNet,
    call: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let waited = self.net.state.borrow_mut().calls.waiting.remove(&self.call);
        if let Some(waiting) = waited {
            self.net.hang_up(waiting);
        }
    }
}

impl SimNet {
    /// Like [`call`](SimNet::call), on a connection that lives as long as the caller waits: a
    /// request that has not arrived by then never does. What has arrived is carried out.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn call_bound<Q: Clone + 'static, A: 'static>(
        &self,
        from: Address,
        to: Address,
        service: &str,
        request: Q,
    ) -> Result<A, LinkError> {
        self.send_and_wait(from, to, service, request, true).await
    }

    /// Sends `request` to `service` at `to` and waits for the answer, without end if none comes.
    /// The request may arrive long after the caller has given up.
    ///
    /// # Errors
    /// [`LinkError`].
    ///
    /// # Panics
    /// If the service answers with another type.
    pub async fn call<Q: Clone + 'static, A: 'static>(
        &self,
        from: Address,
        to: Address,
        service: &str,
        request: Q,
    ) -> Result<A, LinkError> {
        self.send_and_wait(from, to, service, request, false).await
    }

    async fn send_and_wait<Q: Clone + 'static, A: 'static>(
        &self,
        from: Address,
        to: Address,
        service: &str,
        request: Q,
        bound: bool,
    ) -> Result<A, LinkError> {
        let server = self.process_at(to);
        let closed = Closed::default();
        let slot = Rc::new(RefCell::new(Slot::default()));
        let (call, duplicates) = {
            let mut state = self.state.borrow_mut();
            state.calls.number += 1;
            let call = state.calls.number;
            let tells = bound.then(|| closed.clone());
            let waiting =
                Waiting { from, to, server, begun: false, slot: slot.clone(), closed: tells };
            state.calls.waiting.insert(call, waiting);
            (call, state.config.duplicates)
        };
        let _forget = Forget { net: self, call };
        let twice = server.is_some() && self.random.below(1_000_000) < duplicates as usize;
        for _ in 0..=u8::from(twice) {
            let payload: Payload = Box::new(request.clone());
            let (service, closed) = (service.to_owned(), closed.clone());
            let sent = Request { call, from, to, server, service, payload, bound, closed };
            let net = self.clone();
            self.transmit(from, to, move || net.request_arrives(sent));
        }
        drop(request);
        let outcome = poll_fn(|context| {
            let mut slot = slot.borrow_mut();
            match slot.outcome.take() {
                Some(outcome) => Poll::Ready(outcome),
                None => {
                    slot.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        let answer: Box<dyn Any> = outcome.await?;
        match answer.downcast::<A>() {
            Ok(answer) => Ok(*answer),
            Err(_) => panic!("{service} answers with another type"),
        }
    }

    fn request_arrives(&self, request: Request) {
        let Request { call, from, to, server, service, payload, bound, closed } = request;
        if bound && !self.state.borrow().calls.waiting.contains_key(&call) {
            return;
        }
        let found = {
            let state = self.state.borrow();
            let Some(machine) = state.machines.get(&to).filter(|machine| machine.powered) else {
                return;
            };
            let alive = machine.process.is_alive();
            let same = alive && server.is_none_or(|server| server == machine.process.id());
            let found = machine.services.get(&service).filter(|_| same);
            found.map(|handler| (machine.process.clone(), handler.clone()))
        };
        let Some((process, handler)) = found else {
            self.refuse(call, from, to);
            return;
        };
        {
            let state = &mut *self.state.borrow_mut();
            match state.calls.waiting.get_mut(&call) {
                Some(waiting) => {
                    waiting.begun = true;
                    waiting.server = Some(process.id());
                }
                None => state.counts.ghosts += 1,
            }
        }
        let served = handler(from, payload, closed);
        drop(handler);
        let net = self.clone();
        process.spawn(async move {
            let answer = served.await;
            let sender = net.clone();
            net.transmit(to, from, move || sender.end(call, Ok(answer)));
        });
    }

    /// The machine resets the connection. Whoever has an open one cannot tell whether the request
    /// came before.
    fn refuse(&self, call: u64, from: Address, to: Address) {
        let begun = self.state.borrow().calls.waiting.get(&call).is_none_or(|call| call.begun);
        let error =
            if begun || self.random.chance(30) { LinkError::Lost } else { LinkError::Unreachable };
        let net = self.clone();
        self.transmit(to, from, move || net.end(call, Err(error)));
    }

    fn end(&self, call: u64, outcome: Result<Payload, LinkError>) {
        let waiting = {
            let state = &mut *self.state.borrow_mut();
            let waiting = state.calls.waiting.remove(&call);
            state.counts.failed += u64::from(waiting.is_some() && outcome.is_err());
            waiting
        };
        let Some(waiting) = waiting else { return };
        let lost = outcome.is_err();
        let waker = {
            let mut slot = waiting.slot.borrow_mut();
            slot.outcome = Some(outcome);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if lost {
            self.hang_up(waiting);
        }
    }

    /// The other end of a call's own connection learns that it is closed.
    fn hang_up(&self, waiting: Waiting) {
        let Waiting { from, to, closed, .. } = waiting;
        if let Some(closed) = closed.filter(|_| self.has_power(from)) {
            self.transmit(from, to, move || closed.close());
        }
    }

    /// The connections between two machines break, both ways: callers get `Lost`; of what is under
    /// way, some arrives.
    pub fn reset(&self, one: Address, two: Address) {
        let ends = |call: &Waiting| {
            (call.from, call.to) == (one, two) || (call.from, call.to) == (two, one)
        };
        self.lose(&ends);
        self.disconnect(one, two);
    }

    /// Its machine tells all who wait for it, unless it has no power to.
    pub(super) fn process_ended(&self, address: Address, id: ProcessId) {
        let services = {
            let mut state = self.state.borrow_mut();
            let machine = state.machines.get_mut(&address);
            match machine.filter(|machine| machine.process.id() == id) {
                Some(machine) if machine.powered => std::mem::take(&mut machine.services),
                Some(machine) => {
                    let services = std::mem::take(&mut machine.services);
                    drop(state);
                    drop(services);
                    return;
                }
                None => return,
            }
        };
        drop(services);
        self.lose(&|call| call.server == Some(id));
    }

    fn lose(&self, which: &dyn Fn(&Waiting) -> bool) {
        let lost: Vec<_> = {
            let state = self.state.borrow();
            let waiting = state.calls.waiting.iter().filter(|(_, call)| which(call));
            waiting.map(|(number, call)| (*number, call.from, call.to)).collect()
        };
        for (call, from, to) in lost {
            let net = self.clone();
            let broken = move || net.end(call, Err(LinkError::Lost));
            if self.random.chance(50) {
                self.transmit(to, from, broken);
            } else {
                self.sim.clock().after(Duration::from_nanos(1), broken);
            }
        }
    }
}
