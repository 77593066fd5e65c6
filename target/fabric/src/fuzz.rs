//! Ways in for fuzzers: any bytes in, no panic, no unbounded memory. `tests/corpus` is replayed by the tests.

use crate::codec::{Digests, HostCodec, HostEvent, TargetCodec, TargetEvent, WireLimits};

/// Most steps of one run: a codec that neither consumes nor asks for more would loop for ever.
const STEPS_PER_BYTE: usize = 4;

/// Feeds a target's codec. The first byte says how the rest is cut into pieces and whether transfers are
/// opened for commands that want one.
///
/// # Panics
/// When the codec makes no progress, or asks for more than its limits allow: both are bugs.
pub fn fuzz_target_codec(data: &[u8]) {
    let Some((&control, stream)) = data.split_first() else { return };
    let limits = WireLimits::default();
    let mut codec = TargetCodec::new(limits);
    let longest = limits.in_capsule_bytes.max(8192) as usize + 512;
    feed(stream, control, longest, |input| {
        let (consumed, event) = codec.next(input).ok()?;
        match event {
            TargetEvent::Need(bytes) => return Some((consumed, Some(bytes))),
            TargetEvent::Initialize(_) => codec.set_connected(control & 0x40 != 0, 8),
            TargetEvent::Command { slot, .. } if control & 0x80 == 0 => {
                codec.commands_mut().release(slot);
            }
            TargetEvent::Command { slot, .. } => {
                codec.commands_mut().open_transfer(slot);
            }
            TargetEvent::TransferEnd { slot } => codec.commands_mut().release(slot),
            _ => {}
        }
        Some((consumed, None))
    });
}

/// Feeds a host's codec that has reads and writes outstanding.
///
/// # Panics
/// As [`fuzz_target_codec`].
pub fn fuzz_host_codec(data: &[u8]) {
    let Some((&control, stream)) = data.split_first() else { return };
    let digests = Digests::from_wire(control >> 6);
    let mut codec = HostCodec::new(digests, control >> 4 & 3);
    for cid in 0..4 {
        codec.begin(cid, 4096 << cid, 0);
        codec.begin(cid + 4, 0, 4096 << cid);
    }
    feed(stream, control & 0x0f, 512, |input| {
        let (consumed, event) = codec.next(input).ok()?;
        match event {
            HostEvent::Need(bytes) => return Some((consumed, Some(bytes))),
            HostEvent::Response(cqe) => codec.end(cqe.cid()),
            _ => {}
        }
        Some((consumed, None))
    });
}

/// Gives `stream` to `step` in pieces, as a socket would. `step` returns what it consumed and how many bytes
/// it must have before it goes on, or `None` at the end of the connection.
fn feed(
    stream: &[u8],
    control: u8,
    longest: usize,
    mut step: impl FnMut(&[u8]) -> Option<(usize, Option<usize>)>,
) {
    let piece = usize::from(control & 0x3f) + 1;
    let (mut start, mut end) = (0, 0);
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps <= (stream.len() + 1) * STEPS_PER_BYTE, "the codec makes no progress");
        let Some((consumed, need)) = step(&stream[start..end]) else { return };
        start += consumed;
        let Some(need) = need else { continue };
        assert!(need > end - start && need <= longest, "the codec asks for {need} bytes");
        if end == stream.len() {
            return;
        }
        end = stream.len().min(end + piece);
    }
}
