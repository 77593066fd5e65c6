//! Which programs the lab uses, which package has each, and installing what is missing.

use std::env;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Consent, apt, say};

/// A program that the lab runs, here or in a guest.
#[derive(Debug, PartialEq, Eq)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
}

const TOOLS: [Tool; 15] = [
    Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Tool { program: "busybox", package: "busybox-static" },
    Tool { program: "modprobe", package: "kmod" },
    Tool { program: "xz", package: "xz-utils" },
    Tool { program: "zstd", package: "zstd" },
    Tool { program: "nvme", package: "nvme-cli" },
    Tool { program: "fio", package: "fio" },
    Tool { program: "mkfs.ext4", package: "e2fsprogs" },
    Tool { program: "mkfs.xfs", package: "xfsprogs" },
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "ss", package: "iproute2" },
    Tool { program: "fstrim", package: "util-linux" },
    Tool { program: "setpriv", package: "util-linux" },
    Tool { program: "bash", package: "bash" },
    Tool { program: "prometheus", package: "prometheus" },
];

/// The tools that are not on this machine.
pub fn missing() -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| !installed(tool.program)).collect()
}

/// Their programs, for a message.
pub fn names(tools: &[&Tool]) -> String {
    tools.iter().map(|tool| tool.program).collect::<Vec<_>>().join(", ")
}

fn installed(program: &str) -> bool {
    // A user's PATH often lacks the sbin folders, where mkfs and modprobe live.
    let path = env::var_os("PATH").unwrap_or_default();
    let folders =
        env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(Into::into));
    folders.into_iter().any(|folder| folder.join(program).is_file())
        && (program != "busybox" || busybox_is_static())
}

/// The initrd has no libraries, so a busybox that needs some does not start there.
fn busybox_is_static() -> bool {
    ["/usr/bin/busybox", "/bin/busybox"].iter().any(|path| match std::fs::read(path) {
        Ok(bytes) => !bytes.windows(14).any(|window| window == b"/lib64/ld-linu"),
        Err(_) => false,
    })
}

/// Installs what is missing, after asking once.
pub fn install_missing(consent: Consent) -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let list = packages.join(" ");
    if !knows_apt() {
        bail!(
            "this system is neither Debian nor Ubuntu; please install these programs and run again: {} (on Debian \
             they are in: {list})",
            names(&missing)
        );
    }
    let root = rustix::process::geteuid().is_root();
    if !root && !installed("sudo") {
        bail!(
            "missing packages: {list}. Neither root nor sudo here; as root run: apt-get install {list}"
        );
    }
    let how = if root { "apt-get" } else { "sudo apt-get" };
    say(&format!("missing on this machine: {}", names(&missing)));
    if consent == Consent::Ask
        && !confirmed(&format!("lab: install with `{how} install {list}`? [Y/n] "))?
    {
        bail!("not installed; run `{how} install {list}` yourself, then start again");
    }
    apt::install(&packages, root)?;
    let still: Vec<_> = self::missing();
    if !still.is_empty() {
        bail!("still missing after the installation: {}", names(&still));
    }
    Ok(())
}

fn knows_apt() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let like_debian = release.lines().any(|line| {
        (line.starts_with("ID=") || line.starts_with("ID_LIKE="))
            && (line.contains("debian") || line.contains("ubuntu"))
    });
    like_debian
        && Path::new("/usr/bin/apt-get").exists()
        && Command::new("apt-get").arg("--version").output().is_ok()
}

fn confirmed(question: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("{question}\nlab: nobody to ask here: pass --yes to agree");
    }
    eprint!("{question}");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_exists_nowhere_is_not_installed() {
        assert!(installed("sh"));
        assert!(!installed("no-such-program-in-any-folder"));
    }
}
