//! A provider of our own: functions that stand where those of the libraries do, over a device that
//! exists only in a table. It takes requests, and completes them when a test says so.
#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::cast_possible_truncation,
    reason = "plays the part of C"
)]
#![cfg_attr(not(test), allow(dead_code, reason = "the tests of this crate use all of it"))]

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::c_void;
use std::net::SocketAddr;
use std::ptr::null_mut;

use afs_verbs_sys::{self as sys, Ibverbs, Library, Rdmacm};
use parking_lot::Mutex;

use crate::verbs::Verbs;
use crate::verbs::address;

/// A function with C's way of calling.
macro_rules! c {
    (($($name:tt: $type:ty),*) $(-> $result:ty)? $body:block) => {{
        unsafe extern "C" fn function($($name: $type),*) $(-> $result)? {
            #[allow(unused_unsafe, reason = "some bodies need none")]
            unsafe { $body }
        }
        function
    }};
}

/// A request as the device got it.
#[derive(Debug, Clone)]
pub(in crate::verbs) struct Request {
    pub(in crate::verbs) id: u64,
    pub(in crate::verbs) pair: u32,
    pub(in crate::verbs) opcode: u32,
    pub(in crate::verbs) flags: u32,
    pub(in crate::verbs) remote: (u64, u32),
    pub(in crate::verbs) invalidate: u32,
    /// Address, length and key of each element.
    pub(in crate::verbs) elements: Vec<(u64, u32, u32)>,
    /// What an inline message said.
    pub(in crate::verbs) inline: Vec<u8>,
}

/// What happens to the device, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::verbs) enum Call {
    PostSend(usize),
    PostReceive(usize),
    Modify(u32),
    Accept,
    Connect,
    Establish,
    Disconnect,
    DestroyPair,
    DestroyReceives,
    DestroyCompletions,
    ListDevices,
    ArmArrivals,
    ArmEndings,
}

/// A completion queue: what is in it, and the event that it makes when it is armed.
#[derive(Default)]
struct Queue {
    completions: VecDeque<sys::ibv_wc>,
    channel_fd: i32,
    is_armed: bool,
}

#[derive(Default)]
pub(in crate::verbs) struct State {
    pub(in crate::verbs) calls: Vec<Call>,
    pub(in crate::verbs) requests: VecDeque<Request>,
    pub(in crate::verbs) receives: VecDeque<(u64, Vec<(u64, u32)>)>,
    /// Completion queues, by their address.
    queues: HashMap<usize, Queue>,
    /// Those of each queue pair that there ever was: of its requests, and of its receives.
    pairs: HashMap<u32, (usize, usize)>,
    pub(in crate::verbs) async_events: VecDeque<sys::ibv_async_event>,
    pub(in crate::verbs) cm_events: VecDeque<Box<Event>>,
    /// Descriptors of the channels that events come from.
    channels: Vec<i32>,
    /// Ids that are not destroyed, by their address.
    ids: HashSet<usize>,
    /// Those that listen, oldest first, by their address.
    pub(in crate::verbs) listeners: Vec<usize>,
    /// How often one began to listen.
    pub(in crate::verbs) listened: usize,
    /// What binding to an address fails with.
    pub(in crate::verbs) bind_error: Option<i32>,
    /// Queue pairs by the id that was accepted with them, by its address.
    pub(in crate::verbs) accepted: HashMap<usize, u32>,
    /// Ids that ever were, by their address.
    pub(in crate::verbs) accepted_ever: HashSet<usize>,
    /// The send queue takes so many more requests, then refuses.
    pub(in crate::verbs) room: Option<usize>,
    /// Protection domains, registrations, queues, queue pairs, channels and ids that are alive.
    pub(in crate::verbs) alive: i64,
    pub(in crate::verbs) access: Vec<u32>,
    next_number: u32,
}

unsafe impl Send for State {}

