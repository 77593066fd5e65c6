//! What the hosts may still see of one block: the check for linearizability.
//!
//! A possibility is: the value that the block has, which writes have taken effect, and what the
//! read under way has found. All possibilities are kept, as bits of one word. A write may take
//! effect at any time after a host sent it, once; the read at any time between its start and its
//! answer. An acknowledgement strikes out every possibility in which the write has had no effect,
//! an answer every one in which the read found something else. When none is left, a host has seen
//! what no single copy of the data could have shown.

/// Writes in a world, at most.
pub const WRITES: usize = 2;
/// A value is the number of the write it came from, plus one; 0 is what was there before any.
const VALUES: u32 = 3;
const EFFECTS: u32 = 4;
/// 0: the read has found nothing yet; else the value plus one.
const FOUND: u32 = VALUES + 1;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ghost {
    possible: u64,
    /// Writes that a host has sent, by bit.
    sent: u8,
    reading: bool,
}

impl Default for Ghost {
    fn default() -> Self {
        Self { possible: bit(0, 0, 0), sent: 0, reading: false }
    }
}

fn bit(value: u32, effects: u32, found: u32) -> u64 {
    1 << ((found * EFFECTS + effects) * VALUES + value)
}

fn all() -> impl Iterator<Item = (u32, u32, u32)> {
    (0..FOUND).flat_map(|found| {
        (0..EFFECTS).flat_map(move |effects| (0..VALUES).map(move |value| (value, effects, found)))
    })
}

impl Ghost {
    /// Whether any history of a single copy explains what hosts saw.
    pub fn explained(self) -> bool {
        self.possible != 0
    }

    /// A host sends write `n`, which leaves `value`.
    pub fn send(&mut self, n: u8, values: [u8; WRITES]) {
        self.sent |= 1 << n;
        self.close(values);
    }

    /// The host is told that write `n` was done.
    pub fn acknowledge(&mut self, n: u8) {
        self.keep(|_, effects, _| effects >> n & 1 == 1);
    }

    pub fn start_read(&mut self, values: [u8; WRITES]) {
        self.reading = true;
        self.close(values);
    }

    /// The host is given `value`.
    pub fn answer_read(&mut self, value: u8) {
        self.keep(|_, _, found| found == u32::from(value) + 1);
        self.forget_read();
    }

    /// A read that starts and is given `value` in one moment.
    pub fn read_now(&mut self, value: u8) {
        self.keep(|now, _, _| now == u32::from(value));
    }

    /// The read ended with no answer, or with one that is no longer of interest.
    pub fn forget_read(&mut self) {
        self.reading = false;
        let before = self.possible;
        self.possible = all()
            .filter(|(value, effects, found)| before & bit(*value, *effects, *found) != 0)
            .fold(0, |possible, (value, effects, _)| possible | bit(value, effects, 0));
    }

    fn keep(&mut self, wanted: impl Fn(u32, u32, u32) -> bool) {
        for (value, effects, found) in all() {
            if !wanted(value, effects, found) {
                self.possible &= !bit(value, effects, found);
            }
        }
    }

    /// Adds what may have happened by itself.
    fn close(&mut self, values: [u8; WRITES]) {
        loop {
            let before = self.possible;
            for (value, effects, found) in all() {
                if before & bit(value, effects, found) == 0 {
                    continue;
                }
                for (n, left) in (0_u32..).zip(values) {
                    if self.sent >> n & 1 == 1 && effects >> n & 1 == 0 {
                        self.possible |= bit(u32::from(left), effects | 1 << n, found);
                    }
                }
                if self.reading && found == 0 {
                    self.possible |= bit(value, effects, value + 1);
                }
            }
            if self.possible == before {
                return;
            }
        }
    }
}
