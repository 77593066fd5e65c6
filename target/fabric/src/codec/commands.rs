//! The commands outstanding on one queue pair, as the target's codec knows them: command ids, TTAGs and the
//! ranges still to come (CONFORMANCE T-27, T-30 to T-34, T-78, T-80 to T-86).
//!
//! Each command has a *slot*; its index is also the TTAG of its R2T, so a TTAG is unique on the queue and
//! one comparison bounds it. Slots are made when first needed and reused last-in first-out.

/// How the data of a command travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandData {
    /// No data, or a null transfer.
    None,
    /// Host to controller, inside of the capsule.
    InCapsule,
    /// Host to controller, asked for by R2T; at most this many bytes.
    FromHost(u32),
    /// Controller to host, at most this many bytes.
    ToHost(u32),
}

/// A transfer that an R2T asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Offset of the next byte that must come.
    pub next: u32,
    /// Bytes that the R2T asked for, from offset 0.
    pub end: u32,
    /// A piece had a wrong data digest: the command ends with 0x022 (CONFORMANCE T-52).
    pub damaged: bool,
}

impl Transfer {
    /// Whether all bytes were had.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.next == self.end
    }
}

/// Why a capsule cannot be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdmitError {
    TooMany,
    Duplicate,
}

const NONE: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Slot {
    cid: u16,
    /// Next slot in the same bucket.
    chain: u16,
    busy: bool,
    /// The host has, or is about to have, the response: the command id is its own again.
    answered: bool,
    data: CommandData,
    transfer: Option<Transfer>,
}

/// Table of outstanding commands.
pub struct Commands {
    limit: usize,
    /// Busy slots whose command is answered.
    answered: usize,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// First slot of each chain; the length is a power of two.
    buckets: Vec<u16>,
    open_transfers: usize,
    open_bytes: u64,
}

impl Commands {
    /// A table for at most `limit` outstanding commands.
    #[must_use]
    pub fn new(limit: usize) -> Commands {
        let mut commands = Commands {
            limit: 0,
            answered: 0,
            slots: Vec::new(),
            free: Vec::new(),
            buckets: Vec::new(),
            open_transfers: 0,
            open_bytes: 0,
        };
        commands.set_limit(limit);
        commands
    }