impl State {
    /// A queue that is destroyed takes nothing.
    fn complete(&mut self, queue: usize, completion: sys::ibv_wc) {
        let Some(queue) = self.queues.get_mut(&queue) else { return };
        queue.completions.push_back(completion);
        if std::mem::take(&mut queue.is_armed) {
            let one = 1_u64.to_ne_bytes();
            unsafe { libc::write(queue.channel_fd, one.as_ptr().cast(), 8) };
        }
    }
}

/// The device and what stands around it. Lives for ever; a test makes its own.
pub(in crate::verbs) struct World {
    pub(in crate::verbs) context: *mut sys::ibv_context,
    pub(in crate::verbs) state: Mutex<State>,
    pub(in crate::verbs) inline: Cell<u32>,
    pub(in crate::verbs) completions_max: i32,
}

unsafe impl Send for World {}
unsafe impl Sync for World {}

thread_local! {
    /// For the one function that has no argument.
    static CURRENT: Cell<*const World> = const { Cell::new(std::ptr::null()) };
}

fn eventfd() -> i32 {
    unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) }
}

fn fail(errno: i32) -> i32 {
    unsafe { *libc::__errno_location() = errno };
    -1
}

impl World {
    pub(in crate::verbs) fn new(completions_max: i32) -> (&'static World, Verbs) {
        let device: &mut sys::ibv_device = Box::leak(Box::new(unsafe { std::mem::zeroed() }));
        let context: &mut sys::ibv_context = Box::leak(Box::new(unsafe { std::mem::zeroed() }));
        context.device = device;
        context.async_fd = eventfd();
        context.cmd_fd = unsafe { libc::open(c"/dev/zero".as_ptr(), libc::O_RDWR) };
        context.ops.poll_cq = Some(poll_cq);
        context.ops.req_notify_cq = Some(req_notify_cq);
        context.ops.post_send = Some(post_send);
        context.ops.post_srq_recv = Some(post_srq_recv);
        let world: &World = Box::leak(Box::new(World {
            context,
            state: Mutex::new(State { next_number: 100, ..State::default() }),
            inline: Cell::new(64),
            completions_max,
        }));
        unsafe { (*world.context).abi_compat = std::ptr::from_ref(world).cast_mut().cast() };
        CURRENT.set(world);
        (world, Verbs::of(ibverbs(), rdmacm()))
    }

    /// A message of the peer for the queue pair. It takes the oldest receive.
    pub(in crate::verbs) fn deliver(&self, pair: u32, message: &[u8]) {
        let mut state = self.state.lock();
        let (id, elements) = state.receives.pop_front().expect("a receive is posted");
        let mut rest = message;
        for (address, length) in elements {
            let part = rest.len().min(length as usize);
            let to = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
            unsafe { to.copy_from_nonoverlapping(rest.as_ptr(), part) };
            rest = &rest[part..];
        }
        assert!(rest.is_empty(), "the message fits");
        let mut completion = completion(id, pair, sys::IBV_WC_SUCCESS);
        completion.byte_len = u32::try_from(message.len()).expect("short");
        let (_, queue) = state.pairs[&pair];
        state.complete(queue, completion);
    }

    /// Completes the oldest request; a successful one that did not ask for a completion has none.
    pub(in crate::verbs) fn complete(&self, status: u32) -> Request {
        let mut state = self.state.lock();
        let request = state.requests.pop_front().expect("a request is posted");
        if status != sys::IBV_WC_SUCCESS || request.flags & sys::IBV_SEND_SIGNALED != 0 {
            let (queue, _) = state.pairs[&request.pair];
            state.complete(queue, completion(request.id, request.pair, status));
        }
        request
    }

    /// An asynchronous event, about a queue pair or about the device.
    pub(in crate::verbs) fn async_event(&self, kind: u32, pair: *mut sys::ibv_qp) {
        let element = sys::ibv_async_event__bindgen_ty_1 { qp: pair };
        let event = sys::ibv_async_event { element, event_type: kind };
        self.state.lock().async_events.push_back(event);
        let one = 1_u64.to_ne_bytes();
        unsafe { libc::write((*self.context).async_fd, one.as_ptr().cast(), 8) };
    }

