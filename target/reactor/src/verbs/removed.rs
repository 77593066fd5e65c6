//! Letting go of a device that was removed. As long as a process has it open, the kernel lets
//! whoever removes it wait (soft RDMA does; most drivers do not). librdmacm opened it and offers no
//! way to close it:
//!
//! - It closes a removed device when it lists devices the next time, so it is asked to.
//! - But when none is left at all, it gives up before it looks which are gone. Then the descriptors
//!   of the removed device are pointed at `/dev/null`, which lets the kernel go on. librdmacm's
//!   own objects stay as they are; it closes the same descriptors when another device comes.
//! - And a device is listed for a while after its removal was announced: until all processes that
//!   have connections through it have lost them. Then it is tried again later, until it is closed.
//!
//! Called when no id, queue or registration on the device is left in this process.

use std::os::fd::{AsRawFd, RawFd};

use rustix::fs::{Mode, OFlags};

use super::library::Verbs;

/// The descriptors of an opened device, and which file the first of them is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    command: RawFd,
    events: RawFd,
    file: Option<File>,
}

/// What tells one open device from another: a device that comes again has another inode.
type File = (u64, u64, u64);

impl Descriptors {
    /// Those of a context that is open.
    pub(super) fn of(command: RawFd, events: RawFd) -> Descriptors {
        Descriptors { command, events, file: identify(command) }
    }

    /// Has librdmacm close the device, or closes it in its place. False if it is still listed, and open.
    #[must_use]
    pub(super) fn close_removed(&self, verbs: &Verbs) -> bool {
        // SAFETY: no arguments that matter, and the list is given back at once.
        let is_listed = unsafe {
            let list = verbs.cm().rdma_get_devices(std::ptr::null_mut());
            if !list.is_null() {
                verbs.cm().rdma_free_devices(list);
            }
            !list.is_null()
        };
        // Still the same file: then librdmacm has not closed it.
        let is_open = self.file.is_some() && identify(self.command) == self.file;
        if is_open && !is_listed {
            tracing::info!("the last RDMA device is gone; closing what the library keeps open");
            self.replace();
        }
        !is_open || !is_listed
    }

    fn replace(&self) {
        let null =
            match rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
                Ok(null) => null,
                Err(error) => return tracing::warn!(%error, "/dev/null cannot be opened"),
            };
        for fd in [self.command, self.events] {
            // SAFETY: the context owns both descriptors and is not closed, as was just seen. Nobody
            // uses it: the device is removed and nothing is left on it. A call on it, such as the
            // library's own close, now fails or closes `/dev/null`.
            let code = unsafe { libc::dup3(null.as_raw_fd(), fd, libc::O_CLOEXEC) };
            if code < 0 {
                let error = std::io::Error::last_os_error();
                tracing::warn!(%error, "a removed RDMA device stays open");
            }
        }
    }
}

fn identify(fd: RawFd) -> Option<File> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: there is room for the result; a number that is not open is an error.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: filled, as the call succeeded.
    let status = unsafe { status.assume_init() };
    Some((status.st_dev, status.st_ino, status.st_rdev))
}
