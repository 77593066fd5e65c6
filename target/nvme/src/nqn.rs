//! NVMe qualified names of subsystems and hosts, checked once where they come in (CONFORMANCE F-8).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Longest name in bytes.
pub const LENGTH_MAX: usize = 223;
/// Bytes of a name's field in Connect data, Identify Controller and the discovery log.
pub const FIELD_BYTES: usize = 256;

/// Name of every discovery subsystem (CONFORMANCE D-1).
pub const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// A name of 1 to 223 bytes of UTF-8 without control characters. Compared byte for byte; its form
/// beyond that is the owner's business. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nqn(Arc<str>);

/// Why something is not an [`Nqn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NqnError {
    /// No bytes at all.
    #[error("the NQN is empty; give a name such as nqn.2014-08.org.nvmexpress:uuid:…")]
    Empty,
    /// More than 223 bytes, or no terminating NUL in its field.
    #[error("the NQN is longer than {LENGTH_MAX} bytes; choose a shorter one")]
    TooLong,
    /// Not UTF-8, or a control character in it.
    #[error("the NQN has bytes that are not printable text; use letters, digits, '.', ':' and '-'")]
    NotText,
}

impl Nqn {
    /// Checks a name.
    ///
    /// # Errors
    /// See [`NqnError`].
    pub fn new(name: &str) -> Result<Nqn, NqnError> {
        check(name)?;
        Ok(Nqn(name.into()))
    }

    /// The name of the discovery subsystem.
    pub fn discovery() -> Nqn {
        Nqn(DISCOVERY.into())
    }

    /// Whether this is the well-known discovery name.
    pub fn is_discovery(&self) -> bool {
        self.as_str() == DISCOVERY
    }

    /// Reads a NUL-terminated name from its field; what follows the NUL is ignored.
    ///
    /// # Errors
    /// See [`NqnError`]; a field without NUL is too long.
    pub fn from_field(field: &[u8; FIELD_BYTES]) -> Result<Nqn, NqnError> {
        let end = field.iter().position(|byte| *byte == 0).ok_or(NqnError::TooLong)?;
        let name = field.get(..end).ok_or(NqnError::TooLong)?;
        Nqn::new(std::str::from_utf8(name).map_err(|_| NqnError::NotText)?)
    }

    /// The name in its field, padded with NULs.
    pub fn to_field(&self) -> [u8; FIELD_BYTES] {
        let mut field = [0; FIELD_BYTES];
        for (slot, byte) in field.iter_mut().zip(self.0.bytes()) {
            *slot = byte;
        }
        field
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(name: &str) -> Result<(), NqnError> {
    match name.len() {
        0 => Err(NqnError::Empty),
        1..=LENGTH_MAX if name.chars().any(char::is_control) => Err(NqnError::NotText),
        1..=LENGTH_MAX => Ok(()),
        _ => Err(NqnError::TooLong),
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for Nqn {
    type Err = NqnError;

    fn from_str(name: &str) -> Result<Nqn, NqnError> {
        Nqn::new(name)
    }
}

impl AsRef<str> for Nqn {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn length_limits_hold_at_both_ends() {
        assert_eq!(Nqn::new(""), Err(NqnError::Empty));
        assert_eq!(Nqn::new(&"x".repeat(223)).unwrap().as_str().len(), 223);
        assert_eq!(Nqn::new(&"x".repeat(224)), Err(NqnError::TooLong));
    }

    #[test]
    fn a_name_that_would_forge_log_lines_is_refused() {
        assert_eq!(Nqn::new("nqn.a\nnqn.b"), Err(NqnError::NotText));
        let mut field = [0; FIELD_BYTES];
        field[0] = 0xff;
        assert_eq!(Nqn::from_field(&field), Err(NqnError::NotText));
    }

    #[test]
    fn fields_survive_and_must_be_terminated() {
        let nqn = Nqn::new("nqn.2024-01.net.example:a").unwrap();
        assert_eq!(Nqn::from_field(&nqn.to_field()), Ok(nqn.clone()));
        let mut junk = nqn.to_field();
        junk[255] = 9;
        assert_eq!(Nqn::from_field(&junk), Ok(nqn));
        assert_eq!(Nqn::from_field(&[b'a'; FIELD_BYTES]), Err(NqnError::TooLong));
        assert_eq!(Nqn::from_field(&[0; FIELD_BYTES]), Err(NqnError::Empty));
    }

    #[test]
    fn names_differ_by_case() {
        assert_ne!(Nqn::new("nqn.A"), Nqn::new("nqn.a"));
        assert!(Nqn::discovery().is_discovery());
    }
}