    /// Those that the context keeps open.
    pub(in crate::verbs) fn descriptors(&self) -> [i32; 2] {
        unsafe { [(*self.context).cmd_fd, (*self.context).async_fd] }
    }

    pub(in crate::verbs) fn calls(&self) -> Vec<Call> {
        self.state.lock().calls.clone()
    }

    pub(in crate::verbs) fn forget_calls(&self) {
        self.state.lock().calls.clear();
    }

    /// An event for the connection manager's channel.
    pub(in crate::verbs) fn cm_event(
        &self,
        kind: u32,
        id: *mut sys::rdma_cm_id,
        listener: *mut sys::rdma_cm_id,
    ) {
        self.cm_event_with(kind, (id, listener), &[], 0);
    }

    /// As [`World::cm_event`], with what a peer says in it. Nobody hears events of an id that is destroyed.
    pub(in crate::verbs) fn cm_event_with(
        &self,
        kind: u32,
        (id, listener): (*mut sys::rdma_cm_id, *mut sys::rdma_cm_id),
        private_data: &[u8],
        initiator_depth: u8,
    ) {
        let mut event: Box<Event> = Box::new(unsafe { std::mem::zeroed() });
        event.raw.event = kind;
        event.raw.id = id;
        event.raw.listen_id = listener;
        event.private_data[..private_data.len()].copy_from_slice(private_data);
        event.private_data_len = u8::try_from(private_data.len()).expect("short");
        event.initiator_depth = initiator_depth;
        let mut state = self.state.lock();
        if state.ids.contains(&id.addr()) {
            state.cm_events.push_back(event);
            let one = 1_u64.to_ne_bytes();
            for channel in &state.channels {
                unsafe { libc::write(*channel, one.as_ptr().cast(), 8) };
            }
        }
    }

    /// An id as a connection request brings it.
    pub(in crate::verbs) fn fresh_id(&self) -> *mut sys::rdma_cm_id {
        let id = new_id(self.context);
        let mut state = self.state.lock();
        state.alive += 1;
        state.ids.insert(id.addr());
        id
    }
}

/// An event, and behind it what it points to.
#[repr(C)]
pub(in crate::verbs) struct Event {
    raw: sys::rdma_cm_event,
    private_data: [u8; 64],
    private_data_len: u8,
    initiator_depth: u8,
}

fn completion(id: u64, pair: u32, status: u32) -> sys::ibv_wc {
    let mut completion: sys::ibv_wc = unsafe { std::mem::zeroed() };
    completion.wr_id = id;
    completion.qp_num = pair;
    completion.status = status;
    completion
}

fn new_id(context: *mut sys::ibv_context) -> *mut sys::rdma_cm_id {
    let mut id: Box<sys::rdma_cm_id> = Box::new(unsafe { std::mem::zeroed() });
    id.verbs = context;
    Box::into_raw(id)
}

unsafe fn world(context: *mut sys::ibv_context) -> &'static World {
    unsafe { &*(*context).abi_compat.cast::<World>() }
}

unsafe fn make<T>(context: *mut sys::ibv_context) -> *mut T {
    unsafe {
        world(context).state.lock().alive += 1;
        Box::into_raw(Box::new(std::mem::zeroed()))
    }
}

unsafe fn unmake<T>(context: *mut sys::ibv_context, object: *mut T, call: Option<Call>) -> i32 {
    unsafe {
        let mut state = world(context).state.lock();
        state.alive -= 1;
        state.calls.extend(call);
        drop(Box::from_raw(object));
    }
    0
}

