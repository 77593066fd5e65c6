//! Parsers against the tables of CONFORMANCE, and against whatever 64 bytes there are.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::feature::Select;
use crate::opcode;
use crate::property::PropertySize;
use crate::sqe::Transfer;

const REFUSED: Status = Status::INVALID_FIELD.dnr();

#[test]
fn fused_and_prp_commands_are_refused() {
    for flags in 0..=255u8 {
        let sqe = Sqe { flags, ..Sqe::new(opcode::io::READ) };
        let good = flags & 0b11 == 0 && flags >> 6 == 1;
        assert_eq!(check_flags(&sqe), if good { Ok(()) } else { Err(REFUSED) });
    }
}

#[test]
fn opcodes_that_are_not_served_are_refused_for_good() {
    let admin = [0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18];
    let io = [0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x0c];
    for code in 0..=255u8 {
        let sqe = Sqe::new(code);
        let refused = Status::INVALID_OPCODE.dnr();
        assert_eq!(AdminCommand::parse(&sqe) == Err(refused), !admin.contains(&code));
        assert_eq!(IoCommand::parse(&sqe) == Err(refused), !io.contains(&code));
        assert_eq!(FabricsCommand::parse(&sqe) == Err(refused), code != 0x7f);
        assert_eq!(opcode::admin::name(code).is_some(), admin.contains(&code));
        assert_eq!(opcode::io::name(code).is_some(), io.contains(&code));
    }
}

#[test]
fn fabrics_types_are_those_of_the_table_and_encode_their_direction() {
    let table = [
        (0x00, Transfer::None),
        (0x01, Transfer::HostToController),
        (0x04, Transfer::None),
        (0x05, Transfer::HostToController),
        (0x06, Transfer::ControllerToHost),
        (0x08, Transfer::None),
    ];
    for fctype in 0..=255u8 {
        let mut sqe = Sqe::new(opcode::FABRICS);
        sqe.nsid.set(u32::from(fctype));
        sqe.cdw10.set(if fctype == 5 || fctype == 6 { 0xe901_0100 } else { 0 });
        let row = table.iter().find(|(known, _)| *known == fctype);
        assert_eq!(FabricsCommand::parse(&sqe).is_ok(), row.is_some());
        assert!(row.is_none_or(|(_, transfer)| sqe.transfer() == *transfer));
    }
}

#[test]
fn connect_of_an_unknown_format_is_refused_for_good() {
    let connect = Connect { qid: 3, sqsize: 127, disable_sq_flow: true, kato_ms: 5000 };
    let mut sqe = connect.to_sqe();
    assert_eq!(FabricsCommand::parse(&sqe), Ok(FabricsCommand::Connect(connect)));
    assert_eq!(sqe.cdw10(), 3 << 16);
    sqe.cdw10.set(3 << 16 | 1);
    assert_eq!(FabricsCommand::parse(&sqe), Err(Status::CONNECT_INCOMPATIBLE_FORMAT.dnr()));
}

#[test]
fn reserved_property_sizes_are_refused_without_dnr() {
    let mut sqe = FabricsCommand::PropertyGet { offset: 0x1c, size: PropertySize::Four }.to_sqe();
    assert_eq!((sqe.cdw10(), sqe.cdw11()), (0, 0x1c));
    for size in 2..8 {
        sqe.cdw10.set(size);
        assert_eq!(FabricsCommand::parse(&sqe), Err(Status::INVALID_FIELD));
    }
}

#[test]
fn a_four_byte_property_set_ignores_the_upper_half() {
    let size = PropertySize::Four;
    let mut sqe = FabricsCommand::PropertySet { offset: 0x14, size, value: 0x0046_0001 }.to_sqe();
    sqe.cdw13.set(u32::MAX);
    let expected = FabricsCommand::PropertySet { offset: 0x14, size, value: 0x0046_0001 };
    assert_eq!(FabricsCommand::parse(&sqe), Ok(expected));
}

#[test]
fn another_security_protocol_is_refused_for_good() {
    let mut sqe = FabricsCommand::AuthSend { length: 72 }.to_sqe();
    assert_eq!(sqe.as_bytes()[40..48], [0, 1, 1, 0xe9, 72, 0, 0, 0]);
    sqe.cdw10.set(0xea01_0100);
    assert_eq!(FabricsCommand::parse(&sqe), Err(REFUSED));
}

#[test]
fn log_length_counts_dwords_less_one_over_two_fields() {
    let mut sqe = Sqe::new(opcode::admin::GET_LOG_PAGE);
    sqe.cdw10.set(0x03ff_8170);
    sqe.cdw12.set(1024);
    sqe.cdw13.set(1);
    let command = AdminCommand::GetLogPage {
        lid: 0x70,
        lsp: 1,
        rae: true,
        bytes: 4096,
        offset: (1 << 32) + 1024,
        csi: 0,
    };
    assert_eq!(AdminCommand::parse(&sqe), Ok(command));
    sqe.cdw10.set(0xffff_0000);
    sqe.cdw11.set(0xffff_ffff);
    let Ok(AdminCommand::GetLogPage { bytes, .. }) = AdminCommand::parse(&sqe) else { panic!() };
    assert_eq!(bytes, 1 << 34);
}

