//! What several parts of the API share: errors, outcomes, versions, the NGUID.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What kind of refusal an [`ErrorBody`] is. Programs decide by this, never by the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A value in the request is malformed or out of range (HTTP 400).
    Invalid,
    /// The named object does not exist (HTTP 404).
    NotFound,
    /// An object of that name is there already (HTTP 409).
    Exists,
    /// Somebody else changed the object since it was read, or at the same moment (HTTP 409).
    Conflict,
    /// The object is in use by another one, which must go first (HTTP 409).
    InUse,
    /// No disk can take the volume, or every NSID is taken (HTTP 409).
    NoSpace,
    /// The body is larger than this call accepts (HTTP 413).
    TooLarge,
    /// The conductor is stopping (HTTP 503).
    Unavailable,
    /// This conductor is not the active one and did nothing: the active one is at the `Location`
    /// (HTTP 307), or not known yet (HTTP 503).
    Standby,
    /// MetaDB failed; the conductor's log has the reason (HTTP 500).
    Internal,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What kind of refusal this is.
    pub error: ErrorCode,
    /// What went wrong, for a person.
    pub message: String,
    /// What to do next, for a person; may be empty.
    pub hint: String,
}

/// How far a change has come when the call returns. The change itself is durable in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// The revision that the change made.
    pub revision: u64,
    /// Names of nodes that are up and have not reported this revision yet.
    pub waiting_for: Vec<String>,
    /// What a person should know, such as "size rounded up to ...".
    pub notes: Vec<String>,
    /// What a node reported to have gone wrong with the change.
    pub problems: Vec<String>,
}

/// Optional query of a call that changes an object: refuse with [`ErrorCode::Conflict`] unless the
/// object still has this version.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Version {
    /// The `version` of the object when it was read.
    pub version: Option<u64>,
}

/// A namespace's NGUID: 16 bytes, written as 32 hexadecimal digits (`CONFORMANCE A-21`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nguid(pub [u8; 16]);

/// Why a text is not an NGUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an NGUID is 32 hexadecimal digits")]
pub struct NguidError;

impl fmt::Display for Nguid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Nguid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nguid({self})")
    }
}

impl FromStr for Nguid {
    type Err = NguidError;

    fn from_str(text: &str) -> Result<Self, NguidError> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NguidError);
        }
        u128::from_str_radix(text, 16).map(|value| Self(value.to_be_bytes())).or(Err(NguidError))
    }
}

impl Serialize for Nguid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nguid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nguid_round_trips_through_its_text() {
        let nguid = Nguid([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(nguid.to_string(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(nguid.to_string().parse::<Nguid>().unwrap(), nguid);
        assert_eq!(serde_json::to_string(&nguid).unwrap(), format!("\"{nguid}\""));
    }

    #[test]
    fn nguid_of_wrong_length_or_digits_is_refused() {
        for bad in ["", "00", &"g".repeat(32), &"0".repeat(33), &"+".repeat(32)] {
            assert_eq!(bad.parse::<Nguid>(), Err(NguidError), "{bad}");
        }
    }
}
