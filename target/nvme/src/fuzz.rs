//! A way in for fuzzers: any bytes in, no panic. `tests/corpus` is replayed by the tests.

use zerocopy::{FromBytes, IntoBytes};

use crate::command::{AdminCommand, DsmRange, FabricsCommand, IoCommand, parse_any};
use crate::fabrics::ConnectData;
use crate::identify::DescriptorList;
use crate::log::ana;
use crate::rdma::{AcceptData, RejectData, Request, RequestLimits};
use crate::sqe::Sqe;

/// Reads the bytes as private data of an RDMA connection; the first 64 as a command of every kind, and what follows as
/// every kind of data that a host or a controller sends.
///
/// # Panics
/// When a command that was understood is another one after it was written and read again.
pub fn fuzz_commands(bytes: &[u8]) {
    private_data(bytes);
    let Some(command) = parse_any(bytes) else { return };
    let Ok((sqe, data)) = Sqe::ref_from_prefix(bytes) else { return };
    if let Ok(descriptor) = sqe.sgl.parse() {
        assert_eq!(descriptor.to_sgl().parse(), Ok(descriptor));
    }
    if let Ok(admin) = command.admin {
        assert_eq!(AdminCommand::parse(&admin.to_sqe(sqe.nsid())), Ok(admin));
    }
    if let Ok(io) = command.io {
        assert_eq!(IoCommand::parse(&io.to_sqe(sqe.nsid())), Ok(io));
        if let IoCommand::DatasetManagement { ranges, .. } = io {
            ranges_are_as_many_as_asked(data, ranges);
        }
    }
    if let Ok(fabrics) = command.fabrics {
        assert_eq!(FabricsCommand::parse(&fabrics.to_sqe()), Ok(fabrics));
    }
    if let Ok((connect, _)) = ConnectData::ref_from_prefix(data) {
        let names = [connect.subnqn(), connect.hostnqn()];
        assert!(names.iter().flatten().all(|name| (1..=223).contains(&name.as_str().len())));
    }
    if let Ok((list, _)) = DescriptorList::ref_from_prefix(data) {
        assert!(list.iter().count() <= data.len());
    }
    assert!(ana::groups(data).map(|(_, nsids)| nsids.len()).sum::<usize>() <= data.len() / 4);
}

fn private_data(bytes: &[u8]) {
    let limits = RequestLimits { qid_max: 128, hsqsize_max: 1023 };
    if let Ok(request) = Request::parse(bytes, &limits) {
        assert_eq!(Request::parse(request.to_data().as_bytes(), &limits), Ok(request));
    }
    if let Ok(entries) = AcceptData::parse(bytes) {
        assert_eq!(AcceptData::parse(AcceptData::new(entries).as_bytes()), Ok(entries));
    }
    if let Ok(status) = RejectData::parse(bytes) {
        assert_eq!(RejectData::parse(RejectData::new(status).as_bytes()), Ok(status));
    }
}

fn ranges_are_as_many_as_asked(data: &[u8], ranges: u16) {
    if let Ok(list) = DsmRange::list(data, ranges) {
        assert_eq!(list.len(), usize::from(ranges));
        for range in list {
            assert!(range.within(1 << 20).is_err() || range.lba.get() <= 1 << 20);
        }
    }
}
