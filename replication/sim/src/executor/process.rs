//! Processes: tasks that are stopped (SIGSTOP), go on (SIGCONT) and die (kill -9) together.

use std::cell::RefCell;

use super::Sim;
use super::tasks::TaskHandle;

/// A process, for ever: none is used twice in one world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u32);

/// What runs in no process.
pub(super) const WORLD: ProcessId = ProcessId(0);

#[derive(Default)]
struct State {
    dead: bool,
    stopped: bool,
    /// Woken while stopped.
    held: Vec<TaskHandle>,
    at_end: Vec<Box<dyn FnOnce()>>,
}

/// Process `n` is at place `n - 1`.
#[derive(Default)]
pub(super) struct Processes(RefCell<Vec<State>>);

impl Processes {
    pub(super) fn add(&self) -> ProcessId {
        let mut all = self.0.borrow_mut();
        all.push(State::default());
        ProcessId(u32::try_from(all.len()).unwrap_or(u32::MAX))
    }

    /// Whether a woken task may not run now; then it is kept for later, or forgotten.
    pub(super) fn holds_back(&self, task: &TaskHandle) -> bool {
        self.with(task.process, |state| {
            if state.stopped && !state.dead {
                state.held.push(task.clone());
            }
            state.stopped || state.dead
        })
        .unwrap_or(false)
    }

    fn with<T>(&self, id: ProcessId, action: impl FnOnce(&mut State) -> T) -> Option<T> {
        let place = id.0.checked_sub(1).and_then(|place| usize::try_from(place).ok())?;
        self.0.borrow_mut().get_mut(place).map(action)
    }
}

/// A process. Clones are handles to the same.
#[derive(Clone)]
pub struct Process {
    sim: Sim,
    id: ProcessId,
}

impl Process {
    pub(super) fn new(sim: Sim, id: ProcessId) -> Self {
        Self { sim, id }
    }

    /// Its number.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Runs a task in it. Nothing happens if it is dead.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        if self.is_alive() {
            self.sim.inner.tasks.add(self.id, Box::pin(future));
        }
    }

    /// Has not been killed.
    pub fn is_alive(&self) -> bool {
        self.with(|state| !state.dead)
    }

    /// Has been stopped, and goes on later.
    pub fn is_stopped(&self) -> bool {
        self.with(|state| state.stopped && !state.dead)
    }

    /// None of its tasks runs until [`resume`](Process::resume). What they wait for happens
    /// meanwhile; they learn of it late.
    pub fn stop(&self) {
        self.with(|state| state.stopped = true);
    }

    /// Goes on after [`stop`](Process::stop).
    pub fn resume(&self) {
        let held = self.with(|state| {
            state.stopped = false;
            std::mem::take(&mut state.held)
        });
        held.into_iter().for_each(|task| self.sim.inner.tasks.again(task));
    }

    /// Calls `action` when it is killed, after its tasks are gone.
    pub fn at_end(&self, action: impl FnOnce() + 'static) {
        self.with(|state| state.at_end.push(Box::new(action)));
    }

    /// Ends it: its tasks are dropped. A task of its own that calls this is dropped when it next
    /// waits.
    pub fn kill(&self) {
        let (held, at_end) = self.with(|state| {
            state.dead = true;
            (std::mem::take(&mut state.held), std::mem::take(&mut state.at_end))
        });
        drop(held);
        self.sim.inner.tasks.drop_where(|process| process == self.id);
        at_end.into_iter().for_each(|action| action());
    }

    fn with<T: Default>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        self.sim.inner.processes.with(self.id, action).unwrap_or_default()
    }
}
