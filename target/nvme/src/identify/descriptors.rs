//! Namespace identification descriptors (CNS 03h, CONFORMANCE 4.4): what a host tells volumes apart
//! by. They end at the first length of zero (CONFORMANCE A-20).

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::IDENTIFY_BYTES;

const HEADER_BYTES: usize = 4;

/// One identity of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Descriptor {
    /// IEEE EUI-64, most significant byte first.
    Eui64([u8; 8]),
    /// NGUID, most significant byte first.
    Nguid([u8; 16]),
    /// UUID as in RFC 9562.
    Uuid([u8; 16]),
    /// Command set.
    Csi(u8),
}

impl Descriptor {
    /// Type of the descriptor.
    pub const fn kind(&self) -> u8 {
        match self {
            Descriptor::Eui64(_) => 1,
            Descriptor::Nguid(_) => 2,
            Descriptor::Uuid(_) => 3,
            Descriptor::Csi(_) => 4,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Descriptor::Eui64(id) => id,
            Descriptor::Nguid(id) | Descriptor::Uuid(id) => id,
            Descriptor::Csi(csi) => std::slice::from_ref(csi),
        }
    }

    fn read(kind: u8, id: &[u8]) -> Option<Descriptor> {
        match kind {
            1 => Some(Descriptor::Eui64(id.try_into().ok()?)),
            2 => Some(Descriptor::Nguid(id.try_into().ok()?)),
            3 => Some(Descriptor::Uuid(id.try_into().ok()?)),
            4 => <[u8; 1]>::try_from(id).ok().map(|[csi]| Descriptor::Csi(csi)),
            _ => None,
        }
    }
}

/// The list as it goes to the host (4096 bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DescriptorList {
    /// Descriptors one after another, then zeros.
    pub bytes: [u8; IDENTIFY_BYTES],
}

assert_layout!(DescriptorList, 4096, { bytes @ 0 });

impl DescriptorList {
    /// A list of the given descriptors. One of each type is meant; what would not fit together with
    /// the end mark is left out.
    pub fn new(descriptors: &[Descriptor]) -> DescriptorList {
        let mut list = DescriptorList::new_zeroed();
        let mut rest = list.bytes.split_last_chunk_mut::<HEADER_BYTES>().map(|(room, _)| room);
        for descriptor in descriptors {
            rest = rest.and_then(|room| append(room, descriptor));
        }
        list
    }

    /// The descriptors of known type and right length, as a host reads them.
    pub fn iter(&self) -> Descriptors<'_> {
        Descriptors { rest: &self.bytes }
    }
}

fn append<'a>(room: &'a mut [u8], descriptor: &Descriptor) -> Option<&'a mut [u8]> {
    let id = descriptor.bytes();
    let (place, rest) = room.split_at_mut_checked(HEADER_BYTES + id.len())?;
    let (header, body) = place.split_first_chunk_mut::<HEADER_BYTES>()?;
    *header = [descriptor.kind(), u8::try_from(id.len()).ok()?, 0, 0];
    body.copy_from_slice(id);
    Some(rest)
}

/// Iterator over a [`DescriptorList`]; ends at a zero length or at a broken descriptor.
#[derive(Clone, Debug)]
pub struct Descriptors<'a> {
    rest: &'a [u8],
}

impl Iterator for Descriptors<'_> {
    type Item = Descriptor;

    fn next(&mut self) -> Option<Descriptor> {
        loop {
            let ([kind, length, _, _], rest) = self.rest.split_first_chunk::<HEADER_BYTES>()?;
            if *length == 0 {
                return None;
            }
            let (id, rest) = rest.split_at_checked(usize::from(*length))?;
            self.rest = rest;
            if (1..=4).contains(kind) {
                return Descriptor::read(*kind, id);
            }
        }
    }
}