unsafe extern "C" fn poll_cq(cq: *mut sys::ibv_cq, room: i32, to: *mut sys::ibv_wc) -> i32 {
    unsafe {
        let mut state = world((*cq).context).state.lock();
        let queue = state.queues.get_mut(&cq.addr()).expect("alive");
        let mut count = 0;
        while count < room
            && let Some(completion) = queue.completions.pop_front()
        {
            to.add(count as usize).write(completion);
            count += 1;
        }
        count
    }
}

unsafe extern "C" fn req_notify_cq(cq: *mut sys::ibv_cq, _: i32) -> i32 {
    let mut state = unsafe { world((*cq).context) }.state.lock();
    let queue = state.queues.get_mut(&cq.addr()).expect("alive");
    queue.is_armed = true;
    let is_endings = state.pairs.values().any(|(endings, _)| *endings == cq.addr());
    state.calls.push(if is_endings { Call::ArmEndings } else { Call::ArmArrivals });
    0
}

unsafe extern "C" fn post_send(
    qp: *mut sys::ibv_qp,
    mut request: *mut sys::ibv_send_wr,
    rejected: *mut *mut sys::ibv_send_wr,
) -> i32 {
    unsafe {
        let mut state = world((*qp).context).state.lock();
        let mut count = 0;
        while let Some(raw) = request.as_ref() {
            if let Some(room) = &mut state.room {
                if *room == 0 {
                    *rejected = request;
                    return libc::ENOMEM;
                }
                *room -= 1;
            }
            let elements: Vec<_> = (0..usize::try_from(raw.num_sge).expect("not negative"))
                .map(|index| *raw.sg_list.add(index))
                .map(|element| (element.addr, element.length, element.lkey))
                .collect();
            let mut inline = Vec::new();
            if raw.send_flags & sys::IBV_SEND_INLINE != 0 {
                let at = std::ptr::with_exposed_provenance::<u8>(elements[0].0 as usize);
                inline = std::slice::from_raw_parts(at, elements[0].1 as usize).to_vec();
            }
            state.requests.push_back(Request {
                id: raw.wr_id,
                pair: (*qp).qp_num,
                opcode: raw.opcode,
                flags: raw.send_flags,
                remote: (raw.wr.rdma.remote_addr, raw.wr.rdma.rkey),
                invalidate: raw.__bindgen_anon_1.invalidate_rkey,
                elements,
                inline,
            });
            count += 1;
            request = raw.next;
        }
        state.calls.push(Call::PostSend(count));
    }
    0
}

unsafe extern "C" fn post_srq_recv(
    srq: *mut sys::ibv_srq,
    mut request: *mut sys::ibv_recv_wr,
    _: *mut *mut sys::ibv_recv_wr,
) -> i32 {
    unsafe {
        let mut state = world((*srq).context).state.lock();
        let mut count = 0;
        while let Some(raw) = request.as_ref() {
            let elements = (0..usize::try_from(raw.num_sge).expect("not negative"))
                .map(|index| *raw.sg_list.add(index))
                .map(|element| (element.addr, element.length))
                .collect();
            state.receives.push_back((raw.wr_id, elements));
            count += 1;
            request = raw.next;
        }
        state.calls.push(Call::PostReceive(count));
    }
    0
}

fn library() -> Library {
    unsafe { Library::new("libc.so.6") }.expect("every program has it")
}

