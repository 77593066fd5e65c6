//! The label: read from memory, written through the journal.

use afs_env::Disk;

use super::Replica;
use crate::error::StoreError;
use crate::journal::record::Record;
use crate::label::Label;
use crate::mutant::{Mutant, planted};
use crate::state::LIVE;
use crate::waiters::Key;

impl<D: Disk> Replica<D> {
    /// The label that is durable; all zeroes until the first [`Replica::set_label`].
    pub fn label(&self) -> Label {
        *self.layer.label.lock()
    }

    /// Replaces the label. Durable when it returns; until then, and if it fails or is dropped, a
    /// crash leaves the old or the new one. Of two that run side by side the one whose record
    /// came into the journal later stays; callers that care wait for one before the next.
    ///
    /// # Errors
    /// `Deleted` or `Stopped`.
    pub async fn set_label(&self, label: Label) -> Result<(), StoreError> {
        let staged = self.shared.wait(|meta| {
            if meta.closing {
                return Ok(Err(StoreError::Stopped));
            }
            if self.layer.state() != LIVE {
                return Ok(Err(StoreError::Deleted));
            }
            let (replica, layer) = (self.layer.replica, self.layer.id);
            let record = Record::Label { replica, layer, label };
            self.shared.append(meta, &record, &[]).map(Ok).ok_or(Key::JournalRoom)
        });
        let sequence = staged.await??;
        if planted(Mutant::AcknowledgeLabelEarly) {
            return Ok(());
        }
        self.shared.wait_durable(sequence).await
    }
}
