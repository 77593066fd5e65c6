//! The tables of CONFORMANCE 2.1 against the structures.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;

const LIMITS: RequestLimits = RequestLimits { qid_max: 128, hsqsize_max: 1023 };

fn request(fields: [u16; 5]) -> Vec<u8> {
    let mut bytes: Vec<u8> = fields.into_iter().flat_map(u16::to_le_bytes).collect();
    bytes.resize(32, 0);
    bytes
}

#[test]
fn requests_of_linux_are_understood() {
    let admin = Request::parse(&request([0, 0, 32, 31, 0]), &LIMITS).unwrap();
    assert_eq!(admin, Request::new(QueueId(0), 31, None));
    let io_61 = Request::parse(&request([0, 1, 128, 127, 0]), &LIMITS).unwrap();
    assert_eq!(io_61, Request::new(QueueId(1), 127, None));
    let io_612 = Request::parse(&request([0, 128, 1024, 1023, 7]), &LIMITS).unwrap();
    assert_eq!(io_612, Request::new(QueueId(128), 1023, Some(ControllerId(7))));
}

#[test]
fn each_wrong_field_is_rejected_with_its_own_status() {
    let table = [
        ([1, 0, 32, 31, 0], RejectStatus::RecordFormat),
        ([0, 129, 32, 31, 0], RejectStatus::QueueId),
        ([0, 0, 32, 0, 0], RejectStatus::HostSendQueueSize),
        ([0, 0, 32, 32, 0], RejectStatus::HostSendQueueSize),
        ([0, 0, 32, 0xffff, 0], RejectStatus::HostSendQueueSize),
        ([0, 1, 32, 1024, 0], RejectStatus::HostSendQueueSize),
        ([0, 1, 0, 127, 0], RejectStatus::HostReceiveQueueSize),
    ];
    for (fields, status) in table {
        assert_eq!(Request::parse(&request(fields), &LIMITS), Err(status), "{fields:?}");
    }
}

#[test]
fn shorter_private_data_is_rejected_and_longer_is_padding_r_1() {
    let good = request([0, 0, 32, 31, 0]);
    for length in 0..32 {
        let short = Request::parse(&good[..length], &LIMITS);
        assert_eq!(short, Err(RejectStatus::PrivateDataLength), "{length}");
    }
    let padded = [good.clone(), vec![0xff; 223]].concat();
    assert_eq!(Request::parse(&padded, &LIMITS), Request::parse(&good, &LIMITS));
    let mut reserved = good.clone();
    reserved[10..].fill(0xff);
    assert_eq!(Request::parse(&reserved, &LIMITS), Request::parse(&good, &LIMITS));
}

#[test]
fn bytes_lie_where_the_table_says() {
    let asked = Request {
        queue: QueueId(0x0102),
        host_receive_entries: 0x0304,
        hsqsize: 0x0506,
        controller: Some(ControllerId(0x0708)),
    };
    assert_eq!(asked.to_data().as_bytes()[..12], [0, 0, 2, 1, 4, 3, 6, 5, 8, 7, 0, 0]);
    assert_eq!(AcceptData::new(0x0102).as_bytes()[..6], [0, 0, 2, 1, 0, 0]);
    assert_eq!(RejectData::new(RejectStatus::NoResources).as_bytes(), [0, 0, 6, 0]);
}

#[test]
fn statuses_have_the_numbers_of_the_table() {
    for code in 0..=u16::MAX {
        let known = (1..=9).contains(&code);
        assert_eq!(RejectStatus::from_code(code).map(|s| s as u16), known.then_some(code));
    }
}

#[test]
fn the_host_reads_answers_and_refuses_what_is_none() {
    assert_eq!(AcceptData::parse(AcceptData::new(128).as_bytes()), Ok(128));
    assert_eq!(AcceptData::parse(&[0; 31]), Err(AnswerError::Short(31)));
    assert_eq!(AcceptData::parse(&[2; 196]), Err(AnswerError::RecordFormat(0x0202)));
    let padded = [RejectData::new(RejectStatus::QueueId).as_bytes(), &[0; 144]].concat();
    assert_eq!(RejectData::parse(&padded), Ok(RejectStatus::QueueId));
    assert_eq!(RejectData::parse(&[]), Err(AnswerError::Short(0)));
    assert_eq!(RejectData::parse(&[0, 0, 10, 0]), Err(AnswerError::Status(10)));
    assert_eq!(RejectData::parse(&[1, 0, 1, 0]), Err(AnswerError::RecordFormat(1)));
}

proptest! {
    #[test]
    fn a_request_within_the_limits_survives_the_wire(
        qid in 0..=128u16, sqsize in 1..=31u16, receive in 1..=u16::MAX, controller: u16,
    ) {
        let controller = Some(ControllerId(controller)).filter(|id| id.get() != 0);
        let asked = Request {
            queue: QueueId(qid), host_receive_entries: receive, hsqsize: sqsize, controller,
        };
        prop_assert_eq!(Request::parse(asked.to_data().as_bytes(), &LIMITS), Ok(asked));
    }
}
