//! The reactors: one thread each, with its own tokio runtime, buffer pool and disk ring. A queue
//! pair, and all I/O of it, lives and dies on one of them. The daemon starts them; other threads
//! reach them through [`ReactorHandle`].

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::buffer::BufferPool;
use crate::counters::{Counters, ReactorStats, Shared};
use crate::idle::{self, Idle};
use crate::pacer::Pacer;
use crate::ring::{Ring, drive};
use crate::verbs::Devices;

/// How many reactors, and what each of them owns.
#[derive(Debug, Clone)]
pub struct ReactorConfig {
    /// One reactor pinned to each of these cores; empty for `threads` reactors that float.
    pub cores: Vec<usize>,
    /// How many reactors when `cores` is empty; at least one is started.
    pub threads: usize,
    /// Size of each reactor's buffer pool in bytes.
    pub buffer_bytes: usize,
    /// How many disk operations one reactor has under way at most (1 to 4096, rounded up to a
    /// power of two). Zero for reactors that have no disks, and hence no ring.
    pub ring_entries: u32,
    /// How long a busy reactor looks for more work before it sleeps, at most 1 ms; zero for
    /// never. An idle reactor sleeps at once, and so does any on a machine with one core.
    pub poll: Duration,
}

impl Default for ReactorConfig {
    fn default() -> Self {
        ReactorConfig {
            cores: Vec::new(),
            threads: 1,
            buffer_bytes: 64 << 20,
            ring_entries: 256,
            poll: Duration::from_micros(50),
        }
    }
}

/// The reactor has ended, or the task that was run on it has panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the reactor did not run the task to its end")]
pub struct ReactorGone;

/// More than this is a mistake in the configuration: nothing is gained by it.
const MAX_POLL_NS: u64 = 1_000_000;

type Start = Box<dyn FnOnce(Local) + Send>;

enum Command {
    Start(Start),
    Stop,
}

/// All reactors of a process. Dropping it ends them.
pub struct Reactors {
    handles: Vec<ReactorHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl Reactors {
    /// Starts the threads and waits until all of them are ready.
    ///
    /// # Errors
    /// When a thread, its pool or its ring cannot be made; the message says which, and what to
    /// change. Those already started are ended again.
    pub fn start(mut config: ReactorConfig) -> io::Result<Reactors> {
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1) {
            config.poll = Duration::ZERO;
        }
        let cores: Vec<Option<usize>> = match config.cores.as_slice() {
            [] => vec![None; config.threads.max(1)],
            cores => cores.iter().copied().map(Some).collect(),
        };
        let mut reactors = Reactors { handles: Vec::new(), threads: Vec::new() };
        for (index, core) in cores.into_iter().enumerate() {
            reactors.start_one(index, core, &config)?;
        }
        Ok(reactors)
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// The reactor `index`, counted from 0 and around: any number names one.
    pub fn handle(&self, index: usize) -> ReactorHandle {
        self.handles[index % self.handles.len()].clone()
    }

    /// Ends all reactors: their tasks are dropped where they wait, I/O that the kernel has begun is
    /// waited for, the threads are joined.
    pub fn shutdown(self) {
        drop(self);
    }

    fn start_one(
        &mut self,
        index: usize,
        core: Option<usize>,
        config: &ReactorConfig,
    ) -> io::Result<()> {
        let (commands, receiver) = unbounded_channel();
        let shared = Arc::new(Shared::default());
        let handle = ReactorHandle { index, commands, shared: shared.clone() };
        let setup = Setup { index, core, config: config.clone(), shared };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("reactor-{index}"))
            .spawn(move || setup.run(receiver, &ready))?;
        self.threads.push(thread);
        self.handles.push(handle);
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the reactor's thread died")))
    }
}

impl Drop for Reactors {
    fn drop(&mut self) {
        for handle in &self.handles {
            // A reactor that already ended needs no telling.
            let _ = handle.commands.send(Command::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reactor's thread panicked");
            }
        }
    }
}

/// One reactor, seen from any thread.
#[derive(Clone)]
pub struct ReactorHandle {
    index: usize,
    commands: UnboundedSender<Command>,
    shared: Arc<Shared>,
}

