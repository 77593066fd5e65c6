//! Between Rust's unsigned numbers and SQL's signed ones.

use super::DbError;

/// For binding. Larger values do not occur (sizes end at 64 TiB); if one did, it would saturate.
pub(super) fn sql(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// For reading what the schema cannot keep within range.
pub(super) fn narrow<T: TryFrom<i64>>(value: i64, what: &str) -> Result<T, DbError> {
    value.try_into().map_err(|_| DbError::Damaged(format!("{what} {value}")))
}

/// Milliseconds since 1970, UTC.
pub(super) fn now_ms() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    sql(since.as_millis())
}
