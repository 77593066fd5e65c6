//! `cargo lab shell`: a terminal in a guest.

use anyhow::Result;

use crate::guest::{self, GuestOptions};
use crate::prepare::{Consent, Kernel, prepare, say};

/// Boots a guest whose console is this terminal, and returns when the person left it.
pub fn shell(kernel: Kernel, consent: Consent) -> Result<()> {
    prepare(&[kernel], consent)?;
    say(&format!(
        "booting kernel {kernel}; the build machine's loopback is {} in there",
        guest::OUTSIDE
    ));
    say("leave with `exit`; when the guest hangs, Ctrl-A X ends it");
    let mut options = GuestOptions::new(kernel);
    options.interactive = true;
    guest::interactive(&options)
}
