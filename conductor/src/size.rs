//! Sizes as people write them: `10G`, `512M`, `1T`; binary, always.
//!
//! Used by the CLI to read and to print, and by MetaDB's rules to round.

/// Bytes in a logical block; every size is a multiple of it.
pub const BLOCK_BYTES: u64 = 4096;

/// Largest volume: 64 TiB.
pub const MAX_VOLUME_BYTES: u64 = 64 << 40;

const UNITS: [(&str, u32); 5] = [("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)];

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No digits, or something else than a digit before the unit.
    #[error("`{0}` is not a size: write a whole number and K, M, G or T, such as 10G")]
    Malformed(String),
    /// More than 2^64 bytes.
    #[error("`{0}` is too large: the largest volume is 64T")]
    TooLarge(String),
}

/// Reads a size: digits, then nothing, `K`, `M`, `G`, `T` or `P`, optionally followed by `iB` or
/// `B`, in either case. All units are powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let malformed = || SizeError::Malformed(text.to_owned());
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at_checked(digits).ok_or_else(malformed)?;
    if number.is_empty() {
        return Err(malformed());
    }
    let shift = unit_shift(unit.trim_start()).ok_or_else(malformed)?;
    let too_large = || SizeError::TooLarge(text.to_owned());
    let number: u64 = number.parse().or(Err(too_large()))?;
    number.checked_mul(1 << shift).ok_or_else(too_large)
}

fn unit_shift(unit: &str) -> Option<u32> {
    let upper = unit.to_ascii_uppercase();
    if upper.is_empty() || upper == "B" {
        return Some(0);
    }
    let letter = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    UNITS.iter().find(|(name, _)| *name == letter).map(|(_, shift)| *shift)
}

/// Prints a size for people: exact in the largest unit that divides it, else with one decimal.
pub fn human(bytes: u64) -> String {
    let Some((unit, shift)) = UNITS.iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes}B");
    };
    let whole = bytes >> shift;
    let rest = bytes - (whole << shift);
    let tenths = (rest >> (shift - 10)) * 10 / 1024;
    if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}.{tenths}{unit}") }
}

/// The next multiple of [`BLOCK_BYTES`]; the value itself where there is none.
pub fn round_up(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_in_every_spelling() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4096B", 4096),
            ("1K", 1024),
            ("1kib", 1024),
            ("10G", 10 << 30),
            ("10 GiB", 10 << 30),
            ("3tb", 3 << 40),
            (" 2M ", 2 << 20),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "G", "-1G", "1.5G", "10X", "10GG", "1e3", "٣G", "10 G G"] {
            assert!(matches!(parse_size(text), Err(SizeError::Malformed(_))), "{text}");
        }
        for text in ["99999999999999999999", "16384P", "18446744073709551615K"] {
            assert!(matches!(parse_size(text), Err(SizeError::TooLarge(_))), "{text}");
        }
    }

    #[test]
    fn human_sizes_read_back_when_exact() {
        for bytes in [0, 1, 4096, 10 << 30, 3 << 40, 64 << 40] {
            assert_eq!(parse_size(&human(bytes)), Ok(bytes), "{}", human(bytes));
        }
        assert_eq!(human((1 << 30) + (1 << 29)), "1.5G");
        assert_eq!(human(u64::MAX), "16383.9P");
    }

    #[test]
    fn rounding_goes_up_to_whole_blocks() {
        assert_eq!([0, 1, 4096, 4097].map(round_up), [0, 4096, 4096, 8192]);
    }
}
