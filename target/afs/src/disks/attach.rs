//! One handle per disk and reactor: made when the first queue pair of a reactor needs the disk, shared by the following
//! ones, gone with the last.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use afs_reactor::{Local, RingDisk};
use afs_store::Store;

use super::StoreDisk;

thread_local! {
    /// A reactor is a thread, so this is per reactor. Keys are [`StoreDisk::instance`].
    static STORES: RefCell<HashMap<u64, Weak<Store<RingDisk>>>> = RefCell::new(HashMap::new());
}

/// A store as seen from one reactor.
#[derive(Clone)]
pub struct Attached {
    store: Rc<Store<RingDisk>>,
}

impl Attached {
    /// The store.
    pub fn store(&self) -> &Store<RingDisk> {
        &self.store
    }
}

impl StoreDisk {
    /// The handle of this reactor; `None` if it cannot be made (the reactor's ring is out of file slots).
    pub fn attach(&self, local: &Local) -> Option<Attached> {
        let found =
            STORES.with_borrow(|stores| stores.get(&self.instance()).and_then(Weak::upgrade));
        if let Some(store) = found {
            return Some(Attached { store });
        }
        let disk = RingDisk::new(local, self.file())
            .inspect_err(|error| tracing::error!(disk = %self.file().path().display(), %error, "a reactor cannot use this disk"))
            .ok()?;
        let store = Rc::new(Store::attach(self.shared().clone(), disk));
        STORES.with_borrow_mut(|stores| {
            stores.retain(|_, store| store.strong_count() > 0);
            stores.insert(self.instance(), Rc::downgrade(&store));
        });
        Some(Attached { store })
    }
}
