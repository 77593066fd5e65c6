//! Dataset Management with the deallocate attribute (CONFORMANCE 5.1, T-24).

use super::{Target, in_range, write_status};
use afs_fabric::Request;
use afs_nvme::Status;
use afs_nvme::command::DsmRange;

impl Target<'_> {
    /// Deallocates the `ranges` that the data of the command lists; returns how many blocks they covered.
    ///
    /// Every range is checked before the first is acted on. The kernel always sends 4096 bytes, whatever NR says, so only
    /// the ranges that NR names count. Without the attribute the command is a hint and does nothing.
    pub(super) async fn dataset_management(
        &self,
        ranges: u16,
        deallocate: bool,
        request: &mut Request,
    ) -> Result<u64, Status> {
        if (request.data_len() as usize) < usize::from(ranges) * size_of::<DsmRange>() {
            return Err(Status::DATA_SGL_LENGTH_INVALID.dnr());
        }
        let data = request.receive().await.map_err(|error| error.status())?;
        let ranges = DsmRange::list(&data, ranges)?;
        let mut blocks = 0;
        for range in ranges {
            in_range(self.namespace, range.lba.get(), range.blocks.get().into())?;
            blocks += u64::from(range.blocks.get());
        }
        if !deallocate {
            return Ok(0);
        }
        for range in ranges.iter().filter(|range| range.blocks.get() > 0) {
            let (lba, blocks) = (range.lba.get(), range.blocks.get().into());
            let _held = self.hold(lba, blocks, request).await?;
            self.backend
                .deallocate(lba, blocks, &self.gone(request))
                .await
                .map_err(write_status)?;
        }
        Ok(blocks)
    }
}