#[test]
fn log_offsets_off_a_dword_or_by_index_are_refused() {
    let mut sqe = Sqe::new(opcode::admin::GET_LOG_PAGE);
    sqe.cdw12.set(2);
    assert_eq!(AdminCommand::parse(&sqe), Err(Status::INVALID_FIELD));
    sqe.cdw12.set(4);
    sqe.cdw14.set(1 << 23);
    assert_eq!(AdminCommand::parse(&sqe), Err(Status::INVALID_FIELD));
}

#[test]
fn identify_fields_lie_at_40_42_and_47() {
    let sqe = AdminCommand::Identify { cns: 0x13, cntid: 0x0201, csi: 7 }.to_sqe(5);
    assert_eq!(sqe.as_bytes()[40..48], [0x13, 0, 1, 2, 0, 0, 0, 7]);
    assert_eq!(sqe.nsid(), 5);
}

#[test]
fn reserved_feature_selections_are_refused_for_good() {
    let mut sqe = Sqe::new(opcode::admin::GET_FEATURES);
    for sel in 4..8 {
        sqe.cdw10.set(sel << 8);
        assert_eq!(AdminCommand::parse(&sqe), Err(REFUSED));
    }
}

#[test]
fn block_counts_are_zero_based_and_control_bits_are_where_the_table_says() {
    let mut sqe = Sqe::new(opcode::io::WRITE);
    sqe.cdw12.set(0x4000_ffff);
    let rw = Rw { lba: 0, blocks: 65536, fua: true };
    assert_eq!(IoCommand::parse(&sqe), Ok(IoCommand::Write(rw)));
    sqe.opcode = opcode::io::WRITE_ZEROES;
    sqe.cdw12.set(0x0200_0000);
    let zeroes = IoCommand::WriteZeroes { lba: 0, blocks: 1, deallocate: true, fua: false };
    assert_eq!(IoCommand::parse(&sqe), Ok(zeroes));
}

#[test]
fn protection_and_directives_are_refused_and_hints_are_not() {
    let check = |code, cdw12: u32| {
        let mut sqe = Sqe::new(code);
        sqe.cdw12.set(cdw12);
        io::check_control(&sqe)
    };
    assert_eq!(check(opcode::io::READ, 1 << 29), Err(REFUSED));
    assert_eq!(check(opcode::io::WRITE, 1 << 20), Err(REFUSED));
    assert_eq!(check(opcode::io::WRITE, 1 << 31 | 1 << 30 | 0xffff), Ok(()));
    assert_eq!(check(opcode::io::WRITE_ZEROES, 1 << 25), Ok(()));
    assert_eq!(check(opcode::io::FLUSH, u32::MAX), Ok(()));
}

#[test]
fn ranges_end_with_the_namespace_and_never_overflow() {
    let out = Err(Status::LBA_OUT_OF_RANGE.dnr());
    let rw = |lba, blocks| Rw { lba, blocks, fua: false };
    assert_eq!(rw(92, 8).within(100), Ok(92..100));
    assert_eq!(rw(93, 8).within(100), out);
    assert_eq!(rw(u64::MAX, 1).within(u64::MAX), out);
    assert_eq!(rw(u64::MAX - 1, 1).within(u64::MAX), Ok(u64::MAX - 1..u64::MAX));
    assert_eq!(DsmRange::new(100, 0).within(100), Ok(100..100));
    assert_eq!(DsmRange::new(101, 0).within(100), out);
}

