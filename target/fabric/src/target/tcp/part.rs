//! How a TCP connection ends.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::super::close::CloseReason;
use super::responses::Responses;
use crate::area::ReceiveArea;
use crate::socket;

/// How long a host has to take what was sent before the service closed the queue.
const REQUESTED_LINGER: Duration = Duration::from_secs(1);
/// With more than this unsent a host is not told why it is dropped: it does not read anyway.
const MAX_UNSENT_AT_TERM: u64 = 64 << 10;

/// Ends the connection as its reason demands: a TermReq for who broke the protocol, what is queued for who is
/// sent away, nothing for who is gone.
pub(super) async fn part(
    stream: Rc<TcpStream>,
    mut responses: Responses,
    mut area: ReceiveArea,
    reason: &CloseReason,
    linger: Duration,
) {
    let limit = match reason {
        CloseReason::Violation(violation) => {
            let transmit = &responses.transmit;
            if transmit.queued() - transmit.sent() > MAX_UNSENT_AT_TERM {
                return;
            }
            responses.terminate(violation);
            linger
        }
        CloseReason::Requested(_) => REQUESTED_LINGER.min(linger),
        _ => return,
    };
    // Whether the host reads it and closes in time changes nothing: the socket goes either way.
    let _ = tokio::time::timeout(limit, linger_on(&stream, &mut responses, &mut area)).await;
}

/// Sends what is left, says that nothing follows, and swallows what comes until the host closes. Closing with
/// unread bytes would reset the connection and take the TermReq with it.
async fn linger_on(
    stream: &TcpStream,
    responses: &mut Responses,
    area: &mut ReceiveArea,
) -> io::Result<()> {
    loop {
        socket::send(stream, &mut responses.transmit)?;
        if responses.transmit.is_empty() {
            break;
        }
        stream.writable().await?;
    }
    rustix::net::shutdown(stream, rustix::net::Shutdown::Write)?;
    loop {
        stream.readable().await?;
        area.consume(usize::MAX);
        let spare = area.spare(usize::MAX);
        let wanted = spare.len();
        if socket::receive(stream, &mut [io::IoSliceMut::new(spare)], wanted)? == Some(0) {
            return Ok(());
        }
    }
}