    /// Raises the number of commands that may be outstanding; it is never lowered.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.clamp(self.limit, usize::from(NONE) - 1);
        self.buckets = vec![NONE; self.limit.next_power_of_two()];
        for index in 0..self.slots.len() {
            if self.slots[index].busy && !self.slots[index].answered {
                self.link(index);
            }
        }
    }

    /// Slots taken now.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Transfers whose bytes have not all come.
    #[must_use]
    pub fn open_transfers(&self) -> usize {
        self.open_transfers
    }

    /// Bytes that open transfers still wait for; a PDU counts when it has ended.
    #[must_use]
    pub fn open_bytes(&self) -> u64 {
        self.open_bytes
    }

    /// CONFORMANCE T-27, T-78. Slots whose answer is on its way are bounded by as many again.
    pub(crate) fn admit(&mut self, cid: u16, data: CommandData) -> Result<u16, AdmitError> {
        let busy = self.outstanding();
        if busy - self.answered >= self.limit || busy >= 2 * self.limit {
            return Err(AdmitError::TooMany);
        }
        if self.find(cid).is_some() {
            return Err(AdmitError::Duplicate);
        }
        let slot = Slot { cid, chain: NONE, busy: true, answered: false, data, transfer: None };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[usize::from(index)] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                u16::try_from(self.slots.len() - 1).unwrap_or(NONE)
            }
        };
        self.link(usize::from(index));
        Ok(index)
    }

    /// Gives a command id back to the host, which has its response before the sender of that response hears so.
    /// The slot stays taken until [`Commands::release`].
    pub fn answered(&mut self, slot: u16) {
        let index = usize::from(slot);
        if self.slots.get(index).is_some_and(|found| found.busy && !found.answered) {
            self.unlink(slot);
            self.slots[index].answered = true;
            self.answered += 1;
        }
    }

    /// Forgets a command whose completion has left; its slot and its command id are free again.
    pub fn release(&mut self, slot: u16) {
        let index = usize::from(slot);
        let Some(before) = self.slots.get(index).copied().filter(|found| found.busy) else {
            return;
        };
        if before.answered {
            self.answered -= 1;
        } else {
            self.unlink(slot);
        }
        let found = &mut self.slots[index];
        if let Some(transfer) = found.transfer.take().filter(|transfer| !transfer.is_complete()) {
            self.open_transfers -= 1;
            self.open_bytes -= u64::from(transfer.end - transfer.next);
        }
        found.busy = false;
        self.free.push(slot);
    }

    /// Command id in a slot.
    #[must_use]
    pub fn cid(&self, slot: u16) -> u16 {
        self.busy(slot).map_or(0, |found| found.cid)
    }

    /// How the data of the command in `slot` travels.
    #[must_use]
    pub fn data(&self, slot: u16) -> CommandData {
        self.busy(slot).map_or(CommandData::None, |found| found.data)
    }

    /// The transfer of a slot, if an R2T was sent for it.
    #[must_use]
    pub fn transfer(&self, slot: u16) -> Option<Transfer> {
        self.busy(slot).and_then(|found| found.transfer)
    }

    /// Whether an R2T of this slot is unsatisfied, so that it must not complete yet (CONFORMANCE T-33).
    #[must_use]
    pub fn is_receiving(&self, slot: u16) -> bool {
        self.transfer(slot).is_some_and(|transfer| !transfer.is_complete())
    }

    /// Notes that an R2T for the whole transfer of `slot` goes out now (CONFORMANCE T-31, T-32). Returns its
    /// length, or nothing when the command has no such data or asked before.
    pub fn open_transfer(&mut self, slot: u16) -> Option<u32> {
        let found = self.slots.get_mut(usize::from(slot)).filter(|found| found.busy)?;
        let CommandData::FromHost(length) = found.data else { return None };
        if found.transfer.is_some() || length == 0 {
            return None;
        }
        found.transfer = Some(Transfer { next: 0, end: length, damaged: false });
        self.open_transfers += 1;
        self.open_bytes += u64::from(length);
        Some(length)
    }

    /// Whether `ttag` could ever have been given out on this queue.
    pub(super) fn in_range(&self, ttag: u16) -> bool {
        usize::from(ttag) < self.limit
    }

    /// Slot of an outstanding command id.
    pub(super) fn find(&self, cid: u16) -> Option<u16> {
        let mut slot = self.buckets[self.bucket(cid)];
        while slot != NONE {
            let found = &self.slots[usize::from(slot)];
            if found.cid == cid {
                return Some(slot);
            }
            slot = found.chain;
        }
        None
    }

    /// Counts a piece of a transfer as received; true when it was the last one.
    pub(crate) fn advance(&mut self, slot: u16, length: u32, damaged: bool) -> bool {
        let Some(transfer) =
            self.slots.get_mut(usize::from(slot)).and_then(|found| found.transfer.as_mut())
        else {
            return false;
        };
        let length = length.min(transfer.end - transfer.next);
        transfer.next += length;
        self.open_bytes -= u64::from(length);
        transfer.damaged |= damaged;
        let complete = transfer.is_complete();
        if complete {
            self.open_transfers -= 1;
        }
        complete
    }

    fn busy(&self, slot: u16) -> Option<&Slot> {
        self.slots.get(usize::from(slot)).filter(|found| found.busy)
    }

    fn bucket(&self, cid: u16) -> usize {
        usize::from(cid) & (self.buckets.len() - 1)
    }

    fn link(&mut self, index: usize) {
        let bucket = self.bucket(self.slots[index].cid);
        self.slots[index].chain = self.buckets[bucket];
        self.buckets[bucket] = u16::try_from(index).unwrap_or(NONE);
    }

    fn unlink(&mut self, slot: u16) {
        let removed = self.slots[usize::from(slot)];
        let bucket = self.bucket(removed.cid);
        if self.buckets[bucket] == slot {
            self.buckets[bucket] = removed.chain;
            return;
        }
        let mut at = self.buckets[bucket];
        while at != NONE {
            let chain = self.slots[usize::from(at)].chain;
            if chain == slot {
                self.slots[usize::from(at)].chain = removed.chain;
                return;
            }
            at = chain;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn command_id_may_be_used_again_once_answered_though_its_slot_is_still_taken() {
        let mut commands = Commands::new(2);
        let first = commands.admit(7, CommandData::None).unwrap();
        assert_eq!(commands.admit(7, CommandData::None), Err(AdmitError::Duplicate));
        commands.answered(first);
        let second = commands.admit(7, CommandData::None).unwrap();
        assert_ne!(first, second);
        commands.release(first);
        assert_eq!(commands.find(7), Some(second));
        assert_eq!(commands.cid(second), 7);
    }

    #[test]
    fn slots_whose_answer_is_on_its_way_are_bounded_by_as_many_again() {
        let mut commands = Commands::new(2);
        for cid in 0..4 {
            let slot = commands.admit(cid, CommandData::None).unwrap();
            commands.answered(slot);
            commands.answered(slot);
        }
        assert_eq!(commands.admit(9, CommandData::None), Err(AdmitError::TooMany));
        commands.release(0);
        assert!(commands.admit(9, CommandData::None).is_ok());
    }

    #[test]
    fn answered_commands_leave_room_for_as_many_as_the_queue_is_deep() {
        let mut commands = Commands::new(2);
        let first = commands.admit(0, CommandData::None).unwrap();
        commands.admit(1, CommandData::None).unwrap();
        assert_eq!(commands.admit(2, CommandData::None), Err(AdmitError::TooMany));
        commands.answered(first);
        assert!(commands.admit(2, CommandData::None).is_ok());
        assert_eq!(commands.admit(3, CommandData::None), Err(AdmitError::TooMany));
    }

    #[test]
    fn raised_limit_keeps_answered_commands_out_of_the_way() {
        let mut commands = Commands::new(2);
        let slot = commands.admit(5, CommandData::None).unwrap();
        commands.answered(slot);
        commands.set_limit(64);
        assert_eq!(commands.find(5), None);
        commands.admit(5, CommandData::None).unwrap();
        commands.release(slot);
        assert!(commands.find(5).is_some());
    }
}
