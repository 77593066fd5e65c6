//! How a disk is written: `FILE:SIZE`, `/dev/DEVICE`, `FILE` that exists, or `null:SIZE`.

use std::fmt;
use std::path::{Path, PathBuf};

use conductor::size::{SizeError, human, parse_size};

/// The least that a file or null disk may have.
const DISK_BYTES_MIN: u64 = 16 << 20;

/// A disk that the node is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DiskSpec {
    /// A regular file.
    File {
        /// Where it is.
        path: PathBuf,
        /// Size to make it with if it is missing, in bytes; a file that exists must have this size.
        bytes: Option<u64>,
    },
    /// A block device.
    Device {
        /// Its node under `/dev`.
        path: PathBuf,
    },
    /// Keeps nothing.
    Null {
        /// How much it pretends to have.
        bytes: u64,
    },
}

/// What is wrong with a disk as written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskSpecError {
    /// Empty, or only a size.
    #[error(
        "`{0}` is not a disk: write FILE:SIZE (such as /var/lib/afs/disk:100G), /dev/DEVICE or null:SIZE"
    )]
    Malformed(String),
    /// The size cannot be read.
    #[error("disk `{spec}`: {error}")]
    Size {
        /// As written.
        spec: String,
        /// Why.
        error: SizeError,
    },
    /// Too small to be of use.
    #[error("disk `{0}` is too small: at least 16M are needed")]
    TooSmall(String),
    /// A device has the size that it has.
    #[error("disk `{0}`: a device is used whole, leave out the size")]
    DeviceWithSize(String),
    /// The same path twice.
    #[error("disk `{0}` is given twice")]
    Twice(String),
    /// A node without disks can hold nothing.
    #[error("no disk is given: use --disk FILE:SIZE, --disk /dev/DEVICE or --disk null:SIZE")]
    None,
}

impl DiskSpec {
    /// Reads one disk.
    pub fn parse(text: &str) -> Result<DiskSpec, DiskSpecError> {
        let malformed = || DiskSpecError::Malformed(text.to_owned());
        let (path, size) = match text.rsplit_once(':') {
            Some((path, size)) => (path, Some(size)),
            None => (text, None),
        };
        if path.is_empty() {
            return Err(malformed());
        }
        let bytes = size.map(|size| sized(text, size)).transpose()?;
        match (path, bytes) {
            ("null", Some(bytes)) => Ok(DiskSpec::Null { bytes }),
            ("null", None) => Err(malformed()),
            (path, Some(_)) if path.starts_with("/dev/") => {
                Err(DiskSpecError::DeviceWithSize(text.to_owned()))
            }
            (path, None) if path.starts_with("/dev/") => Ok(DiskSpec::Device { path: path.into() }),
            (path, bytes) => Ok(DiskSpec::File { path: path.into(), bytes }),
        }
    }

    /// Where it is; `None` for a null disk.
    pub fn path(&self) -> Option<&Path> {
        match self {
            DiskSpec::File { path, .. } | DiskSpec::Device { path } => Some(path),
            DiskSpec::Null { .. } => None,
        }
    }
}

impl fmt::Display for DiskSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskSpec::File { path, .. } | DiskSpec::Device { path } => path.display().fmt(f),
            DiskSpec::Null { bytes } => write!(f, "null:{}", human(*bytes)),
        }
    }
}

fn sized(spec: &str, size: &str) -> Result<u64, DiskSpecError> {
    let bytes =
        parse_size(size).map_err(|error| DiskSpecError::Size { spec: spec.to_owned(), error })?;
    if bytes < DISK_BYTES_MIN {
        return Err(DiskSpecError::TooSmall(spec.to_owned()));
    }
    Ok(bytes / 4096 * 4096)
}

/// Reads all disks of a node: at least one, and no path twice.
pub(super) fn parse_all(texts: &[String]) -> Result<Vec<DiskSpec>, DiskSpecError> {
    let mut disks: Vec<DiskSpec> = Vec::with_capacity(texts.len());
    for text in texts {
        let disk = DiskSpec::parse(text)?;
        if disk.path().is_some_and(|path| disks.iter().any(|other| other.path() == Some(path))) {
            return Err(DiskSpecError::Twice(disk.to_string()));
        }
        disks.push(disk);
    }
    if disks.is_empty() { Err(DiskSpecError::None) } else { Ok(disks) }
}
