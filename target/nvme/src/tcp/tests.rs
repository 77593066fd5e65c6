//! The tables of CONFORMANCE 1.1 and 1.7 against the constants.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;

const TYPES: [PduType; 9] = [
    PduType::IcReq,
    PduType::IcResp,
    PduType::H2cTermReq,
    PduType::C2hTermReq,
    PduType::CapsuleCmd,
    PduType::CapsuleResp,
    PduType::H2cData,
    PduType::C2hData,
    PduType::R2t,
];

#[test]
fn types_have_the_header_length_and_direction_of_the_table() {
    let table = [
        (0x00, 128, true),
        (0x01, 128, false),
        (0x02, 24, true),
        (0x03, 24, false),
        (0x04, 72, true),
        (0x05, 24, false),
        (0x06, 24, true),
        (0x07, 24, false),
        (0x09, 24, false),
    ];
    for (pdu_type, (byte, hlen, from_host)) in TYPES.into_iter().zip(table) {
        assert_eq!(PduType::from_byte(byte), Some(pdu_type));
        assert_eq!(pdu_type as u8, byte);
        assert_eq!((pdu_type.hlen(), pdu_type.is_from_host()), (hlen, from_host));
        assert_eq!(pdu_type.is_without_digest(), byte < 4);
        assert_eq!(pdu_type.may_have_data(), [4, 6, 7].contains(&byte));
    }
    assert_eq!((0..=255).filter_map(PduType::from_byte).count(), TYPES.len());
}

#[test]
fn largest_plen_is_bounded_before_anything_is_allocated() {
    assert_eq!(PduType::IcReq.plen_max(1 << 20), 128);
    assert_eq!(PduType::H2cTermReq.plen_max(1 << 20), 152);
    assert_eq!(PduType::CapsuleResp.plen_max(1 << 20), 28);
    assert_eq!(PduType::R2t.plen_max(1 << 20), 28);
    assert_eq!(PduType::CapsuleCmd.plen_max(16384), 72 + 4 + 128 + 16384 + 4);
    assert_eq!(PduType::CapsuleCmd.plen_max(4096), 72 + 4 + 128 + 8192 + 4);
    assert_eq!(PduType::H2cData.plen_max(131_072), 24 + 4 + 128 + 131_072 + 4);
    assert_eq!(PduType::C2hData.plen_max(u32::MAX), u32::MAX);
}

#[test]
fn flags_and_error_codes_are_those_of_the_table() {
    use super::flags::*;
    assert_eq!([HEADER_DIGEST, DATA_DIGEST, LAST, SUCCESS], [1, 2, 4, 8]);
    for code in 0..=u16::MAX {
        let known = (1..=6).contains(&code);
        assert_eq!(Fes::from_code(code).map(|fes| fes as u16), known.then_some(code));
    }
}

#[test]
fn ic_exchange_has_the_bytes_that_linux_expects() {
    let request = IcReq::new(DGST_HEADER | DGST_DATA);
    assert_eq!(request.as_bytes()[..16], [0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]);
    let response = IcResp::new(0xff, 0x20000);
    assert_eq!(response.as_bytes()[..16], [1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 3, 0, 0, 2, 0]);
    assert!(response.as_bytes()[16..].iter().all(|byte| *byte == 0));
}

#[test]
fn term_request_names_the_field_and_bounds_its_copy() {
    let term = TermReq::new(PduType::C2hTermReq, Fes::InvalidHeaderField, 0x0403_0201, 24);
    let start = [3, 0, 24, 0, 48, 0, 0, 0, 1, 0, 1, 2, 3, 4];
    assert_eq!(term.as_bytes()[..14], start);
    let longest = TermReq::new(PduType::C2hTermReq, Fes::PduSequence, 0, u32::MAX);
    assert_eq!(longest.header.plen(), PduType::C2hTermReq.plen_max(0));
}

#[test]
fn has_wants_all_of_the_flags() {
    let header = CommonHeader::new(PduType::C2hData, flags::LAST, 24, 24);
    assert!(header.has(flags::LAST));
    assert!(!header.has(flags::LAST | flags::SUCCESS));
}

proptest! {
    #[test]
    fn any_eight_bytes_are_a_header_that_gives_its_fields_back(bytes: [u8; 8]) {
        let header: CommonHeader = zerocopy::transmute!(bytes);
        let [pdu_type, flags, hlen, pdo, plen @ ..] = bytes;
        prop_assert_eq!((header.flags, header.hlen, header.pdo), (flags, hlen, pdo));
        prop_assert_eq!(header.plen(), u32::from_le_bytes(plen));
        prop_assert_eq!(header.pdu_type().is_some(), pdu_type < 10 && pdu_type != 8);
    }
}
