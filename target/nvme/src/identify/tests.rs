//! The tables of CONFORMANCE 4.2 to 4.4 against the structures.

#![allow(clippy::unwrap_used)]

use zerocopy::{FromZeros, IntoBytes};

use super::*;

#[test]
fn descriptors_have_the_types_and_lengths_that_linux_parses() {
    let all = [
        Descriptor::Eui64([8; 8]),
        Descriptor::Nguid([2; 16]),
        Descriptor::Uuid([3; 16]),
        Descriptor::Csi(0),
    ];
    let list = DescriptorList::new(&all);
    let bytes = list.as_bytes();
    assert_eq!(bytes[0..4], [1, 8, 0, 0]);
    assert_eq!(bytes[12..16], [2, 16, 0, 0]);
    assert_eq!(bytes[32..36], [3, 16, 0, 0]);
    assert_eq!(bytes[52..58], [4, 1, 0, 0, 0, 0]);
    assert!(bytes[57..].iter().all(|byte| *byte == 0));
    assert_eq!(list.iter().collect::<Vec<_>>(), all);
}

#[test]
fn a_full_descriptor_list_still_ends_with_a_zero_length() {
    let list = DescriptorList::new(&[Descriptor::Uuid([9; 16]); 300]);
    assert_eq!(list.iter().count(), 4092 / 20);
    assert_eq!(list.as_bytes()[4092..], [0; 4]);
}

#[test]
fn unknown_descriptors_are_skipped_and_broken_ones_end_the_list() {
    let mut list = DescriptorList::new_zeroed();
    list.bytes[..9].copy_from_slice(&[77, 1, 0, 0, 5, 4, 1, 0, 0]);
    assert_eq!(list.iter().collect::<Vec<_>>(), [Descriptor::Csi(0)]);
    list.bytes[..4].copy_from_slice(&[3, 15, 0, 0]);
    assert_eq!(list.iter().next(), None);
}

#[test]
fn namespace_list_starts_after_the_given_nsid_and_ends_with_zero() {
    let list = NamespaceList::new(2, [1, 2, 3, 7]);
    assert_eq!(list.iter().collect::<Vec<_>>(), [3, 7]);
    let full = NamespaceList::new(0, 1..5000);
    assert_eq!(full.iter().last(), Some(1024));
}

#[test]
fn controller_list_counts_its_ids_and_includes_the_first_asked_for() {
    let list = ControllerList::new(5, [4, 5, 6]);
    assert_eq!(list.as_bytes()[..8], [2, 0, 5, 0, 6, 0, 0, 0]);
    assert_eq!(ControllerList::new(0, 1..=0xffef).count.get(), 2047);
}

#[test]
fn only_the_nvm_command_set_is_offered() {
    let vectors = CommandSetVectors::nvm_only();
    assert_eq!(vectors.as_bytes()[..9], [1, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/// Sets one field at a time and looks where the byte lands, by the offsets of CONFORMANCE 4.3.
#[test]
fn controller_fields_lie_where_the_host_checks_them() {
    let mut id = IdentifyController::new_zeroed();
    let mut expect = |offset: usize, set: fn(&mut IdentifyController)| {
        let before = id.clone();
        set(&mut id);
        let first = before.as_bytes().iter().zip(id.as_bytes()).position(|(a, b)| a != b);
        assert_eq!(first, Some(offset));
    };
    expect(76, |id| id.cmic = cmic::MULTI_PORT | cmic::MULTI_CONTROLLER | cmic::ANA);
    expect(77, |id| id.mdts = 8);
    expect(78, |id| id.cntlid.set(1));
    expect(96, |id| id.ctratt.set(ctratt::HOST_ID_128 | ctratt::TRAFFIC_BASED_KEEP_ALIVE));
    expect(111, |id| id.cntrltype = cntrltype::IO);
    expect(259, |id| id.aerl = 3);
    expect(261, |id| id.lpa = lpa::EFFECTS | lpa::EXTENDED_DATA);
    expect(320, |id| id.kas.set(10));
    expect(342, |id| id.anatt = 10);
    expect(348, |id| id.nanagrpid.set(1));
    expect(514, |id| id.maxcmd.set(1));
    expect(516, |id| id.nn.set(1));
    expect(525, |id| id.vwc = vwc::PRESENT | vwc::FLUSH_ALL_SUPPORTED);
    expect(536, |id| id.sgls.set(sgls::TCP));
    expect(540, |id| id.mnan.set(1));
    expect(768, |id| id.subnqn[0] = b'n');
    expect(1792, |id| id.ioccsz.set(4));
    expect(2048, |id| id.psd[0].mp.set(0x09c4));
    assert_eq!((id.cmic, id.vwc), (0x0b, 0x07));
}

#[test]
fn thin_namespace_bits_are_those_of_the_table() {
    assert_eq!(dlfeat::READS_ZERO | dlfeat::WRITE_ZEROES_DEALLOCATE, 0x09);
    assert_eq!(nsfeat::THIN | nsfeat::ATOMICS | nsfeat::OPTIMAL_IO, 0x13);
    assert_eq!(oaes::NAMESPACE_ATTRIBUTE | oaes::ANA_CHANGE, 0x900);
}
