//! Vectored receive and send on a tokio socket with as few calls as possible. Used by both ends.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::transmit::{MAX_SLICES, Transmit};

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
            match rustix::io::readv(stream, slices) {
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

/// Sends what `transmit` holds, with one call unless it is cut into very many pieces. Returns the number of
/// calls; what is left did not fit into the socket.
pub(crate) fn send(stream: &TcpStream, transmit: &mut Transmit) -> io::Result<u64> {
    let mut calls = 0;
    while !transmit.is_empty() {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let filled = transmit.slices(&mut slices);
        let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
        calls += 1;
        let count = match stream.try_write_vectored(&slices[..filled]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        transmit.consume(count);
        if count < offered {
            break;
        }
    }
    Ok(calls)
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
