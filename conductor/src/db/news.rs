//! What decisions changed, for the [`Plan`](super::plan::Plan) that is kept in memory.
//!
//! Invariant: once a decision has given back its turn, what it changed is here, or the news are known to be incomplete. So who
//! holds the turn and takes the news knows all that MetaDB knows.

use afs_decisions::VolumeConfig;
use uuid::Uuid;

use super::rows::VolumeRow;

/// More is not worth keeping: the plan is read anew.
const TOUCHES_MAX: usize = 1 << 16;

/// A change of one volume.
#[derive(Clone, Debug)]
pub(super) enum Touch {
    /// It is like this from now on.
    Put {
        config: VolumeConfig,
        /// What else there is to say of it, if that is new.
        row: Option<VolumeRow>,
        /// The disks of replicas that are new.
        disks: Vec<(Uuid, Uuid)>,
    },
    /// It is gone, and its replicas are retired.
    Deleted(Uuid),
    /// A retired replica is gone.
    Forgotten(Uuid),
}

/// A touch, and the revision with which nodes learn of it. What leaders ask for concerns nobody else.
pub(super) type Touched = (Touch, Option<u64>);

/// What has changed since the plan took the news.
#[derive(Debug)]
pub(super) struct News {
    /// Volumes, in the order of the decisions.
    pub(super) touched: Vec<Touched>,
    /// Anything else: nodes, disks, listeners, what is exported to whom.
    pub(super) commons: bool,
    /// Something changed that is not in here.
    pub(super) incomplete: bool,
    /// The revision after the last of them.
    pub(super) revision: u64,
    /// The last event of them. A later one is that of a decision that is not in here.
    last_event: u64,
}

impl News {
    /// No news after this revision and event.
    pub(super) fn new(revision: u64, last_event: u64) -> Self {
        let (touched, commons, incomplete) = (Vec::new(), false, false);
        Self { touched, commons, incomplete, revision, last_event }
    }

    /// A decision was made, after that of `base_event`.
    pub(super) fn add(
        &mut self,
        base_event: u64,
        (revision, last_event): (u64, u64),
        Changes { touches, commons, moved }: Changes,
    ) {
        // In between is a decision whose COMMIT was not answered; what is lost was in a MetaDB that an older copy has replaced.
        self.incomplete |= base_event != self.last_event;
        self.incomplete |= self.touched.len() + touches.len() > TOUCHES_MAX;
        if self.incomplete {
            self.touched = Vec::new();
        } else {
            let at = moved.then_some(revision);
            self.touched.extend(touches.into_iter().map(|touch| (touch, at)));
        }
        self.commons |= commons;
        self.revision = self.revision.max(revision);
        self.last_event = self.last_event.max(last_event);
    }

    /// Whether there are none, also none about to come, up to this event.
    pub(super) fn are_none(&self, last_event: u64) -> bool {
        let nothing = self.touched.is_empty() && !self.commons && !self.incomplete;
        nothing && last_event <= self.last_event
    }

    /// Takes those up to an event, if that is the last one and they are all here.
    pub(super) fn take_through(&mut self, last_event: u64) -> Option<Self> {
        (self.last_event == last_event).then(|| self.take())
    }

    /// Takes them when no more can come up to this event: what is missing will always be.
    pub(super) fn take_all(&mut self, last_event: u64) -> Self {
        self.incomplete |= self.last_event != last_event;
        self.last_event = last_event;
        self.take()
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(self.revision, self.last_event))
    }
}

/// What one decision changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) touches: Vec<Touch>,
    pub(super) commons: bool,
    /// Nodes are to learn of it.
    pub(super) moved: bool,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn deleted(volume: u128, moved: bool) -> Changes {
        let touches = vec![Touch::Deleted(Uuid::from_u128(volume))];
        Changes { touches, moved, ..Changes::default() }
    }

    #[test]
    fn news_are_complete_unless_an_event_or_too_much_is_missing() {
        let mut news = News::new(7, 100);
        news.add(100, (8, 101), deleted(1, true));
        news.add(101, (8, 102), deleted(2, false));
        assert!(!news.are_none(102));
        assert!(news.take_through(101).is_none(), "there are newer ones");
        let taken = news.take_through(102).unwrap();
        assert!(!taken.incomplete && !taken.commons && news.are_none(102));
        let at: Vec<Option<u64>> = taken.touched.iter().map(|(_, at)| *at).collect();
        assert_eq!((at, taken.revision), (vec![Some(8), None], 8));

        // Seen in MetaDB before it is here.
        assert!(!news.are_none(103) && news.take_through(103).is_none());
        news.add(102, (8, 103), deleted(3, false));
        assert!(!news.take_through(103).unwrap().incomplete);

        // Nothing came of which there is an event.
        assert!(news.take_all(104).incomplete);
        assert!(news.are_none(104));
        news.add(105, (9, 106), deleted(4, true));
        let taken = news.take_all(106);
        assert!(taken.incomplete && taken.touched.is_empty());
        assert!(!news.take_all(106).incomplete, "it is read anew once");

        let many = Changes {
            touches: vec![Touch::Forgotten(Uuid::nil()); TOUCHES_MAX],
            ..deleted(5, true)
        };
        news.add(106, (10, 107), many);
        assert!(!news.take_all(107).incomplete);
        for event in 107..=108 {
            let half = vec![Touch::Forgotten(Uuid::nil()); TOUCHES_MAX / 2 + 1];
            news.add(event, (10, event + 1), Changes { touches: half, ..Changes::default() });
        }
        assert!(news.take_all(109).incomplete);
    }
}
