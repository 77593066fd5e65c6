//! Properties of both codecs: events do not depend on how the stream was cut, no bytes make them panic.
#![allow(clippy::unwrap_used)]

use afs_nvme::command::{Connect, IoCommand, Rw};
use afs_nvme::tcp::{Fes, PduType, flags};
use afs_nvme::{Cqe, Sgl, Sqe, Status};
use proptest::prelude::*;

use super::encode::{DataPiece, Encoder};
use super::{CodecError, Digests, HostCodec, HostEvent, TargetCodec, TargetEvent, WireLimits};
use crate::fuzz::{fuzz_host_codec, fuzz_target_codec};

/// What a stream meant, with the data of transfers joined.
type Story = Vec<String>;

/// Feeds `stream` in pieces that end at `cuts`.
fn tell(stream: &[u8], cuts: &[usize]) -> Story {
    let mut codec = TargetCodec::new(WireLimits::default());
    let mut story = Story::new();
    let mut data = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        loop {
            let input = &stream[start..end];
            let (consumed, event) = match codec.next(input) {
                Ok(step) => step,
                Err(error) => {
                    story.push(tell_error(&error));
                    assert_eq!(codec.next(&stream[start..]).unwrap().0, stream.len() - start);
                    return story;
                }
            };
            match event {
                TargetEvent::Need(bytes) => {
                    assert!(bytes > input.len() && consumed == 0);
                    break;
                }
                TargetEvent::Initialize(request) => {
                    codec.set_connected(false, 8);
                    story.push(format!("{request:?}"));
                }
                TargetEvent::Command { slot, sqe, ref in_capsule, fault } => {
                    let capsule = in_capsule.clone().map(|range| input[range].to_vec());
                    story.push(format!("{slot} {} {fault:?} {capsule:?}", sqe.cid()));
                    if codec.commands_mut().open_transfer(slot).is_none() {
                        codec.commands_mut().release(slot);
                    }
                }
                TargetEvent::Data { range, .. } => data.extend_from_slice(&input[range]),
                TargetEvent::TransferEnd { slot } => {
                    let transfer = codec.commands().transfer(slot).unwrap();
                    story.push(format!("end {slot} {transfer:?} {data:?}"));
                    data.clear();
                    codec.commands_mut().release(slot);
                }
                TargetEvent::Continue => {}
                TargetEvent::Terminated { fes, fei } => story.push(format!("term {fes} {fei}")),
            }
            start += consumed;
        }
    }
    story
}

fn tell_error(error: &CodecError) -> String {
    match error {
        CodecError::Violation(violation) => format!("{violation:?} {:?}", violation.header()),
        other => format!("{other:?}"),
    }
}

/// A stream with every kind of PDU of a host.
fn session(digests: Digests, seed: u8) -> Vec<u8> {
    let encoder = Encoder { digests, alignment: 4 };
    let mut out = Vec::new();
    Encoder::ic_request(&mut out, digests, 3);
    let capsule = |out: &mut Vec<u8>, mut sqe: Sqe, cid: u16, data: &[u8]| {
        sqe.cid.set(cid);
        encoder.command(out, sqe, u32::try_from(data.len()).unwrap());
        out.extend_from_slice(data);
        if !data.is_empty() {
            encoder.data_digest(out, data);
        }
    };
    let connect = Connect { qid: 1, sqsize: 7, disable_sq_flow: false, kato_ms: 0 };
    capsule(&mut out, connect.to_sqe(), 1, &[seed; 1024]);
    let rw = Rw { lba: 5, blocks: 1, fua: false };
    let mut write = IoCommand::Write(rw).to_sqe(1);
    write.sgl = Sgl::in_capsule(40);
    capsule(&mut out, write, 2, &[seed ^ 1; 40]);
    write.sgl = Sgl::transport(100);
    capsule(&mut out, write, 3, &[]);
    capsule(&mut out, IoCommand::Flush.to_sqe(1), 4, &[]);
    for (offset, length, last) in [(0, 60, 0), (60, 40, flags::LAST)] {
        // The write took the only slot: its TTAG is 0.
        let piece = DataPiece { cid: 3, ttag: 0, offset, length, flags: last };
        let data = vec![seed.wrapping_add(u8::try_from(offset).unwrap()); length as usize];
        encoder.data(&mut out, PduType::H2cData, piece);
        out.extend_from_slice(&data);
        encoder.data_digest(&mut out, &data);
    }
    let mut read = IoCommand::Read(rw).to_sqe(1);
    read.sgl = Sgl::transport(4096);
    capsule(&mut out, read, 5, &[]);
    Encoder::term(&mut out, PduType::H2cTermReq, Fes::DataOutOfRange, 12, &[seed; 30]);
    out
}