impl ReactorHandle {
    /// Runs the future that `f` makes as a task of the reactor. When the reactor has ended, `f` is
    /// dropped unused.
    pub fn spawn<F, Fut>(&self, f: F)
    where
        F: FnOnce(Local) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let start: Start = Box::new(move |local| {
            // A panic in `f` is then that task's alone.
            tokio::task::spawn_local(async move { f(local).await });
        });
        // The only failure is that the reactor has ended, which is documented above.
        let _ = self.commands.send(Command::Start(start));
    }

    /// Runs the future that `f` makes as a task of the reactor, and blocks the calling thread until
    /// it has ended. Not for use on a reactor.
    ///
    /// # Errors
    /// [`ReactorGone`] when the reactor ended before the task did, or the task panicked.
    pub fn run<F, Fut, T>(&self, f: F) -> Result<T, ReactorGone>
    where
        F: FnOnce(Local) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.spawn(move |local| {
            let future = f(local);
            async move {
                // The receiver is the caller, which is blocked below.
                let _ = sender.send(future.await);
            }
        });
        receiver.recv().map_err(|_| ReactorGone)
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its counters now.
    pub fn stats(&self) -> ReactorStats {
        ReactorStats::read(&self.shared)
    }
}

struct LocalInner {
    index: usize,
    idle: Rc<Idle>,
}

/// One reactor, seen from its own tasks.
#[derive(Clone)]
pub struct Local {
    inner: Rc<LocalInner>,
}

impl Local {
    /// The reactor's buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.inner.idle.pool
    }

    /// The reactor's number, from 0.
    pub fn index(&self) -> usize {
        self.inner.index
    }

    /// Runs `future` as a task of this reactor.
    pub fn spawn_local<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        tokio::task::spawn_local(future)
    }

    /// The disk ring, unless the reactors were configured without.
    pub fn ring(&self) -> Option<&Ring> {
        self.inner.idle.ring.as_ref()
    }

    /// When the reactor last turned to the system for events, in nanoseconds on the clock of
    /// [`boottime_ns`](crate::clock::boottime_ns). What it knows of sockets may be as old as that, or older still than the moment
    /// at which it woke: the whole process may have been stopped between the events and their handling.
    pub fn looked_ns(&self) -> u64 {
        self.inner.idle.looked_ns()
    }

    /// The RDMA devices that the reactor has open.
    pub(crate) fn rdma(&self) -> &Devices {
        &self.inner.idle.rdma
    }

    /// The reactor's counters, for those who make system calls on its thread.
    pub fn counters(&self) -> &Counters {
        &self.inner.idle.counters
    }
}

/// What a new thread needs to become a reactor.
struct Setup {
    index: usize,
    core: Option<usize>,
    config: ReactorConfig,
    shared: Arc<Shared>,
}

impl Setup {
    fn run(
        self,
        commands: UnboundedReceiver<Command>,
        ready: &std::sync::mpsc::Sender<io::Result<()>>,
    ) {
        let built = self.build();
        let (runtime, local) = match built {
            Ok(built) => built,
            Err(error) => {
                // If nobody waits for the answer any more, nobody needs the reactor.
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        runtime.block_on(serve(local.clone(), commands));
        // Dropping the runtime drops all tasks, and with them the futures of I/O under way; the
        // ring then waits for the kernel to let go of their buffers.
        drop(runtime);
        Idle::install(None);
        if let Some(ring) = local.ring() {
            ring.drain();
        }
    }

    fn build(&self) -> io::Result<(LocalRuntime, Local)> {
        if let Some(core) = self.core {
            pin(core)?;
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(idle::before_park)
            .on_thread_unpark(idle::after_park)
            .build_local(LocalOptions::default())?;
        let pool = BufferPool::new(self.config.buffer_bytes)?;
        self.shared.pool_total.set(pool.total_bytes() as u64);
        let counters = Counters::new(self.shared.clone());
        let ring = match self.config.ring_entries {
            0 => None,
            entries => Some(Ring::new(entries, &pool, counters.clone())?),
        };
        let poll = u64::try_from(self.config.poll.as_nanos()).unwrap_or(u64::MAX);
        let pacer = Pacer::new(poll.min(MAX_POLL_NS));
        let idle = Idle::new(counters, pool, ring, pacer);
        Idle::install(Some(idle.clone()));
        Ok((runtime, Local { inner: Rc::new(LocalInner { index: self.index, idle }) }))
    }
}

async fn serve(local: Local, mut commands: UnboundedReceiver<Command>) {
    tokio::task::spawn_local(drive(local.inner.idle.clone()));
    while let Some(Command::Start(start)) = commands.recv().await {
        local.counters().note_work();
        start(local.clone());
    }
}

fn pin(core: usize) -> io::Result<()> {
    let unusable = || {
        let message = format!(
            "core {core} cannot be used for a reactor: choose cores that exist and that this process may run on"
        );
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    if core >= rustix::thread::CpuSet::MAX_CPU {
        return Err(unusable());
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).map_err(|_| unusable())
}
