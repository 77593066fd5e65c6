//! Why a queue pair ends, and the handle by which anything in the process can end one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use afs_reactor::verbs::WorkError;

use crate::codec::Violation;

/// Why a queue pair ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The host closed or reset the connection: ordinary teardown (CONFORMANCE T-11).
    PeerClosed,
    /// The socket failed otherwise.
    Socket(io::ErrorKind),
    /// The host broke the protocol; it was told with a TermReq.
    Violation(Box<Violation>),
    /// More commands outstanding than the queue is deep (CONFORMANCE T-78).
    TooManyCommands,
    /// The host used a command id that was outstanding (CONFORMANCE T-78).
    DuplicateCommandId(u16),
    /// The host sent a TermReq (CONFORMANCE T-87).
    TerminatedByHost {
        /// Its FES.
        fes: u16,
        /// Its FEI.
        fei: u32,
    },
    /// No ICReq came in time.
    NoIcRequest,
    /// The host asked for an RDMA connection, was accepted, and neither confirmed that nor sent anything in time.
    NotEstablished,
    /// No Connect succeeded in time.
    NoConnect,
    /// The host stopped inside of a PDU or of a transfer, or stopped reading (CONFORMANCE T-89).
    Stalled,
    /// A work request of the RDMA queue pair failed, such as an RDMA WRITE with a wrong key (CONFORMANCE R-20).
    Work(WorkError),
    /// A message was shorter than a command capsule (CONFORMANCE R-10); its length.
    ShortCapsule(usize),
    /// The RDMA device was removed, or lost its address (CONFORMANCE R-7).
    DeviceGone,
    /// Too many half-open connections; the oldest made room (CONFORMANCE T-8).
    Evicted,
    /// The service asked for it; the text says why, for the log.
    Requested(&'static str),
}

impl From<&io::Error> for CloseReason {
    fn from(error: &io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => CloseReason::PeerClosed,
            kind => CloseReason::Socket(kind),
        }
    }
}

/// Ends a queue pair from anywhere; cheap to clone.
#[derive(Clone)]
pub struct QueueCloser(Arc<Signals>);

impl QueueCloser {
    pub(super) fn new(signals: Arc<Signals>) -> QueueCloser {
        QueueCloser(signals)
    }

    /// Asks the queue pair to end. Only the first reason counts; nothing happens if it has ended.
    pub fn close(&self, reason: CloseReason) {
        let mut slot = self.0.close.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(reason);
        }
        drop(slot);
        self.0.closing.store(1, Ordering::Release);
        self.0.notify();
    }

    /// The connection manager says that the host has confirmed the connection.
    pub(super) fn established(&self) {
        self.0.established.store(true, Ordering::Release);
        self.0.notify();
    }
}

impl std::fmt::Debug for QueueCloser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueueCloser")
    }
}

const AWAKE: u8 = 0;
const PARKED: u8 = 1;

/// What may wake the task of a connection besides its socket: slots that can go on, and a wish to close.
///
/// A waker sets its bit first and looks at `parked` second; the task sets `parked` first and looks at the
/// bits second. So one of them always sees the other.
pub(super) struct Signals {
    woken: Box<[AtomicU64]>,
    parked: AtomicU8,
    task: Mutex<Option<Waker>>,
    closing: AtomicU8,
    close: Mutex<Option<CloseReason>>,
    established: AtomicBool,
}

/// Slots that one word of bits stands for.
const WORD_SLOTS: usize = 64;
/// Most slots of a queue pair: the words are few, so all of them exist from the start.
pub(super) const MAX_SLOTS: usize = 2048;

impl Signals {
    pub(super) fn new() -> Arc<Signals> {
        let words = MAX_SLOTS / WORD_SLOTS;
        Arc::new(Signals {
            woken: (0..words).map(|_| AtomicU64::new(0)).collect(),
            parked: AtomicU8::new(AWAKE),
            task: Mutex::new(None),
            closing: AtomicU8::new(0),
            close: Mutex::new(None),
            established: AtomicBool::new(false),
        })
    }

    /// Marks a slot as able to go on.
    pub(super) fn wake_slot(&self, slot: u16) {
        let slot = usize::from(slot);
        if let Some(word) = self.woken.get(slot / WORD_SLOTS) {
            word.fetch_or(1 << (slot % WORD_SLOTS), Ordering::SeqCst);
            self.notify();
        }
    }

    /// Takes the marks of one word; words are numbered from 0, each stands for 64 slots.
    pub(super) fn take_word(&self, word: usize) -> u64 {
        let Some(bits) = self.woken.get(word) else { return 0 };
        // A plain look first: a swap costs a bus lock, and most words are empty.
        if bits.load(Ordering::Relaxed) == 0 { 0 } else { bits.swap(0, Ordering::SeqCst) }
    }

    /// The reason to close, once somebody gave one.
    pub(super) fn close_wanted(&self) -> Option<CloseReason> {
        if self.closing.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.close.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the host has confirmed the connection.
    pub(super) fn is_established(&self) -> bool {
        self.established.load(Ordering::Acquire)
    }

    /// Says that the task is about to wait. False when something happened meanwhile and it must not.
    pub(super) fn park(&self, waker: &Waker, words: usize) -> bool {
        self.park_for_commands(waker, words) && self.closing.load(Ordering::SeqCst) == 0
    }

    /// As [`Signals::park`] for a task that closes already and waits for its commands alone.
    pub(super) fn park_for_commands(&self, waker: &Waker, words: usize) -> bool {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *task = Some(waker.clone());
        }
        drop(task);
        self.parked.store(PARKED, Ordering::SeqCst);
        !self.woken.iter().take(words).any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Says that the task runs, so that wakers need not wake it.
    pub(super) fn unpark(&self) {
        self.parked.store(AWAKE, Ordering::Relaxed);
    }

    fn notify(&self) {
        if self.parked.swap(AWAKE, Ordering::SeqCst) == PARKED {
            let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waker) = task.as_ref() {
                waker.wake_by_ref();
            }
        }
    }
}