#[test]
fn dsm_takes_the_first_ranges_and_ignores_the_rest_of_the_page() {
    let mut page = vec![0u8; 4096];
    page[..16].copy_from_slice(DsmRange::new(7, 9).as_bytes());
    page[16] = 0xff;
    assert_eq!(DsmRange::list(&page, 1), Ok(&[DsmRange::new(7, 9)][..]));
    assert_eq!(page[4..16], [9, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(DsmRange::list(&page, 256).unwrap().len(), 256);
    assert_eq!(DsmRange::list(&page[..4080], 256), Err(Status::DATA_SGL_LENGTH_INVALID.dnr()));
}

fn rw() -> impl Strategy<Value = Rw> {
    (any::<u64>(), 1..=65536u32, any::<bool>()).prop_map(|(lba, blocks, fua)| Rw {
        lba,
        blocks,
        fua,
    })
}

fn io_command() -> impl Strategy<Value = IoCommand> {
    prop_oneof![
        rw().prop_map(IoCommand::Read),
        rw().prop_map(IoCommand::Write),
        rw().prop_map(IoCommand::Compare),
        rw().prop_map(IoCommand::Verify),
        (rw(), any::<bool>()).prop_map(|(Rw { lba, blocks, fua }, deallocate)| {
            IoCommand::WriteZeroes { lba, blocks, deallocate, fua }
        }),
        Just(IoCommand::Flush),
        (1..=256u16, any::<bool>()).prop_map(|(ranges, deallocate)| {
            IoCommand::DatasetManagement { ranges, deallocate }
        }),
    ]
}

fn admin_command() -> impl Strategy<Value = AdminCommand> {
    let log = (any::<u8>(), 0..128u8, any::<bool>(), any::<u32>(), any::<u64>(), any::<u8>());
    let selections = [Select::Current, Select::Default, Select::Saved, Select::Capabilities];
    prop_oneof![
        any::<(u8, u16, u8)>().prop_map(|(cns, cntid, csi)| AdminCommand::Identify {
            cns,
            cntid,
            csi
        }),
        log.prop_map(|(lid, lsp, rae, dwords, offset, csi)| AdminCommand::GetLogPage {
            lid,
            lsp,
            rae,
            bytes: (u64::from(dwords) + 1) * 4,
            offset: offset & !3,
            csi,
        }),
        (any::<u8>(), prop::sample::select(selections.to_vec()), any::<u32>())
            .prop_map(|(fid, sel, cdw11)| AdminCommand::GetFeatures { fid, sel, cdw11 }),
        any::<(u8, bool, u32, u32)>().prop_map(|(fid, save, cdw11, cdw12)| {
            AdminCommand::SetFeatures { fid, save, cdw11, cdw12 }
        }),
        Just(AdminCommand::AsyncEventRequest),
        Just(AdminCommand::KeepAlive),
        any::<(u16, u16)>().prop_map(|(sqid, cid)| AdminCommand::Abort { sqid, cid }),
    ]
}

fn fabrics_command() -> impl Strategy<Value = FabricsCommand> {
    let four = PropertySize::Four;
    let eight = PropertySize::Eight;
    prop_oneof![
        any::<(u16, u16, bool, u32)>().prop_map(|(qid, sqsize, disable_sq_flow, kato_ms)| {
            FabricsCommand::Connect(Connect { qid, sqsize, disable_sq_flow, kato_ms })
        }),
        (any::<u32>(), prop::sample::select(vec![four, eight]))
            .prop_map(|(offset, size)| FabricsCommand::PropertyGet { offset, size }),
        any::<(u32, u32)>().prop_map(move |(offset, value)| FabricsCommand::PropertySet {
            offset,
            size: four,
            value: u64::from(value),
        }),
        any::<(u32, u64)>().prop_map(move |(offset, value)| FabricsCommand::PropertySet {
            offset,
            size: eight,
            value,
        }),
        any::<u32>().prop_map(|length| FabricsCommand::AuthSend { length }),
        any::<u32>().prop_map(|length| FabricsCommand::AuthReceive { length }),
        Just(FabricsCommand::Disconnect),
    ]
}

/// Bytes of a command, biased so that every parser gets past its opcode.
fn raw_command() -> impl Strategy<Value = [u8; 64]> {
    let opcodes = (0..=0x18u8).chain([0x7f; 8]).collect::<Vec<_>>();
    (any::<[[u8; 32]; 2]>(), prop::sample::select(opcodes), 0..16u8).prop_map(
        |(halves, code, fctype)| {
            let mut bytes = [0; 64];
            bytes.copy_from_slice(halves.as_flattened());
            bytes[0] = code;
            bytes[4] = fctype;
            bytes
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(parse_any(&bytes).is_some(), bytes.len() >= 64);
    }

    #[test]
    fn what_parses_from_any_bytes_means_the_same_when_written_again(bytes in raw_command()) {
        let nsid = Sqe::read_from_bytes(&bytes).unwrap().nsid();
        let parsed = parse_any(&bytes).unwrap();
        if let Ok(command) = parsed.admin {
            prop_assert_eq!(AdminCommand::parse(&command.to_sqe(nsid)), Ok(command));
        }
        if let Ok(command) = parsed.io {
            prop_assert_eq!(IoCommand::parse(&command.to_sqe(nsid)), Ok(command));
        }
        if let Ok(command) = parsed.fabrics {
            prop_assert_eq!(FabricsCommand::parse(&command.to_sqe()), Ok(command));
        }
    }

    #[test]
    fn io_commands_survive_their_raw_form(command in io_command(), nsid: u32) {
        let sqe = command.to_sqe(nsid);
        prop_assert_eq!(sqe.nsid(), nsid);
        prop_assert_eq!(check_flags(&sqe), Ok(()));
        prop_assert_eq!(io::check_control(&sqe), Ok(()));
        prop_assert_eq!(IoCommand::parse(&sqe), Ok(command));
    }

    #[test]
    fn admin_commands_survive_their_raw_form(command in admin_command(), nsid: u32) {
        let sqe = command.to_sqe(nsid);
        prop_assert_eq!(sqe.nsid(), nsid);
        prop_assert_eq!(AdminCommand::parse(&sqe), Ok(command));
    }

    #[test]
    fn fabrics_commands_survive_their_raw_form(command in fabrics_command()) {
        prop_assert_eq!(FabricsCommand::parse(&command.to_sqe()), Ok(command));
    }
}
