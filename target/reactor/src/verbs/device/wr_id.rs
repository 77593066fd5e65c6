//! The 64 bits that come back with a completion: what kind of request it was, and where it is
//! kept. The generation tells a queue pair from its predecessor in the same slot.
//!
//! | bits | requests of a queue pair | receives |
//! |---|---|---|
//! | 0 to 15 | index of the work | slot, 32 bits |
//! | 16 to 31 | slot of the queue pair | |
//! | 32 to 55 | generation of the queue pair | zero |
//! | 56 to 63 | kind | kind |

/// What a completion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::verbs) enum Completed {
    /// A message was received into this slot.
    Receive { slot: u32 },
    /// A work ended, or (`is_write`) failed in its first part and ends later.
    Work { pair: PairName, work: u16, is_write: bool },
    /// No number of ours.
    Unknown,
}

/// One queue pair of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::verbs) struct PairName {
    pub(in crate::verbs) slot: u16,
    /// 24 bits.
    pub(in crate::verbs) generation: u32,
}

const RECEIVE: u64 = 1;
const WORK: u64 = 2;
const WRITE: u64 = 3;

const GENERATION: u32 = (1 << 24) - 1;

pub(in crate::verbs) fn receive(slot: u32) -> u64 {
    RECEIVE << 56 | u64::from(slot)
}

/// The number of a work's last request, or (`is_write`) of the WRITE before it.
pub(in crate::verbs) fn work(pair: PairName, work: u16, is_write: bool) -> u64 {
    let kind = if is_write { WRITE } else { WORK };
    kind << 56
        | u64::from(pair.generation & GENERATION) << 32
        | u64::from(pair.slot) << 16
        | u64::from(work)
}

#[allow(clippy::cast_possible_truncation, reason = "takes the number apart")]
pub(in crate::verbs) fn slot(wr_id: u64) -> u32 {
    wr_id as u32
}

#[allow(clippy::cast_possible_truncation, reason = "takes the number apart")]
pub(in crate::verbs) fn parse(wr_id: u64) -> Completed {
    let pair =
        PairName { slot: (wr_id >> 16) as u16, generation: (wr_id >> 32) as u32 & GENERATION };
    match wr_id >> 56 {
        RECEIVE => Completed::Receive { slot: slot(wr_id) },
        WORK => Completed::Work { pair, work: wr_id as u16, is_write: false },
        WRITE => Completed::Work { pair, work: wr_id as u16, is_write: true },
        _ => Completed::Unknown,
    }
}

/// The generation after this one.
pub(in crate::verbs) fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1) & GENERATION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_a_number_comes_out_again() {
        let pair = PairName { slot: 65_535, generation: GENERATION };
        for (index, is_write) in [(0, false), (65_535, true)] {
            let parsed = parse(work(pair, index, is_write));
            assert_eq!(parsed, Completed::Work { pair, work: index, is_write });
        }
        assert_eq!(parse(receive(123_456)), Completed::Receive { slot: 123_456 });
        assert_eq!(parse(0), Completed::Unknown);
    }
}
