//! One conductor and nobody to agree with.

use std::sync::Arc;

use crate::board::{Board, Conductors, Link, Role, set};

/// A conductor that stands is active at once, and for ever.
#[derive(Debug)]
pub struct Embedded {
    board: Board,
}

impl Default for Embedded {
    fn default() -> Self {
        Self { board: Board::new(Link::NotUsed) }
    }
}

impl Embedded {
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// Lets what is wanted be so.
    pub(crate) fn settle(&self) {
        let candidate = self.board.candidate.borrow().clone();
        let records: Vec<_> = candidate.into_iter().map(|candidate| candidate.record).collect();
        if !records.is_empty() {
            self.board.set_role(Role::Active);
        }
        set(&self.board.conductors, Conductors(Arc::new(records)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConductorRecord, Coordination};

    #[test]
    fn who_stands_is_active_whatever_happens() {
        let coordination = Coordination::Embedded(Embedded::default());
        assert_eq!(*coordination.role().borrow(), Role::Lost);
        let record = ConductorRecord {
            api: "http://127.0.0.1:1".to_owned(),
            host: String::new(),
            software: String::new(),
            token: None,
        };
        coordination.stand(record);
        assert_eq!(*coordination.role().borrow(), Role::Active);
        assert_eq!(coordination.conductors().borrow().active(), None);
        coordination.took_over(7);
        let token = coordination.conductors().borrow().active().and_then(|active| active.token);
        assert_eq!(token, Some(7));
        coordination.stand_aside();
        assert_eq!(*coordination.role().borrow(), Role::Active);
        assert_eq!(*coordination.link().borrow(), Link::NotUsed);
    }
}
