//! Randomness: identifiers, jitter, salts.

/// A source of random bytes.
pub trait Random: Clone + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// A number of which every value is equally likely.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The operating system's generator: unpredictable, fit for identifiers and keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    /// # Panics
    /// If the system has no randomness to give, which on Linux happens only in a process that is
    /// forbidden to ask. There is no safe way to go on with predictable identifiers.
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            panic!("the operating system gives no random bytes: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(OsRandom.next_u64(), OsRandom.next_u64());
    }
}
