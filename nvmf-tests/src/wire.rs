//! The frames between the lab outside and the [agent](crate::agent) inside a guest, over one virtio-serial port.
//!
//! A frame is kind (1 byte), command id (4 bytes), length (4 bytes), payload; integers little-endian. Several commands
//! run at once, told apart by their id, which the outside chooses and never uses twice.

use std::io::{self, Read, Write};

/// The name of the virtio-serial port that carries the frames.
pub const PORT_NAME: &str = "afs.lab.agent";

/// The longest payload: output travels in pieces of at most this size.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the guest: run the payload with `bash -c`.
    Start,
    /// To the guest: bytes for the command's standard input.
    Stdin,
    /// To the guest: the standard input ends here.
    CloseStdin,
    /// To the guest: SIGKILL for the command and its process group.
    Kill,
    /// To the outside: the agent is there. Id 0.
    Hello,
    /// To the outside: bytes that the command wrote to its standard output.
    Stdout,
    /// To the outside: bytes that the command wrote to its standard error.
    Stderr,
    /// To the outside: the command ended; payload is the exit code (i32; 128 + signal when killed by one).
    Exit,
    /// To the outside: the command could not be started; payload says why.
    Refused,
}

const KINDS: [Kind; 9] = [
    Kind::Start,
    Kind::Stdin,
    Kind::CloseStdin,
    Kind::Kill,
    Kind::Hello,
    Kind::Stdout,
    Kind::Stderr,
    Kind::Exit,
    Kind::Refused,
];

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// Which command it is about.
    pub id: u32,
    /// Its content.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame with a payload of at most [`MAX_PAYLOAD`] bytes.
    pub fn new(kind: Kind, id: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, id, payload: payload.into() }
    }

    /// Writes the frame with one call, so that frames of several threads under one lock stay whole.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let length =
            u32::try_from(self.payload.len()).ok().filter(|_| self.payload.len() <= MAX_PAYLOAD);
        let Some(length) = length else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "payload too long for a frame",
            ));
        };
        let kind = KINDS
            .iter()
            .position(|kind| *kind == self.kind)
            .and_then(|index| u8::try_from(index).ok());
        let mut bytes = Vec::with_capacity(9 + self.payload.len());
        bytes.push(kind.unwrap_or(u8::MAX));
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        to.write_all(&bytes)
    }

    /// Reads the next frame; an end of the stream is [`io::ErrorKind::UnexpectedEof`].
    pub fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut header = [0u8; 9];
        from.read_exact(&mut header)?;
        let [kind, a, b, c, d, e, f, g, h] = header;
        let length = u32::from_le_bytes([e, f, g, h]) as usize;
        let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let kind = *KINDS.get(usize::from(kind)).ok_or_else(|| bad("unknown kind of frame"))?;
        if length > MAX_PAYLOAD {
            return Err(bad("frame too long"));
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload)?;
        Ok(Self { kind, id: u32::from_le_bytes([a, b, c, d]), payload })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_frame_survives_the_wire() {
        for kind in KINDS {
            let frame = Frame::new(kind, 0x0102_0304, vec![7; 1000]);
            let mut bytes = Vec::new();
            frame.write(&mut bytes).unwrap();
            assert_eq!(Frame::read(&mut bytes.as_slice()).unwrap(), frame);
        }
    }

    #[test]
    fn frame_that_claims_too_much_is_refused_before_allocation() {
        let mut bytes = vec![5, 0, 0, 0, 0];
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(
            Frame::read(&mut bytes.as_slice()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert!(
            Frame::new(Kind::Stdin, 1, vec![0; MAX_PAYLOAD + 1]).write(&mut Vec::new()).is_err()
        );
    }
}
