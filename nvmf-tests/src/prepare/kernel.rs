//! Debian's kernels in the cache: fetched as packages, unpacked, never installed.

use std::cmp::Ordering;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use super::{initrd, say};
use crate::paths;
use crate::process::run;

/// The lines of stock kernels that the lab boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Debian 12's own.
    V6_1,
    /// The newer one that Debian 12 offers beside it.
    V6_12,
}

impl Kernel {
    /// Both, in the order in which the lab boots them.
    pub const ALL: [Self; 2] = [Self::V6_12, Self::V6_1];

    fn line(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.line())
    }
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kernel| kernel.line() == text);
        found.ok_or_else(|| format!("the lab has kernels 6.1 and 6.12, not {text}"))
    }
}

/// What QEMU needs of a kernel.
#[derive(Clone, Debug)]
pub struct KernelFiles {
    /// As `uname -r` prints it.
    pub version: String,
    /// The kernel image.
    pub image: PathBuf,
    /// The folder that becomes `/usr/lib/modules/VERSION` in the guest.
    pub modules: PathBuf,
    /// The initrd, an uncompressed cpio archive.
    pub initrd: PathBuf,
}

fn tree(kernel: Kernel) -> Result<PathBuf> {
    Ok(paths::cache()?.join(format!("linux-{kernel}")))
}

/// The files of a kernel in the cache.
pub fn files(kernel: Kernel) -> Result<KernelFiles> {
    let tree = tree(kernel)?;
    let Ok(version) = fs::read_to_string(tree.join("version")) else {
        bail!("kernel {kernel} has not been fetched; `cargo lab test` fetches it");
    };
    let initrd = tree.join(initrd::file_name());
    if !initrd.is_file() {
        bail!("the initrd for kernel {kernel} has not been made; `cargo lab test` makes it");
    }
    Ok(KernelFiles {
        image: tree.join("boot").join(format!("vmlinuz-{version}")),
        modules: tree.join("lib/modules").join(&version),
        initrd,
        version,
    })
}

/// Fetches and unpacks a kernel, and makes its initrd, unless that has been done.
pub fn fetch(kernel: Kernel) -> Result<()> {
    let tree = tree(kernel)?;
    if !tree.join("version").is_file() {
        let partial = tree.with_extension("partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)?;
        let (apt, package) = find_package(kernel)?;
        say(&format!(
            "fetching Debian's {package} (about 70 to 100 MB, unpacked into the cache, not installed)"
        ));
        apt.unpack(&package, &partial)?;
        let version = finish(&partial)?;
        fs::write(partial.join("version"), version)?;
        let _ = fs::remove_dir_all(&tree);
        fs::rename(&partial, &tree)
            .with_context(|| format!("move the kernel to {}", tree.display()))?;
    }
    if files(kernel).is_err() {
        let version = fs::read_to_string(tree.join("version"))?;
        let partial = tree.join("initrd.partial");
        fs::write(&partial, initrd::build(&tree, &version)?)?;
        fs::rename(&partial, tree.join(initrd::file_name()))?;
    }
    Ok(())
}

/// Indexes the modules of an unpacked package; returns the kernel's version.
fn finish(tree: &Path) -> Result<String> {
    if tree.join("usr/lib/modules").is_dir() && !tree.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", tree.join("lib"))?;
    }
    let mut versions =
        fs::read_dir(tree.join("lib/modules")).context("look for modules in the kernel package")?;
    let version = versions.next().context("the kernel package has no modules")??.file_name();
    let version = version.to_string_lossy().into_owned();
    run(Command::new("depmod")
        .arg("-b")
        .arg(tree)
        .arg(&version)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"))
    .context("index the kernel's modules")?;
    Ok(version)
}

fn find_package(kernel: Kernel) -> Result<(Apt, String)> {
    let system = Apt::system();
    if let Some(name) = newest(kernel, system.names(&pattern(kernel)).unwrap_or_default()) {
        return Ok((system, name));
    }
    say(&format!(
        "this system's package lists have no kernel {kernel}; asking Debian 12's archive"
    ));
    let private = Apt::private()?;
    match newest(kernel, private.names(&pattern(kernel))?) {
        Some(name) => Ok((private, name)),
        None => {
            bail!("no package of kernel {kernel} in this system's lists or in Debian 12's archive")
        }
    }
}

fn pattern(kernel: Kernel) -> String {
    format!("^linux-image-{}\\.", kernel.line().replace('.', "\\."))
}

/// The newest plain image: no meta package, no unsigned, cloud, real-time or debug variant.
fn newest(kernel: Kernel, names: Vec<String>) -> Option<String> {
    let prefix = format!("linux-image-{kernel}.");
    let plain = |name: &String| {
        let Some(version) = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix("-amd64"))
        else {
            return false;
        };
        !["cloud", "rt", "dbg", "unsigned"].iter().any(|variant| version.contains(variant))
    };
    names.into_iter().filter(plain).max_by(|a, b| by_version(a, b))
}

fn by_version(a: &str, b: &str) -> Ordering {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_plain_kernel_of_the_line_is_chosen() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.1.0-58-cloud-amd64",
            "linux-image-6.1.0-59-amd64-dbg",
            "linux-image-6.1.0-60-amd64-unsigned",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.99+deb12-amd64",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(
            newest(Kernel::V6_1, names.clone()).as_deref(),
            Some("linux-image-6.1.0-56-amd64")
        );
        assert_eq!(
            newest(Kernel::V6_12, names).as_deref(),
            Some("linux-image-6.12.117+deb12-amd64")
        );
        assert_eq!(newest(Kernel::V6_1, vec!["linux-image-amd64".to_owned()]), None);
    }
}
