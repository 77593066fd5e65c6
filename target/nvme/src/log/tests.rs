//! The tables of CONFORMANCE 4.5, 4.7 and 6.3 against the structures.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::*;
use crate::status::Status;

fn ana_log(groups: &[(u32, AnaState, &[u32])]) -> Vec<u8> {
    let count = u16::try_from(groups.len()).unwrap();
    let mut log = AnaHeader::new(9, count).as_bytes().to_vec();
    for (grpid, state, nsids) in groups {
        let nnsids = u32::try_from(nsids.len()).unwrap();
        log.extend(AnaGroup::new(*grpid, nnsids, 4, *state).as_bytes());
        nsids.iter().for_each(|nsid| log.extend(U32::new(*nsid).as_bytes()));
    }
    log
}

#[test]
fn ana_log_reads_back_group_by_group() {
    let groups: [(u32, AnaState, &[u32]); 3] = [
        (1, AnaState::Optimized, &[1, 3]),
        (2, AnaState::Change, &[]),
        (3, AnaState::Inaccessible, &[2]),
    ];
    let log = ana_log(&groups);
    assert_eq!(log.len(), 16 + 3 * 32 + 3 * 4);
    assert_eq!(u64::try_from(log.len()).unwrap(), ana::log_bytes_max(3, 3));
    let read: Vec<_> = ana::groups(&log)
        .map(|(group, nsids)| {
            let nsids: Vec<u32> = nsids.iter().map(|nsid| nsid.get()).collect();
            (group.grpid.get(), AnaState::from_byte(group.state).unwrap(), nsids)
        })
        .collect();
    let expected: Vec<_> =
        groups.iter().map(|(id, state, nsids)| (*id, *state, nsids.to_vec())).collect();
    assert_eq!(read, expected);
}

#[test]
fn every_ana_state_is_answered_with_its_path_status_and_no_dnr() {
    let table = [
        (0x1, Ok(())),
        (0x2, Ok(())),
        (0x3, Err(Status::ANA_INACCESSIBLE)),
        (0x4, Err(Status::ANA_PERSISTENT_LOSS)),
        (0xf, Err(Status::ANA_TRANSITION)),
    ];
    for (byte, answer) in table {
        assert_eq!(AnaState::from_byte(byte).unwrap().check(), answer);
        assert_eq!(AnaState::from_byte(byte).unwrap() as u8, byte);
        assert!(answer.is_ok() || !answer.unwrap_err().is_dnr());
    }
    let known = (0..16).filter_map(AnaState::from_byte).count();
    assert_eq!(known, table.len());
}

#[test]
fn changed_namespaces_overflow_into_a_single_mark() {
    assert_eq!(
        ChangedNamespaces::new([2, 5]).as_bytes()[..12],
        [2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]
    );
    let full = ChangedNamespaces::new(1..=1024);
    assert_eq!((full.nsids[0].get(), full.nsids[1023].get()), (1, 1024));
    let over = ChangedNamespaces::new(1..=1025);
    assert_eq!(over.nsids[0].get(), u32::MAX);
    assert!(over.nsids[1..].iter().all(|nsid| nsid.get() == 0));
}

#[test]
fn discovery_header_is_read_by_its_first_twenty_bytes() {
    let header = DiscoveryHeader::new(0x0102, 3);
    assert_eq!(header.as_bytes()[..10], [2, 1, 0, 0, 0, 0, 0, 0, 3, 0]);
    assert!(header.as_bytes()[10..].iter().all(|byte| *byte == 0));
}

#[test]
fn rdma_attributes_say_reliable_connections_by_the_connection_manager_d_3() {
    let bytes = RdmaTsas::connected().to_bytes();
    assert_eq!(bytes[..3], [1, 1, 1]);
    assert!(bytes[3..].iter().all(|byte| *byte == 0));
    let mut keyed = RdmaTsas::connected();
    keyed.pkey = 0x0102.into();
    assert_eq!(keyed.to_bytes()[8..10], [2, 1]);
}

proptest! {
    #[test]
    fn no_bytes_make_the_ana_reader_run_past_them(log in prop::collection::vec(any::<u8>(), 0..400)) {
        let words: usize = ana::groups(&log).map(|(_, nsids)| 8 + nsids.len()).sum();
        prop_assert!(words * 4 <= log.len());
    }
}
