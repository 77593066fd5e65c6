//! The guest's kernel log: what the host's drivers complained about.

use anyhow::{Result, bail};

use super::Shell;

/// Marks of trouble anywhere in the kernel, whatever level they are logged at.
const ALARMS: [&str; 7] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "Call Trace",
    "blocked for more than",
    "general protection",
    "soft lockup",
];

/// Words that make a warning or an error one of ours.
const OURS: [&str; 8] = [
    "nvme",
    "blk_update",
    "I/O error",
    "Buffer I/O",
    "EXT4-fs error",
    "XFS",
    "EXT4-fs warning",
    "multipath",
];

/// The lines of `dmesg --raw` that a stock host should not have written: alarms, and nvme, file system or block
/// messages of level warning or worse.
pub fn complaints(raw_log: &str) -> Vec<String> {
    raw_log.lines().filter(|line| is_complaint(line)).map(str::to_owned).collect()
}

fn is_complaint(line: &str) -> bool {
    if ALARMS.iter().any(|alarm| line.contains(alarm)) {
        return true;
    }
    // How often a message was left out is said by the next one of its kind.
    if line.contains("callbacks suppressed") {
        return false;
    }
    // "<4>[   12.3] text": facility and level in one number, the level in its low three bits.
    let level = line
        .strip_prefix('<')
        .and_then(|rest| rest.split('>').next())
        .and_then(|number| number.parse::<u32>().ok());
    level.is_some_and(|level| level & 7 <= 4) && OURS.iter().any(|word| line.contains(word))
}

impl Shell {
    /// The kernel log since boot or the last [`clear_dmesg`](Self::clear_dmesg), with levels.
    pub fn dmesg(&self) -> Result<String> {
        self.ok("dmesg --raw")
    }

    /// Forgets the kernel log so far.
    pub fn clear_dmesg(&self) -> Result<()> {
        self.ok("dmesg --clear").map(drop)
    }

    /// Fails when the kernel complained about a device, a controller or a file system since the log was cleared.
    pub fn assert_no_nvme_warnings(&self) -> Result<()> {
        self.assert_no_complaints_but(&[])
    }

    /// As [`assert_no_nvme_warnings`](Self::assert_no_nvme_warnings), but lines with one of these texts are expected.
    pub fn assert_no_complaints_but(&self, expected: &[&str]) -> Result<()> {
        let found: Vec<String> = complaints(&self.dmesg()?)
            .into_iter()
            .filter(|line| !expected.iter().any(|text| line.contains(text)))
            .collect();
        if !found.is_empty() {
            bail!("the guest's kernel complained:\n{}", found.join("\n"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_nvme_are_complaints_and_news_are_not() {
        let log = "<6>[    5.1] nvme nvme0: new ctrl: NQN \"x\", addr 10.0.2.2:4420\n\
                   <4>[    5.2] nvme nvme0: Failed to read smart log (error 4)\n\
                   <4>[    5.3] sd 0:0:0:0: something else\n\
                   <30>[    6.0] systemd[1]: nvme started\n\
                   <6>[    7.0] INFO: task fio blocked for more than 120 seconds.\n\
                   <3>[    8.0] blk_update_request: I/O error, dev nvme0n1";
        let found = complaints(log);
        assert_eq!(found.len(), 3);
        assert!(
            found[0].contains("smart log")
                && found[1].contains("blocked")
                && found[2].contains("I/O error")
        );
    }
}
