//! What names may look like, and which known name a mistyped one was meant to be.
//!
//! Used wherever a name comes in: MetaDB's decisions, node reports, the configuration.

/// Longest NQN in bytes (`CONFORMANCE F-8`).
pub const MAX_NQN_BYTES: usize = 223;

/// Longest name of a volume or node.
pub const MAX_NAME_BYTES: usize = 63;

/// The discovery service's NQN, which is no subsystem of ours to create (`CONFORMANCE D-1`).
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// Stands for every host in `host allow` and `host deny`.
pub const ANY_HOST: &str = "any";

/// What is wrong with an NQN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NqnFault {
    /// Empty or more than [`MAX_NQN_BYTES`].
    #[error("it must be 1 to 223 bytes long")]
    Length,
    /// Does not begin with `nqn.` and a year and month.
    #[error("it must begin with nqn.YYYY-MM. (the month in which you owned the domain)")]
    Date,
    /// No domain in reverse order before the colon.
    #[error("after the date it needs your domain in reverse order, such as com.example")]
    Domain,
    /// No text of one's own after a colon.
    #[error("after the domain it needs a colon and a name of your choice, such as :database")]
    Suffix,
    /// White space or a control character.
    #[error("it must not contain white space or control characters")]
    Character,
    /// The discovery service's own.
    #[error("it is the name of the discovery service, which every node answers by itself")]
    Discovery,
}

/// Checks the form `nqn.YYYY-MM.reverse.domain:name` (NVMe Base 2.0 §4.5).
pub fn check_nqn(nqn: &str) -> Result<(), NqnFault> {
    if nqn.is_empty() || nqn.len() > MAX_NQN_BYTES {
        return Err(NqnFault::Length);
    }
    if nqn == DISCOVERY_NQN {
        return Err(NqnFault::Discovery);
    }
    if nqn.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(NqnFault::Character);
    }
    let (date, rest) =
        nqn.strip_prefix("nqn.").and_then(|rest| rest.split_once('.')).ok_or(NqnFault::Date)?;
    if !is_year_and_month(date) {
        return Err(NqnFault::Date);
    }
    let (domain, own) = rest.split_once(':').ok_or(NqnFault::Suffix)?;
    if !domain.split('.').all(is_domain_label) {
        return Err(NqnFault::Domain);
    }
    if own.is_empty() { Err(NqnFault::Suffix) } else { Ok(()) }
}

fn is_year_and_month(date: &str) -> bool {
    let Some((year, month)) = date.split_once('-') else { return false };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    year.len() == 4
        && digits(year)
        && month.len() == 2
        && digits(month)
        && month.parse().is_ok_and(|month: u8| (1..=12).contains(&month))
}

fn is_domain_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether a volume or node may have this name: 1 to 63 of `a-z 0-9 . _ -`, the first one a
/// letter or digit, so that no name looks like a flag or a hidden file.
pub fn is_name(name: &str) -> bool {
    let ok = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= MAX_NAME_BYTES
        && name.as_bytes().first().is_some_and(ok)
        && name.bytes().all(|byte| ok(&byte) || b"._-".contains(&byte))
}

/// The known name that is nearest to a mistyped one, if any is near.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wanted.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, name)| {
            *distance <= limit || (wanted.len() >= 3 && name.contains(wanted))
        })
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_nqns_are_accepted() {
        for nqn in [
            "nqn.2026-11.com.example:a",
            "nqn.2014-08.org.nvmexpress:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "nqn.2026-01.io.Afs-1:Größe/1",
            &format!("nqn.2026-11.com.example:{}", "x".repeat(199)),
        ] {
            assert_eq!(check_nqn(nqn), Ok(()), "{nqn}");
        }
    }

    #[test]
    fn each_fault_of_an_nqn_is_named() {
        let long = format!("nqn.2026-11.com.example:{}", "x".repeat(200));
        for (nqn, fault) in [
            ("", NqnFault::Length),
            (long.as_str(), NqnFault::Length),
            ("database", NqnFault::Date),
            ("nqn.com.example:a", NqnFault::Date),
            ("nqn.2026-13.com.example:a", NqnFault::Date),
            ("nqn.26-11.com.example:a", NqnFault::Date),
            ("nqn.+026-11.com.example:a", NqnFault::Date),
            ("NQN.2026-11.com.example:a", NqnFault::Date),
            ("nqn.2026-11.:a", NqnFault::Domain),
            ("nqn.2026-11.com..example:a", NqnFault::Domain),
            ("nqn.2026-11.com.example", NqnFault::Suffix),
            ("nqn.2026-11.com.example:", NqnFault::Suffix),
            ("nqn.2026-11.com.example:a b", NqnFault::Character),
            ("nqn.2026-11.com.example:a\0", NqnFault::Character),
            (DISCOVERY_NQN, NqnFault::Discovery),
        ] {
            assert_eq!(check_nqn(nqn), Err(fault), "{nqn:?}");
        }
    }

    #[test]
    fn names_are_short_lower_case_and_do_not_look_like_flags() {
        for name in ["a", "db-1", "0.vol_2", &"x".repeat(63)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "A", "-a", ".a", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn nearest_finds_typing_mistakes_and_nothing_far() {
        let known = ["database", "logs", "nqn.2026-11.com.example:db"];
        assert_eq!(nearest("databse", known), Some("database"));
        assert_eq!(nearest("log", known), Some("logs"));
        assert_eq!(nearest("example:db", known), Some("nqn.2026-11.com.example:db"));
        assert_eq!(nearest("photos", known), None);
        assert_eq!(nearest("", known), None);
    }
}
