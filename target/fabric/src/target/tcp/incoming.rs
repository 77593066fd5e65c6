//! Destinations of the transfers that R2Ts asked for, by slot.

use afs_reactor::BufferMut;

struct Destination {
    buffer: BufferMut,
    filled: usize,
}

/// Buffers that fill from the socket.
#[derive(Default)]
pub(super) struct Incoming {
    by_slot: Vec<Option<Destination>>,
    received: u64,
}

impl Incoming {
    /// Opens a transfer into `buffer`.
    pub(super) fn open(&mut self, slot: u16, buffer: BufferMut) {
        let index = usize::from(slot);
        if self.by_slot.len() <= index {
            self.by_slot.resize_with(index + 1, || None);
        }
        self.by_slot[index] = Some(Destination { buffer, filled: 0 });
    }

    /// Where the next bytes of `slot` go.
    pub(super) fn rest(&mut self, slot: u16) -> &mut [u8] {
        match self.by_slot.get_mut(usize::from(slot)) {
            Some(Some(destination)) => {
                let filled = destination.filled;
                destination.buffer.get_mut(filled..).unwrap_or_default()
            }
            _ => &mut [],
        }
    }

    /// Counts `count` bytes as written to what [`Incoming::rest`] gave.
    pub(super) fn filled(&mut self, slot: u16, count: usize) {
        self.received += count as u64;
        if let Some(Some(destination)) = self.by_slot.get_mut(usize::from(slot)) {
            destination.filled += count;
        }
    }

    /// Copies bytes that came with other things.
    pub(super) fn append(&mut self, slot: u16, bytes: &[u8]) {
        let rest = self.rest(slot);
        let count = rest.len().min(bytes.len());
        rest[..count].copy_from_slice(&bytes[..count]);
        self.filled(slot, count);
    }

    /// Ends a transfer; the buffer, if the transfer was open.
    pub(super) fn close(&mut self, slot: u16) -> Option<BufferMut> {
        self.by_slot.get_mut(usize::from(slot))?.take().map(|destination| destination.buffer)
    }

    /// Bytes received for all transfers so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }
}
