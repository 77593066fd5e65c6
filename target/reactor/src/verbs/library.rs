//! The two libraries, opened once per process, and what to say when there is no RDMA.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;

use afs_verbs_sys::{Ibverbs, Rdmacm};
use parking_lot::Mutex;
use thiserror::Error;

use super::context::Contexts;

/// Everything that was found in the libraries.
pub(super) struct Libraries {
    pub(super) ib: Ibverbs,
    pub(super) cm: Rdmacm,
    pub(super) contexts: Contexts,
}

/// libibverbs and librdmacm, loaded at run time. Cloning it makes another handle.
#[derive(Clone)]
pub struct Verbs {
    libraries: Arc<Libraries>,
}

/// Why there is no RDMA here.
#[derive(Debug, Error)]
pub enum Unavailable {
    /// A library is not installed, or too old.
    #[error("RDMA needs libibverbs1 and librdmacm1 (rdma-core): {detail}")]
    NoLibrary {
        /// What the dynamic linker says.
        detail: String,
    },
    /// The machine has no RDMA device, or the kernel no support for it.
    #[error(
        "this machine has no RDMA device that processes can use: is one in `rdma link`, and is the kernel module rdma_ucm loaded?"
    )]
    NoDevices,
    /// There are devices, but they may not be used.
    #[error(
        "RDMA devices cannot be used: {0} (may this process open /dev/infiniband/rdma_cm and uverbs*?)"
    )]
    Refused(io::Error),
}

/// The libraries keep state of their own, so they are never unloaded, nor loaded twice.
static LOADED: Mutex<Option<Verbs>> = Mutex::new(None);

impl Verbs {
    /// Opens the libraries and looks for devices. May block for some milliseconds.
    ///
    /// # Errors
    /// [`Unavailable`], whose text says what to change.
    pub fn load() -> Result<Verbs, Unavailable> {
        let mut loaded = LOADED.lock();
        let verbs = match loaded.as_ref() {
            Some(verbs) => verbs.clone(),
            None => loaded.insert(open()?).clone(),
        };
        drop(loaded);
        verbs.probe()?;
        Ok(verbs)
    }

    /// The names of the machine's RDMA devices.
    ///
    /// # Errors
    /// What the system says when they cannot be listed; none at all is no error.
    pub fn devices(&self) -> io::Result<Vec<String>> {
        let mut count = 0;
        // SAFETY: writes the count and returns a list of that length, or null.
        let list = unsafe { self.ib().ibv_get_device_list(&raw mut count) };
        if list.is_null() {
            let error = io::Error::last_os_error();
            return if is_absent(&error) { Ok(Vec::new()) } else { Err(error) };
        }
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: the list has `count` devices, whose names live as long as the list.
        let names = unsafe {
            std::slice::from_raw_parts(list, count)
                .iter()
                .map(|&device| CStr::from_ptr(self.ib().ibv_get_device_name(device)))
                .map(|name| name.to_string_lossy().into_owned())
                .collect()
        };
        // SAFETY: the list came from the call above and is not used any more.
        unsafe { self.ib().ibv_free_device_list(list) };
        Ok(names)
    }

    pub(super) fn ib(&self) -> &Ibverbs {
        &self.libraries.ib
    }

    pub(super) fn cm(&self) -> &Rdmacm {
        &self.libraries.cm
    }

    pub(super) fn contexts(&self) -> &Contexts {
        &self.libraries.contexts
    }

    /// Functions of whatever origin: the real libraries, or a test's.
    pub(super) fn of(ib: Ibverbs, cm: Rdmacm) -> Verbs {
        Verbs { libraries: Arc::new(Libraries { ib, cm, contexts: Contexts::default() }) }
    }

    fn probe(&self) -> Result<(), Unavailable> {
        if self.devices().map_err(Unavailable::Refused)?.is_empty() {
            return Err(Unavailable::NoDevices);
        }
        // The libraries would say later that there is no device.
        may_open(Path::new("/dev/infiniband")).map_err(Unavailable::Refused)?;
        // SAFETY: no arguments; the channel is destroyed at once.
        let channel = unsafe { self.cm().rdma_create_event_channel() };
        if channel.is_null() {
            let error = io::Error::last_os_error();
            return Err(match is_absent(&error) {
                true => Unavailable::NoDevices,
                false => Unavailable::Refused(error),
            });
        }
        // SAFETY: made above and known to nobody else.
        unsafe { self.cm().rdma_destroy_event_channel(channel) };
        Ok(())
    }
}

fn open() -> Result<Verbs, Unavailable> {
    let missing =
        |error: afs_verbs_sys::LoadError| Unavailable::NoLibrary { detail: error.to_string() };
    // SAFETY: the initialisers of these libraries only set up their own tables, and the functions
    // have the types of their published binary interface.
    let (ib, cm) = unsafe {
        (
            Ibverbs::new("libibverbs.so.1").map_err(missing)?,
            Rdmacm::new("librdmacm.so.1").map_err(missing)?,
        )
    };
    Ok(Verbs::of(ib, cm))
}

/// Whether this process may open the connection manager and one of the devices in `folder`, if they are there.
fn may_open(folder: &Path) -> io::Result<()> {
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).map(drop);
    let is_refusal = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    // Whatever else is wrong with one is told when it is used.
    if let Err(error) = open(&folder.join("rdma_cm"))
        && is_refusal(&error)
    {
        return Err(error);
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let devices = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("uverbs"));
    let mut refusal = None;
    for device in devices {
        match open(&device.path()) {
            Err(error) if is_refusal(&error) => refusal = Some(error),
            _ => return Ok(()),
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// How the libraries say that the kernel has no RDMA (or no device, or the module is not loaded).
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::ENODEV | libc::ENOENT | libc::ENXIO))
}
