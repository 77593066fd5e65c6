//! Which programs and libraries the lab uses, which package has each, and installing what is missing.

use std::env;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Consent, apt, say};

/// Something that the lab uses, here or in a guest.
#[derive(Debug, PartialEq, Eq)]
pub struct Tool {
    need: Need,
    package: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
enum Need {
    /// A program with this name.
    Program(&'static str),
    /// A shared library whose path below a library folder begins like this; what follows is its version.
    Library(&'static str),
    /// A program of PostgreSQL, which Debian keeps in a folder for each version, outside of PATH.
    Postgres(&'static str),
    /// A file at this path.
    File(&'static str),
}

use Need::{File, Library, Postgres, Program};

/// ZooKeeper itself; its manifest names what it needs.
pub const ZOOKEEPER_JAR: &str = "/usr/share/java/zookeeper.jar";

const TOOLS: [Tool; 24] = [
    Tool { need: Program("qemu-system-x86_64"), package: "qemu-system-x86" },
    Tool { need: Program("busybox"), package: "busybox-static" },
    Tool { need: Program("modprobe"), package: "kmod" },
    Tool { need: Program("xz"), package: "xz-utils" },
    Tool { need: Program("zstd"), package: "zstd" },
    Tool { need: Program("nvme"), package: "nvme-cli" },
    Tool { need: Program("fio"), package: "fio" },
    Tool { need: Program("mkfs.ext4"), package: "e2fsprogs" },
    Tool { need: Program("mkfs.xfs"), package: "xfsprogs" },
    Tool { need: Program("ip"), package: "iproute2" },
    Tool { need: Program("ss"), package: "iproute2" },
    Tool { need: Program("fstrim"), package: "util-linux" },
    Tool { need: Program("setpriv"), package: "util-linux" },
    Tool { need: Program("nsenter"), package: "util-linux" },
    Tool { need: Program("nft"), package: "nftables" },
    Tool { need: Program("bash"), package: "bash" },
    Tool { need: Program("prometheus"), package: "prometheus" },
    Tool { need: Program("rdma"), package: "iproute2" },
    Tool { need: Program("java"), package: "default-jre-headless" },
    Tool { need: File(ZOOKEEPER_JAR), package: "zookeeper" },
    Tool { need: Library("libibverbs.so.1"), package: "libibverbs1" },
    Tool { need: Library("librdmacm.so.1"), package: "librdmacm1" },
    Tool { need: Library("libibverbs/librxe-rdmav"), package: "ibverbs-providers" },
    Tool { need: Postgres("initdb"), package: "postgresql" },
];

impl Tool {
    fn name(&self) -> &'static str {
        match self.need {
            Program(name) | Library(name) | Postgres(name) | File(name) => name,
        }
    }

    fn installed(&self) -> bool {
        match self.need {
            Program(name) => program_installed(name),
            Library(beginning) => library_installed(beginning),
            Postgres(program) => postgres_installed(program),
            File(path) => Path::new(path).is_file(),
        }
    }
}

/// The tools that are not on this machine.
pub fn missing() -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| !tool.installed()).collect()
}

/// Those of them without which there is no ZooKeeper.
pub fn missing_for_zookeeper() -> Vec<&'static Tool> {
    let needed = [Program("java"), Program("setpriv"), File(ZOOKEEPER_JAR)];
    missing().into_iter().filter(|tool| needed.contains(&tool.need)).collect()
}

/// Their names, for a message.
pub fn names(tools: &[&Tool]) -> String {
    tools.iter().map(|tool| tool.name()).collect::<Vec<_>>().join(", ")
}

fn program_installed(program: &str) -> bool {
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

fn library_installed(beginning: &str) -> bool {
    let multiarch = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
    [multiarch.as_str(), "/usr/lib64", "/usr/lib"].iter().any(|folder| {
        let path = Path::new(folder).join(beginning);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let name = name.to_string_lossy();
        std::fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                // A link to a library that was removed does not count.
                entry.file_name().to_string_lossy().starts_with(&*name) && entry.path().exists()
            })
        })
    })
}

fn postgres_installed(program: &str) -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin").join(program)).any(|path| path.is_file())
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
            "this system is neither Debian nor Ubuntu; please install these programs and libraries and run again: {} (on Debian \
             they are in: {list})",
            names(&missing)
        );
    }
    let root = rustix::process::geteuid().is_root();
    if !root && !program_installed("sudo") {
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
        assert!(program_installed("sh"));
        assert!(!program_installed("no-such-program-in-any-folder"));
    }

    #[test]
    fn a_library_is_found_by_the_beginning_of_its_path() {
        assert!(library_installed("libc.so"));
        assert!(!library_installed("no-such-folder/libc.so"));
        assert!(!library_installed("libno-such-library"));
    }
}
