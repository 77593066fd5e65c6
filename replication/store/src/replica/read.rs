//! Reads: blocks that hold no data are zeroes and cost no I/O.

use afs_env::{BufferMut, Disk};

use super::pin::ReadPin;
use super::{Piece, Replica};
use crate::error::StoreError;
use crate::format::BLOCK;

impl<D: Disk> Replica<D> {
    /// Fills the whole buffer (1 or more blocks) from block `lba` on. On an error its contents are
    /// unspecified.
    pub async fn read(&self, lba: u64, buffer: BufferMut) -> (BufferMut, Result<(), StoreError>) {
        let piece = Self::blocks_of(buffer.len()).and_then(|blocks| {
            self.check(lba, blocks)?;
            Ok((self.piece(lba, blocks)?, blocks))
        });
        match piece {
            Err(error) => (buffer, Err(error)),
            Ok((piece, blocks)) if u64::from(piece.count) == blocks => {
                self.read_piece(piece, buffer).await
            }
            Ok(_) => Box::pin(self.read_pieces(lba, buffer)).await,
        }
    }

    /// A range over several chunks: one read after the other into parts of one buffer.
    async fn read_pieces(
        &self,
        lba: u64,
        mut rest: BufferMut,
    ) -> (BufferMut, Result<(), StoreError>) {
        let mut futures = Vec::new();
        let mut at = lba;
        while !rest.is_empty() {
            let Ok(piece) = self.piece(at, (rest.len() / BLOCK) as u64) else { break };
            at += u64::from(piece.count);
            let part = rest.split_to(piece.bytes());
            futures.push(self.read_piece(piece, part));
        }
        let mut result = Ok(());
        let mut whole: Option<BufferMut> = None;
        for (part, outcome) in futures_util::future::join_all(futures).await {
            result = result.and(outcome);
            whole = Some(match whole {
                None => part,
                Some(mut whole) => {
                    if whole.unsplit(part).is_err() {
                        result = Err(StoreError::OutOfRange);
                    }
                    whole
                }
            });
        }
        (whole.unwrap_or(rest), result)
    }

    async fn read_piece(
        &self,
        piece: Piece,
        buffer: BufferMut,
    ) -> (BufferMut, Result<(), StoreError>) {
        let pin = ReadPin::take(&self.shared, &self.layer, piece.index);
        self.read_pinned(pin, piece, buffer).await
    }

    /// Reads a piece of a chunk that was pinned, if there is one.
    pub(super) async fn read_pinned(
        &self,
        pin: Option<ReadPin<'_>>,
        piece: Piece,
        mut buffer: BufferMut,
    ) -> (BufferMut, Result<(), StoreError>) {
        let mask = piece.mask();
        let Some(pin) = pin else {
            buffer.fill(0);
            return (buffer, Ok(()));
        };
        let data = pin.data & mask;
        if data == 0 {
            buffer.fill(0);
            return (buffer, Ok(()));
        }
        let (mut buffer, result) = self.disk.read(self.offset(pin.chunk, piece), buffer).await;
        if data != mask {
            // What lies in blocks that hold no data may be another tenant's.
            for (number, block) in (piece.first..).zip(buffer.chunks_mut(BLOCK)) {
                if data >> number & 1 == 0 {
                    block.fill(0);
                }
            }
        }
        (buffer, result.map_err(StoreError::from))
    }

    /// Reads the range from the disk and throws it away: finds media errors.
    pub async fn verify(&self, lba: u64, blocks: u64) -> Result<(), StoreError> {
        self.check(lba, blocks)?;
        let (mut at, end) = (lba, lba + blocks);
        while at < end {
            let piece = self.piece(at, end - at)?;
            at += u64::from(piece.count);
            let buffer = self.disk.pool().alloc(piece.bytes()).await;
            self.read_piece(piece, buffer).await.1?;
        }
        Ok(())
    }
}