fn ibverbs() -> Ibverbs {
    Ibverbs {
        __library: library(),
        ibv_get_device_list: c!((_: *mut i32) -> *mut *mut sys::ibv_device { null_mut() }),
        ibv_free_device_list: c!((_: *mut *mut sys::ibv_device) {}),
        ibv_get_device_name: c!((
            _: *mut sys::ibv_device
        ) -> *const libc::c_char {
            c"fake".as_ptr()
        }),
        ibv_wc_status_str: c!((_: sys::ibv_wc_status) -> *const libc::c_char { c"".as_ptr() }),
        ibv_event_type_str: c!((_: sys::ibv_event_type) -> *const libc::c_char { c"".as_ptr() }),
        ibv_get_async_event: c!((
            context: *mut sys::ibv_context,
            event: *mut sys::ibv_async_event
        ) -> i32 {
            match world(context).state.lock().async_events.pop_front() {
                Some(next) => {
                    *event = next;
                    0
                }
                None => fail(libc::EAGAIN),
            }
        }),
        ibv_ack_async_event: c!((_: *mut sys::ibv_async_event) {}),
        ibv_query_device: c!((
            context: *mut sys::ibv_context,
            attributes: *mut sys::ibv_device_attr
        ) -> i32 {
            let attributes = &mut *attributes;
            attributes.max_qp_wr = 1024;
            attributes.max_srq_wr = 1024;
            attributes.max_cqe = world(context).completions_max;
            attributes.max_qp_init_rd_atom = 16;
            attributes.max_qp_rd_atom = 16;
            0
        }),
        ibv_alloc_pd: c!((context: *mut sys::ibv_context) -> *mut sys::ibv_pd {
            let pd = make::<sys::ibv_pd>(context);
            (*pd).context = context;
            pd
        }),
        ibv_dealloc_pd: c!((pd: *mut sys::ibv_pd) -> i32 { unmake((*pd).context, pd, None) }),
        ibv_reg_mr_iova2: c!((
            pd: *mut sys::ibv_pd,
            address: *mut c_void,
            length: usize,
            _: u64,
            access: u32
        ) -> *mut sys::ibv_mr {
            let mr = make::<sys::ibv_mr>((*pd).context);
            (*mr).context = (*pd).context;
            (*mr).addr = address;
            (*mr).length = length;
            let mut state = world((*pd).context).state.lock();
            state.next_number += 1;
            state.access.push(access);
            (*mr).lkey = state.next_number;
            (*mr).rkey = state.next_number + 0x1000;
            mr
        }),
        ibv_dereg_mr: c!((mr: *mut sys::ibv_mr) -> i32 { unmake((*mr).context, mr, None) }),
        ibv_create_comp_channel: c!((context: *mut sys::ibv_context) -> *mut sys::ibv_comp_channel {
            let channel = make::<sys::ibv_comp_channel>(context);
            (*channel).context = context;
            (*channel).fd = eventfd();
            channel
        }),
        ibv_destroy_comp_channel: c!((channel: *mut sys::ibv_comp_channel) -> i32 {
            libc::close((*channel).fd);
            unmake((*channel).context, channel, None)
        }),
        ibv_create_cq: c!((
            context: *mut sys::ibv_context,
            entries: i32,
            _: *mut c_void,
            channel: *mut sys::ibv_comp_channel,
            _: i32
        ) -> *mut sys::ibv_cq {
            let cq = make::<sys::ibv_cq>(context);
            (*cq).context = context;
            (*cq).channel = channel;
            (*cq).cqe = entries;
            let queue = Queue { channel_fd: (*channel).fd, ..Queue::default() };
            world(context).state.lock().queues.insert(cq.addr(), queue);
            cq
        }),
        ibv_resize_cq: c!((cq: *mut sys::ibv_cq, entries: i32) -> i32 {
            (*cq).cqe = entries;
            0
        }),
        ibv_destroy_cq: c!((
            cq: *mut sys::ibv_cq
        ) -> i32 {
            world((*cq).context).state.lock().queues.remove(&cq.addr());
            unmake((*cq).context, cq, Some(Call::DestroyCompletions))
        }),
        ibv_get_cq_event: c!((
            channel: *mut sys::ibv_comp_channel,
            _: *mut *mut sys::ibv_cq,
            _: *mut *mut c_void
        ) -> i32 {
            let mut count = [0_u8; 8];
            if libc::read((*channel).fd, count.as_mut_ptr().cast(), 8) == 8 { 0 } else { -1 }
        }),
        ibv_ack_cq_events: c!((_: *mut sys::ibv_cq, _: u32) {}),
        ibv_create_srq: c!((
            pd: *mut sys::ibv_pd,
            _: *mut sys::ibv_srq_init_attr
        ) -> *mut sys::ibv_srq {
            let srq = make::<sys::ibv_srq>((*pd).context);
            (*srq).context = (*pd).context;
            srq
        }),
        ibv_destroy_srq: c!((srq: *mut sys::ibv_srq) -> i32 {
            unmake((*srq).context, srq, Some(Call::DestroyReceives))
        }),
        ibv_create_qp: c!((
            pd: *mut sys::ibv_pd,
            attributes: *mut sys::ibv_qp_init_attr
        ) -> *mut sys::ibv_qp {
            let context = (*pd).context;
            let qp = make::<sys::ibv_qp>(context);
            (*qp).context = context;
            let mut state = world(context).state.lock();
            state.next_number += 1;
            (*qp).qp_num = state.next_number;
            let queues = ((*attributes).send_cq.addr(), (*attributes).recv_cq.addr());
            state.pairs.insert((*qp).qp_num, queues);
            (*attributes).cap.max_inline_data = world(context).inline.get();
            qp
        }),
        ibv_modify_qp: c!((qp: *mut sys::ibv_qp, attributes: *mut sys::ibv_qp_attr, _: i32) -> i32 {
            let call = Call::Modify((*attributes).qp_state);
            world((*qp).context).state.lock().calls.push(call);
            0
        }),
        ibv_destroy_qp: c!((
            qp: *mut sys::ibv_qp
        ) -> i32 {
            unmake((*qp).context, qp, Some(Call::DestroyPair))
        }),
    }
}

