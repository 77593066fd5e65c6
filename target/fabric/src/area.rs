//! The receive area of a connection: bytes that were received and not yet looked at. Used by both ends.

/// A bounded window over the stream. Small PDUs and in-capsule data are parsed out of it.
pub(crate) struct ReceiveArea {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl ReceiveArea {
    pub(crate) fn new(len: usize) -> ReceiveArea {
        ReceiveArea { bytes: vec![0; len].into(), start: 0, end: 0 }
    }

    /// Makes the area larger; what is in it stays.
    pub(crate) fn grow(&mut self, len: usize) {
        if len <= self.bytes.len() {
            return;
        }
        let mut larger = vec![0; len].into_boxed_slice();
        let kept = self.end - self.start;
        larger[..kept].copy_from_slice(&self.bytes[self.start..self.end]);
        *self = ReceiveArea { bytes: larger, start: 0, end: kept };
    }

    /// The bytes not yet consumed.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets the first `count` bytes, or all that there are.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Makes sure that `need` bytes from the first unread one fit, by moving them to the front.
    pub(crate) fn make_room(&mut self, need: usize) {
        if self.start + need > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Free space behind the unread bytes, at most `limit` of it.
    pub(crate) fn spare(&mut self, limit: usize) -> &mut [u8] {
        let end = self.bytes.len().min(self.end.saturating_add(limit));
        &mut self.bytes[self.end..end]
    }

    /// Counts the first `count` bytes of the free space as received.
    pub(crate) fn received(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_forgotten_also_behind_bytes_that_were_consumed() {
        let mut area = ReceiveArea::new(10);
        area.received(8);
        area.consume(3);
        area.consume(usize::MAX);
        assert!(area.is_empty());
        assert_eq!(area.spare(usize::MAX).len(), 10);
    }

    #[test]
    fn a_cut_pdu_moves_to_the_front_when_it_does_not_fit() {
        let mut area = ReceiveArea::new(10);
        area.spare(usize::MAX).copy_from_slice(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        area.received(10);
        area.consume(7);
        area.make_room(3);
        assert!(area.spare(usize::MAX).is_empty());
        area.make_room(4);
        assert_eq!(area.unread(), [7, 8, 9]);
        assert_eq!(area.spare(usize::MAX).len(), 7);
        assert_eq!(area.spare(2).len(), 2);
        area.grow(20);
        assert_eq!(area.unread(), [7, 8, 9]);
        area.consume(3);
        assert!(area.is_empty());
        assert_eq!(area.spare(usize::MAX).len(), 20);
    }
}