fn all_digests() -> impl Strategy<Value = Digests> {
    (0..4_u8).prop_map(Digests::from_wire)
}

#[test]
fn a_cut_at_any_position_changes_nothing() {
    for bits in 0..4 {
        let stream = session(Digests::from_wire(bits), 7);
        let whole = tell(&stream, &[]);
        assert_eq!(whole.len(), 8, "{whole:#?}");
        assert!(whole.iter().all(|line| !line.contains("Violation")));
        for cut in 0..stream.len() {
            assert_eq!(tell(&stream, &[cut]), whole, "cut at {cut}");
        }
        let every: Vec<usize> = (1..stream.len()).collect();
        assert_eq!(tell(&stream, &every), whole, "byte by byte");
    }
}

proptest! {
    #[test]
    fn damaged_streams_end_alike_however_they_are_cut(
        digests in all_digests(),
        seed: u8,
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut stream = session(digests, seed);
        for (at, flip) in damage {
            let at = at.index(stream.len());
            stream[at] ^= flip;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(tell(&stream, &cuts), tell(&stream, &[]));
        stream.truncate(keep.index(stream.len() + 1));
        cuts.retain(|cut| *cut <= stream.len());
        prop_assert_eq!(tell(&stream, &cuts), tell(&stream, &[]));
    }

    #[test]
    fn any_bytes_after_any_prefix_are_survived(
        digests in all_digests(),
        prefix in any::<prop::sample::Index>(),
        control: u8,
        noise in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut stream = session(digests, 0);
        stream.truncate(prefix.index(stream.len() + 1));
        stream.extend_from_slice(&noise);
        stream.insert(0, control);
        fuzz_target_codec(&stream);
        fuzz_host_codec(&stream);
    }

    #[test]
    fn host_codec_tells_the_same_however_the_stream_is_cut(
        digests in all_digests(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 0..3),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut stream = answers(digests);
        for (at, flip) in damage {
            let at = at.index(stream.len());
            stream[at] ^= flip;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(tell_host(&stream, digests, &cuts), tell_host(&stream, digests, &[]));
    }
}

/// A stream with every kind of PDU of a controller.
fn answers(digests: Digests) -> Vec<u8> {
    let encoder = Encoder { digests, alignment: 32 };
    let mut out = Vec::new();
    Encoder::ic_response(&mut out, digests, 8192);
    encoder.r2t(&mut out, 1, 0, 4096);
    for (offset, last) in [(0, 0), (50, flags::LAST | flags::SUCCESS)] {
        let piece = DataPiece { cid: 0, ttag: 0, offset, length: 50, flags: last };
        encoder.data(&mut out, PduType::C2hData, piece);
        out.extend_from_slice(&[9; 50]);
        encoder.data_digest(&mut out, &[9; 50]);
    }
    encoder.response(&mut out, Cqe::new(1, Status::SUCCESS, 3));
    Encoder::term(&mut out, PduType::C2hTermReq, Fes::PduSequence, 0, &[1; 8]);
    out
}

fn tell_host(stream: &[u8], digests: Digests, cuts: &[usize]) -> Story {
    let mut codec = HostCodec::new(digests, 7);
    codec.begin(0, 100, 0);
    codec.begin(1, 0, 4096);
    let mut story = Story::new();
    let mut data = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        loop {
            let input = &stream[start..end];
            let (consumed, event) = match codec.next(input) {
                Ok(step) => step,
                Err(violation) => {
                    story.push(format!("{violation:?}"));
                    return story;
                }
            };
            match event {
                HostEvent::Need(bytes) => {
                    assert!(bytes > input.len() && consumed == 0);
                    break;
                }
                HostEvent::Data { range, .. } => data.extend_from_slice(&input[range]),
                HostEvent::Continue => {}
                HostEvent::DataEnd { .. } => {
                    story.push(format!("{event:?} {data:?}"));
                    data.clear();
                }
                other => story.push(format!("{other:?}")),
            }
            start += consumed;
        }
    }
    story
}

#[test]
fn host_codec_understands_a_whole_session() {
    for bits in 0..4 {
        let digests = Digests::from_wire(bits);
        let story = tell_host(&answers(digests), digests, &[]);
        assert_eq!(story.len(), 6, "{story:#?}");
        assert!(
            story.iter().all(|line| !line.contains("Violation") && !line.contains("damaged: true"))
        );
    }
}
