//! A connection that sends any bytes, for hosts that no library would be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use afs_fabric::Limits;
use afs_fabric::codec::Digests;
use afs_fabric::codec::encode::{DataPiece, Encoder};
use afs_nvme::command::{Connect, IoCommand, Rw};
use afs_nvme::tcp::{CapsuleResp, IcReq, PduType, R2t, TermReq};
use afs_nvme::{Cqe, Sgl, Sqe, Status};
use zerocopy::{FromBytes, IntoBytes};

use super::{DEADLINE, Server};

pub const NONE: Digests = Digests { header: false, data: false };
pub const BOTH: Digests = Digests { header: true, data: true };

/// A raw connection, blocking, with a deadline on each read.
pub struct Raw {
    pub stream: TcpStream,
    pub encoder: Encoder,
}

/// One PDU as it came.
#[derive(Debug)]
pub struct Pdu {
    pub bytes: Vec<u8>,
}

impl Pdu {
    pub fn kind(&self) -> PduType {
        PduType::from_byte(self.bytes[0]).unwrap()
    }

    pub fn cqe(&self) -> Cqe {
        assert_eq!(self.kind(), PduType::CapsuleResp, "{self:?}");
        CapsuleResp::read_from_bytes(&self.bytes[..24]).unwrap().cqe
    }

    pub fn r2t(&self) -> R2t {
        assert_eq!(self.kind(), PduType::R2t, "{self:?}");
        R2t::read_from_bytes(&self.bytes[..24]).unwrap()
    }

    /// FES, FEI and the offending header of a C2HTermReq.
    pub fn term(&self) -> (u16, u32, &[u8]) {
        assert_eq!(self.kind(), PduType::C2hTermReq, "{self:?}");
        let term = TermReq::read_from_bytes(&self.bytes[..24]).unwrap();
        (term.fes.get(), term.fei.get(), &self.bytes[24..])
    }
}

impl Raw {
    pub fn open(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Raw { stream, encoder: Encoder::plain() }
    }

    /// Opens a connection and has its ICReq answered.
    pub fn initialized(address: SocketAddr, digests: Digests) -> Raw {
        let mut raw = Raw::open(address);
        let mut request = Vec::new();
        Encoder::ic_request(&mut request, digests, 0);
        raw.send(&request);
        let response = raw.receive();
        assert_eq!((response.kind(), response.bytes.len()), (PduType::IcResp, 128));
        raw.encoder = Encoder { digests, alignment: 4 };
        raw
    }

    /// Opens a connection and connects it as queue `qid` with 8 entries.
    pub fn connected(address: SocketAddr, digests: Digests, qid: u16) -> Raw {
        let mut raw = Raw::initialized(address, digests);
        let connect = Connect { qid, sqsize: 7, disable_sq_flow: false, kato_ms: 0 };
        raw.command(connect.to_sqe(), &[0; 1024]);
        assert!(raw.receive().cqe().status().is_success());
        raw
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The bytes of a capsule with this in-capsule data; SGL as it is.
    pub fn capsule(&self, sqe: Sqe, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encoder.command(&mut bytes, sqe, data.len() as u32);
        if !data.is_empty() {
            bytes.extend_from_slice(data);
            self.encoder.data_digest(&mut bytes, data);
        }
        bytes
    }

    pub fn command(&mut self, sqe: Sqe, data: &[u8]) {
        let capsule = self.capsule(sqe, data);
        self.send(&capsule);
    }

    /// The next PDU; fails at the end of the stream.
    pub fn receive(&mut self) -> Pdu {
        self.try_receive().expect("the connection was closed")
    }

    /// The next PDU, or nothing when the target closed.
    pub fn try_receive(&mut self) -> Option<Pdu> {
        let mut bytes = vec![0; 8];
        if let Err(error) = self.stream.read_exact(&mut bytes) {
            assert!(error.kind() != std::io::ErrorKind::WouldBlock, "waited too long for a PDU");
            return None;
        }
        let plen = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        bytes.resize(plen, 0);
        self.stream.read_exact(&mut bytes[8..]).unwrap();
        Some(Pdu { bytes })
    }

    /// Asserts that the target ends the connection with this TermReq and nothing after it.
    #[track_caller]
    pub fn expect_term(&mut self, fes: u16, fei: u32) {
        let pdu = self.receive();
        let (got_fes, got_fei, quoted) = pdu.term();
        assert_eq!((got_fes, got_fei), (fes, fei));
        assert!(quoted.len() >= 4, "Linux reads 4 bytes more when header digests are on");
        assert!(self.try_receive().is_none());
    }

    /// Asserts that the target closes without a word.
    #[track_caller]
    pub fn expect_close(&mut self) {
        if let Some(pdu) = self.try_receive() {
            panic!("{pdu:?} came instead of the end");
        }
    }
}

/// A write of `bytes` whose data travels by R2T.
pub fn write_by_r2t(cid: u16, lba: u64, bytes: u32) -> Sqe {
    let rw = Rw { lba, blocks: (bytes / 4096).max(1), fua: false };
    let mut sqe = IoCommand::Write(rw).to_sqe(1);
    sqe.cid.set(cid);
    sqe.sgl = Sgl::transport(bytes);
    sqe
}

/// A write of `bytes` with the data in the capsule.
pub fn write_in_capsule(cid: u16, lba: u64, bytes: u32) -> Sqe {
    let mut sqe = write_by_r2t(cid, lba, bytes);
    sqe.sgl = Sgl::in_capsule(bytes);
    sqe
}

/// A read of `bytes`.
pub fn read(cid: u16, lba: u64, bytes: u32) -> Sqe {
    let mut sqe = IoCommand::Read(Rw { lba, blocks: (bytes / 4096).max(1), fua: false }).to_sqe(1);
    sqe.cid.set(cid);
    sqe.sgl = Sgl::transport(bytes);
    sqe
}

pub fn server() -> Server {
    Server::start(Limits::default())
}

pub fn io_queue(server: &Server) -> Raw {
    Raw::connected(server.address, NONE, 1)
}

pub fn flush(cid: u16) -> Sqe {
    let mut sqe = IoCommand::Flush.to_sqe(1);
    sqe.cid.set(cid);
    sqe
}

/// An ICReq with one byte changed.
pub fn icreq(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = IcReq::new(0).as_bytes().to_vec();
    bytes[at] = byte;
    bytes
}

/// Header of an H2CData PDU, data to follow.
pub fn data_header(raw: &Raw, cid: u16, ttag: u16, offset: u32, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let piece = DataPiece { cid, ttag, offset, length, flags: 0 };
    raw.encoder.data(&mut bytes, PduType::H2cData, piece);
    bytes
}

/// An I/O queue with a write of `bytes` (command 9) whose R2T has come; its TTAG.
pub fn writing(server: &Server, bytes: u32) -> (Raw, u16) {
    let mut raw = io_queue(server);
    raw.command(write_by_r2t(9, 0, bytes), &[]);
    let r2t = raw.receive().r2t();
    assert_eq!((r2t.cccid.get(), r2t.r2to.get(), r2t.r2tl.get()), (9, 0, bytes));
    (raw, r2t.ttag.get())
}

/// Asserts that the queue still works.
#[track_caller]
pub fn expect_alive(raw: &mut Raw) {
    raw.command(flush(77), &[]);
    let cqe = raw.receive().cqe();
    assert_eq!((cqe.cid(), cqe.status()), (77, Status::SUCCESS));
}
