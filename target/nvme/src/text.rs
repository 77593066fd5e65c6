//! Fixed-width text fields: serial and model numbers, transport addresses.

/// `text` in a field of `N` bytes, padded with spaces on the right and cut when longer. What is
/// not printable ASCII becomes `?`, as hosts print these fields unchecked.
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (slot, character) in field.iter_mut().zip(text.chars()) {
        *slot = match u8::try_from(character) {
            Ok(byte) if byte == b' ' || byte.is_ascii_graphic() => byte,
            _ => b'?',
        };
    }
    field
}

/// The text of a field padded with spaces or NULs; `None` unless it is UTF-8.
pub fn trimmed(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = std::str::from_utf8(field.get(..end)?).ok()?;
    Some(text.trim_end_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_padded_cut_and_cleaned() {
        assert_eq!(&padded::<6>("AFS1"), b"AFS1  ");
        assert_eq!(&padded::<3>("AFS1"), b"AFS");
        assert_eq!(&padded::<4>("a\né"), b"a?? ");
    }

    #[test]
    fn padding_of_either_kind_is_taken_off() {
        assert_eq!(trimmed(b"10.0.0.1  "), Some("10.0.0.1"));
        assert_eq!(trimmed(b"10.0.0.1\0 junk"), Some("10.0.0.1"));
        assert_eq!(trimmed(b"\xff\xfe"), None);
        assert_eq!(trimmed(b""), Some(""));
    }
}
