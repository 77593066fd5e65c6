//! The task of a host's queue pair: sends what was submitted, receives what was answered.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use afs_nvme::tcp::PduType;
use afs_reactor::Local;
use tokio::net::TcpStream;

use super::super::error::HostError;
use super::super::queue::Shared;
use super::super::table::Table;
use super::link::{TcpLink, rest};
use crate::area::ReceiveArea;
use crate::codec::HostEvent;
use crate::codec::encode::Encoder;
use crate::socket;

/// Rounds that one connection runs before the others of its reactor get their turn.
const ROUNDS_PER_TURN: usize = 4;
/// Bytes read ahead of large data.
const AHEAD_OF_DATA_BYTES: usize = 4096;

/// Moves the bytes of one connection.
pub(super) struct Driver {
    pub(super) stream: TcpStream,
    pub(super) area: ReceiveArea,
    pub(super) link: Rc<RefCell<TcpLink>>,
    pub(super) shared: Rc<Shared>,
    pub(super) local: Local,
}

impl Driver {
    /// Runs until the connection ends; everything outstanding ends with the reason then.
    pub(super) async fn run(mut self) {
        let error = std::future::poll_fn(|cx| self.poll(cx)).await;
        if let HostError::Violation(violation) = &error {
            let mut link = self.link.borrow_mut();
            link.transmit.headers(|out| Encoder::term_request(out, PduType::H2cTermReq, violation));
            // The connection ends in any case; telling why is a courtesy.
            let _ = socket::send(&self.stream, &mut link.transmit);
        }
        self.shared.close(&error);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<HostError> {
        for _ in 0..ROUNDS_PER_TURN {
            match self.round(cx) {
                Ok(true) => {}
                Ok(false) if self.shared.ending.get() => return Poll::Ready(HostError::Closed),
                Ok(false) => {
                    *self.shared.driver.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(error),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, HostError> {
        let sent = self.send(cx)?;
        let received = self.receive(cx)?;
        if sent || received {
            self.local.counters().note_work();
        }
        Ok(sent || received)
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, HostError> {
        let mut link = self.link.borrow_mut();
        if link.transmit.is_empty() {
            return Ok(false);
        }
        let before = link.transmit.sent();
        let calls = socket::send(&self.stream, &mut link.transmit)
            .map_err(|error| HostError::from(&error))?;
        self.shared.table.borrow_mut().counters.send_calls += calls;
        self.local.counters().count_socket_calls(calls);
        if !link.transmit.is_empty() {
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => return Ok(true),
                Poll::Ready(Err(error)) => return Err(HostError::from(&error)),
            }
        }
        Ok(link.transmit.sent() > before)
    }

    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool, HostError> {
        let (shared, link) = (Rc::clone(&self.shared), Rc::clone(&self.link));
        let (mut table, mut link) = (shared.table.borrow_mut(), link.borrow_mut());
        loop {
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(error)) => return Err(HostError::from(&error)),
                Poll::Ready(Ok(())) => {}
            }
            let count = self.read(&mut link, &mut table)?;
            table.counters.receive_calls += 1;
            self.local.counters().count_socket_calls(1);
            match count {
                // The read before took exactly what there was. Only the next look leaves our waker with the socket.
                None => {}
                Some(0) => return Err(HostError::Closed),
                Some(count) => {
                    self.take(&mut link, &mut table, count)?;
                    break;
                }
            }
        }
        let released = table.take_released();
        drop(table);
        self.shared.permits.add_permits(released);
        Ok(true)
    }

    /// One read: the rest of the data under way straight into its buffer, what follows into the area.
    fn read(&mut self, link: &mut TcpLink, table: &mut Table) -> Result<Option<usize>, HostError> {
        let limit = if link.expects_large_data() { AHEAD_OF_DATA_BYTES } else { usize::MAX };
        let direct: &mut [u8] = match link.codec.payload_remaining() {
            Some((cid, remaining)) => {
                let rest = rest(table, cid);
                let len = rest.len().min(remaining);
                &mut rest[..len]
            }
            None => &mut [],
        };
        let result = socket::receive_split(&self.stream, direct, self.area.spare(limit));
        result.map_err(|error| HostError::from(&error))
    }

    fn take(
        &mut self,
        link: &mut TcpLink,
        table: &mut Table,
        count: usize,
    ) -> Result<(), HostError> {
        let mut for_area = count;
        if let Some((cid, remaining)) = link.codec.payload_remaining() {
            let direct = count.min(remaining);
            for_area = count - direct;
            let event = link.received(table, cid, direct);
            link.handle(table, &event)?;
        }
        self.area.received(for_area);
        loop {
            let (consumed, event) =
                link.codec.next(self.area.unread()).map_err(HostError::Violation)?;
            match event {
                HostEvent::Need(bytes) => {
                    self.area.make_room(bytes);
                    return Ok(());
                }
                HostEvent::Data { cid, range } => {
                    let bytes = &self.area.unread()[range];
                    let rest = rest(table, cid);
                    let taken = rest.len().min(bytes.len());
                    rest[..taken].copy_from_slice(&bytes[..taken]);
                    if let Some(slot) = table.slot(cid) {
                        slot.filled += taken;
                    }
                }
                HostEvent::Terminated { fes, fei } => {
                    return Err(HostError::Terminated { fes, fei });
                }
                other => link.handle(table, &other)?,
            }
            self.area.consume(consumed);
        }
    }
}