/// A channel, and behind it the world that it is of.
#[repr(C)]
struct Channel {
    raw: sys::rdma_event_channel,
    world: *const World,
}

unsafe fn note(id: *mut sys::rdma_cm_id, call: Call) -> i32 {
    unsafe { world((*id).verbs) }.state.lock().calls.push(call);
    0
}

fn rdmacm() -> Rdmacm {
    Rdmacm {
        __library: library(),
        rdma_create_event_channel: c!(() -> *mut sys::rdma_event_channel {
            let raw = sys::rdma_event_channel { fd: eventfd() };
            let mut state = (*CURRENT.get()).state.lock();
            state.alive += 1;
            state.channels.push(raw.fd);
            if !state.cm_events.is_empty() {
                let one = 1_u64.to_ne_bytes();
                libc::write(raw.fd, one.as_ptr().cast(), 8);
            }
            Box::into_raw(Box::new(Channel { raw, world: CURRENT.get() })).cast()
        }),
        rdma_destroy_event_channel: c!((channel: *mut sys::rdma_event_channel) {
            let channel = Box::from_raw(channel.cast::<Channel>());
            let mut state = (*channel.world).state.lock();
            state.alive -= 1;
            state.channels.retain(|fd| *fd != channel.raw.fd);
            libc::close(channel.raw.fd);
        }),
        rdma_create_id: c!((
            channel: *mut sys::rdma_event_channel,
            id: *mut *mut sys::rdma_cm_id,
            _: *mut c_void,
            _: sys::rdma_port_space
        ) -> i32 {
            *id = (*(*channel.cast::<Channel>()).world).fresh_id();
            0
        }),
        rdma_destroy_id: c!((id: *mut sys::rdma_cm_id) -> i32 {
            let mut state = world((*id).verbs).state.lock();
            state.alive -= 1;
            state.ids.remove(&id.addr());
            state.accepted.remove(&id.addr());
            state.listeners.retain(|listener| *listener != id.addr());
            state.cm_events.retain(|event| event.raw.id != id);
            // Not freed: an event of it may be on its way to another thread, for which the real one waits.
            0
        }),
        rdma_bind_addr: c!((id: *mut sys::rdma_cm_id, address: *mut libc::sockaddr) -> i32 {
            if let Some(errno) = world((*id).verbs).state.lock().bind_error {
                return fail(errno);
            }
            let given: Option<SocketAddr> = address::from_c(address.cast());
            let local = &raw mut (*id).route.addr.__bindgen_anon_1;
            local.cast::<libc::sockaddr_storage>().write(address::to_c(given.expect("an address")));
            0
        }),
        rdma_resolve_addr: c!((
            _: *mut sys::rdma_cm_id,
            _: *mut libc::sockaddr,
            _: *mut libc::sockaddr,
            _: i32
        ) -> i32 {
            0
        }),
        rdma_resolve_route: c!((_: *mut sys::rdma_cm_id, _: i32) -> i32 { 0 }),
        rdma_connect: c!((
            id: *mut sys::rdma_cm_id,
            _: *mut sys::rdma_conn_param
        ) -> i32 {
            note(id, Call::Connect)
        }),
        rdma_establish: c!((id: *mut sys::rdma_cm_id) -> i32 { note(id, Call::Establish) }),
        rdma_listen: c!((id: *mut sys::rdma_cm_id, _: i32) -> i32 {
            let mut state = world((*id).verbs).state.lock();
            state.listeners.push(id.expose_provenance());
            state.listened += 1;
            0
        }),
        rdma_accept: c!((
            id: *mut sys::rdma_cm_id,
            parameter: *mut sys::rdma_conn_param
        ) -> i32 {
            let number = (*parameter).qp_num;
            let mut state = world((*id).verbs).state.lock();
            state.accepted.insert(id.addr(), number);
            state.accepted_ever.insert(id.addr());
            drop(state);
            note(id, Call::Accept)
        }),
        rdma_reject: c!((_: *mut sys::rdma_cm_id, _: *const c_void, _: u8) -> i32 { 0 }),
        rdma_disconnect: c!((id: *mut sys::rdma_cm_id) -> i32 { note(id, Call::Disconnect) }),
        rdma_get_cm_event: c!((
            channel: *mut sys::rdma_event_channel,
            event: *mut *mut sys::rdma_cm_event
        ) -> i32 {
            let world = &*(*channel.cast::<Channel>()).world;
            let mut state = world.state.lock();
            let next = state.cm_events.pop_front();
            if state.cm_events.is_empty() {
                // As the system's: readable only while there are events.
                let mut count = 0_u64;
                for channel in &state.channels {
                    libc::read(*channel, (&raw mut count).cast(), 8);
                }
            }
            match next {
                Some(next) => {
                    let next = Box::into_raw(next);
                    let parameter = &mut *(*next).raw.param.conn;
                    parameter.private_data = (&raw const (*next).private_data).cast();
                    parameter.private_data_len = (*next).private_data_len;
                    parameter.initiator_depth = (*next).initiator_depth;
                    *event = next.cast();
                    0
                }
                None => fail(libc::EAGAIN),
            }
        }),
        rdma_ack_cm_event: c!((event: *mut sys::rdma_cm_event) -> i32 {
            drop(Box::from_raw(event.cast::<Event>()));
            0
        }),
        rdma_get_devices: c!((_: *mut i32) -> *mut *mut sys::ibv_context {
            if let Some(world) = CURRENT.get().as_ref() {
                world.state.lock().calls.push(Call::ListDevices);
            }
            null_mut()
        }),
        rdma_free_devices: c!((_: *mut *mut sys::ibv_context) {}),
        rdma_set_option: c!((
            _: *mut sys::rdma_cm_id,
            _: i32,
            _: i32,
            _: *mut c_void,
            _: usize
        ) -> i32 {
            0
        }),
        rdma_init_qp_attr: c!((
            _: *mut sys::rdma_cm_id,
            _: *mut sys::ibv_qp_attr,
            mask: *mut i32
        ) -> i32 {
            *mask = 1;
            0
        }),
    }
}
