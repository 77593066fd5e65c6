//! A way to a peer: one message there, one answer back.

use afs_reactor::Buffer;

/// Bytes of a message's header: what an NVMe command has free beside opcode, identifiers and data pointer.
pub const HEADER_BYTES: usize = 40;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The message was surely not carried out.
    Unreachable,
    /// It may have been carried out, or may still be.
    Lost,
}

/// What the peer answered.
#[derive(Debug, Default)]
pub struct Answer {
    /// 0 is success; the rest is the protocol's.
    pub status: u8,
    /// Small results.
    pub result: [u8; 8],
    /// Data, if the message asked for some.
    pub data: Option<Buffer>,
}

/// A way to one service of one peer, on one reactor. Clones are the same way.
pub trait Link: Clone + 'static {
    /// Whether it is known if the peer is reached. While that is yet to be tried [`call`](Self::call) finds it unreachable, which
    /// says nothing about the peer.
    fn is_settled(&self) -> bool {
        true
    }

    /// Waits for that.
    fn settle(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// Sends a message with `data` (shared, never copied) and waits for the answer, whose data is at most `reply_max`
    /// bytes. It has no time-out of its own. Dropping the future takes nothing back: the message may still be carried out.
    fn call(
        &self,
        header: [u8; HEADER_BYTES],
        data: Option<Buffer>,
        reply_max: usize,
    ) -> impl Future<Output = Result<Answer, LinkError>>;
}
