//! The tasks, and the queue of those that are woken.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use super::process::ProcessId;

type Boxed = Pin<Box<dyn Future<Output = ()>>>;

/// Wakers must be `Send`, so this is a mutex; nobody ever waits for it.
type Woken = Arc<Mutex<VecDeque<TaskHandle>>>;

fn lock(queue: &Woken) -> MutexGuard<'_, VecDeque<TaskHandle>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names a task and wakes it.
pub(super) struct TaskName {
    slot: usize,
    /// Tasks are numbered as they were made.
    number: u64,
    pub(super) process: ProcessId,
    /// It is in the queue, or held back.
    woken: AtomicBool,
    queue: Woken,
}

pub(super) type TaskHandle = Arc<TaskName>;

impl Wake for TaskName {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::Relaxed) {
            lock(&self.queue).push_back(self.clone());
        }
    }
}

struct Slot {
    task: TaskHandle,
    /// `None` while it is being polled.
    future: Option<Boxed>,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    number: u64,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Tasks {
    slots: RefCell<Slots>,
    queue: Woken,
}

impl Tasks {
    pub(super) fn add(&self, process: ProcessId, future: Boxed) {
        let task = {
            let mut slots = self.slots.borrow_mut();
            let slot = slots.free.pop().unwrap_or_else(|| {
                slots.slots.push(None);
                slots.slots.len() - 1
            });
            let (woken, queue) = (AtomicBool::new(false), self.queue.clone());
            slots.number += 1;
            let number = slots.number;
            let task = Arc::new(TaskName { slot, number, process, woken, queue });
            if let Some(place) = slots.slots.get_mut(slot) {
                *place = Some(Slot { task: task.clone(), future: Some(future) });
            }
            task
        };
        task.wake();
    }

    /// Takes the task that was woken first out of the queue.
    pub(super) fn next(&self) -> Option<TaskHandle> {
        lock(&self.queue).pop_front()
    }

    /// Takes any woken task out of the queue; `choose` says which one of how many. The order in
    /// which they were woken does not matter: some wakers draw it from a source of their own.
    pub(super) fn choose(&self, choose: impl FnOnce(usize) -> usize) -> Option<TaskHandle> {
        let mut queue = lock(&self.queue);
        if queue.len() > 1 {
            queue.make_contiguous().sort_unstable_by_key(|task| task.number);
            let index = choose(queue.len());
            return queue.remove(index);
        }
        queue.pop_front()
    }

    /// A held task goes on.
    pub(super) fn again(&self, task: TaskHandle) {
        lock(&self.queue).push_back(task);
    }

    /// The future, to be polled; from now on the task can be woken again.
    pub(super) fn take(&self, task: &TaskHandle) -> Option<Boxed> {
        task.woken.store(false, Ordering::Relaxed);
        self.slots.borrow_mut().of(task)?.future.take()
    }

    /// After a poll; a task that was killed meanwhile ends here.
    pub(super) fn put_back(&self, task: &TaskHandle, future: Boxed) {
        let mut rest = Some(future);
        if let Some(slot) = self.slots.borrow_mut().of(task) {
            slot.future = rest.take();
        }
        drop(rest);
    }

    pub(super) fn end(&self, task: &TaskHandle) {
        let mut slots = self.slots.borrow_mut();
        if slots.of(task).is_some() {
            slots.remove(task.slot);
        }
    }

    /// Drops all tasks of which `which` is true. Whatever their ends set going may wake others.
    pub(super) fn drop_where(&self, which: impl Fn(ProcessId) -> bool) {
        let dropped: Vec<_> = {
            let mut slots = self.slots.borrow_mut();
            let all = slots.slots.iter().flatten().map(|slot| &slot.task);
            let doomed: Vec<_> =
                all.filter(|task| which(task.process)).map(|task| task.slot).collect();
            doomed.into_iter().map(|slot| slots.remove(slot)).collect()
        };
        drop(dropped);
    }
}

impl Slots {
    /// The slot, if it still is this task's.
    fn of(&mut self, task: &TaskHandle) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(task.slot)?.as_mut()?;
        Arc::ptr_eq(&slot.task, task).then_some(slot)
    }

    fn remove(&mut self, slot: usize) -> Option<Slot> {
        self.free.push(slot);
        self.slots.get_mut(slot)?.take()
    }
}
