//! Vectored receive and send on a tokio socket with as few calls as possible. Used by both ends.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::transmit::{MAX_SLICES, Transmit};

/// Pieces of a short list: the answers of a few commands.
const FEW_SLICES: usize = 8;

/// Receives into `slices`, `wanted` bytes in all; `None` when nothing is there now, `Some(0)` at the end.
///
/// A short count says that the socket is drained. Readiness is cleared then, so that no second call has to
/// find it out; the edge of the next segment sets it again.
pub(crate) fn receive(
    stream: &TcpStream,
    slices: &mut [IoSliceMut<'_>],
    wanted: usize,
) -> io::Result<Option<usize>> {
    let mut short = None;
    let result = stream.try_io(Interest::READABLE, || {
        loop {
            match call(stream, slices) {
                Ok(count) if count == 0 || count == wanted => return Ok(count),
                Ok(count) => {
                    short = Some(count);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    });
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(short),
        Err(error) => Err(error),
    }
}

/// The plain socket calls cost the kernel less than the vectored ones of files.
fn call(stream: &TcpStream, slices: &mut [IoSliceMut<'_>]) -> rustix::io::Result<usize> {
    if let [slice] = slices {
        return rustix::net::recv(stream, &mut **slice, RecvFlags::empty()).map(|(_, count)| count);
    }
    let mut ancillary = RecvAncillaryBuffer::default();
    rustix::net::recvmsg(stream, slices, &mut ancillary, RecvFlags::empty())
        .map(|message| message.bytes)
}

/// Sends what `transmit` holds, with one call unless it is cut into very many pieces. Returns the number of
/// calls; what is left did not fit into the socket.
pub(crate) fn send(stream: &TcpStream, transmit: &mut Transmit) -> io::Result<u64> {
    let mut calls = 0;
    while !transmit.is_empty() {
        calls += 1;
        // Few pieces are the usual case, and a short list is made sooner than a long one.
        let sent = if transmit.pieces() <= FEW_SLICES {
            send_once::<FEW_SLICES>(stream, transmit)
        } else {
            send_once::<MAX_SLICES>(stream, transmit)
        };
        match sent {
            Ok((count, offered)) => {
                transmit.consume(count);
                if count < offered {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(calls)
}

/// One call with at most `N` pieces; how many bytes went, of how many.
fn send_once<const N: usize>(
    stream: &TcpStream,
    transmit: &Transmit,
) -> io::Result<(usize, usize)> {
    let mut slices = [IoSlice::new(&[]); N];
    let filled = transmit.slices(&mut slices);
    let slices = slices.get(..filled).unwrap_or_default();
    let offered = slices.iter().map(|slice| slice.len()).sum();
    let count = stream.try_io(Interest::WRITABLE, || {
        loop {
            let mut ancillary = SendAncillaryBuffer::default();
            match rustix::net::sendmsg(stream, slices, &mut ancillary, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                result => return result.map_err(io::Error::from),
            }
        }
    })?;
    Ok((count, offered))
}

/// Whether the other end is known to have closed or reset the connection, though bytes may still lie in the
/// socket. To be asked when the socket is readable.
pub(crate) fn is_closed_by_peer(stream: &TcpStream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(stream.ready(Interest::READABLE)).poll(&mut cx) {
        Poll::Ready(Ok(ready)) => ready.is_read_closed(),
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}

/// The same, asked of the system: what the reactor knows may be old. One system call.
pub(crate) fn is_closed_by_peer_now(stream: &TcpStream) -> bool {
    let mut looked = [PollFd::new(stream, PollFlags::RDHUP)];
    loop {
        match rustix::event::poll(&mut looked, Some(&Timespec::default())) {
            Ok(0) => return false,
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

/// One read: first the rest of a transfer, straight into its buffer, then what follows it into `spare`.
pub(crate) fn receive_split(
    stream: &TcpStream,
    direct: &mut [u8],
    spare: &mut [u8],
) -> io::Result<Option<usize>> {
    let wanted = direct.len() + spare.len();
    if direct.is_empty() {
        return receive(stream, &mut [IoSliceMut::new(spare)], wanted);
    }
    receive(stream, &mut [IoSliceMut::new(direct), IoSliceMut::new(spare)], wanted)
}
