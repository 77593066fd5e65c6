//! Packages by apt: installing tools on this system, and fetching kernel packages without installing them.
//!
//! A system whose own lists do not have the kernel (Ubuntu, a newer Debian, an image with empty lists) gets a private
//! apt folder in the cache that knows Debian 12's archive; that needs no root and leaves the system's apt alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::say;
use crate::paths;
use crate::process::run;

/// Environment variable that names a mirror of Debian's archive.
const MIRROR: &str = "AFS_LAB_DEBIAN_MIRROR";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Installs packages on this system; `root` tells whether sudo is needed.
pub fn install(packages: &[&str], root: bool) -> Result<()> {
    let apt = |arguments: &[&str]| -> Result<bool> {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        }
        let status = command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments).status();
        Ok(status.context("start apt-get")?.success())
    };
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend(packages);
    if apt(&arguments)? {
        return Ok(());
    }
    say("that did not work; refreshing the package lists and trying once more");
    if !apt(&["update", "--quiet"])? || !apt(&arguments)? {
        bail!(
            "apt-get could not install {}: see its message above; is there a network?",
            packages.join(" ")
        );
    }
    Ok(())
}

/// Where Debian's archive is: what the person says, or what this system's own apt uses.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR) {
        return Ok(mirror.trim_end_matches('/').to_owned());
    }
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|e| e.path()),
    );
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    match texts.filter_map(|text| mirror_in(&text)).next() {
        Some(mirror) => Ok(mirror),
        None => bail!(
            "this system's package lists have no such kernel; set {MIRROR} to a mirror of Debian's archive (a URL that \
             ends in /debian, with the security archive beside it), then run again"
        ),
    }
}

/// The first address of a Debian archive in a list of apt's sources, in either of its two notations.
fn mirror_in(sources: &str) -> Option<String> {
    let lines = sources.lines().map(str::trim_start).filter(|line| !line.starts_with('#'));
    let mut words = lines.flat_map(str::split_whitespace).map(|word| word.trim_end_matches('/'));
    words.find(|word| word.contains("://") && word.ends_with("/debian")).map(str::to_owned)
}

/// A place to look for packages.
pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// The system's own lists.
    pub fn system() -> Self {
        Self { options: Vec::new() }
    }

    /// Debian 12's archive in a folder of the lab's own.
    pub fn private() -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!(
                "this system's package lists have no such kernel, and without {KEYRING} the lab cannot check packages \
                 from Debian's archive: install the package debian-archive-keyring, then run again"
            );
        }
        let root = paths::cache()?.join("apt");
        for folder in ["lists/partial", "archives/partial", "etc/preferences.d", "etc/apt.conf.d"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let mirror = mirror()?;
        let sources = root.join("etc/sources.list");
        fs::write(
            &sources,
            format!(
                "deb [arch=amd64 signed-by={KEYRING}] {mirror} bookworm main\n\
                 deb [arch=amd64 signed-by={KEYRING}] {mirror}-security bookworm-security main\n"
            ),
        )?;
        fs::write(root.join("status"), "")?;
        let set = |key: &str, value: PathBuf| format!("{key}={}", value.display());
        let options = vec![
            set("Dir::Etc::sourcelist", sources),
            set("Dir::Etc::sourceparts", root.join("etc/none")),
            set("Dir::State::lists", root.join("lists")),
            set("Dir::State::status", root.join("status")),
            set("Dir::Cache", root.join("archives")),
            "APT::Architecture=amd64".to_owned(),
            "APT::Sandbox::User=".to_owned(),
        ];
        let apt = Self { options };
        run(apt.command("apt-get").args(["update", "--quiet"])).with_context(|| {
            format!("fetch the package lists of Debian 12 from {mirror} (is there a network, or a proxy in the way?)")
        })?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// The names of all packages that match a pattern.
    pub fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let output = run(self.command("apt-cache").args(["search", "--names-only", pattern]))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect())
    }

    /// Downloads a package and unpacks its files into `folder`.
    pub fn unpack(&self, package: &str, folder: &Path) -> Result<()> {
        run(self.command("apt-get").args(["download", "--quiet", package]).current_dir(folder))
            .with_context(|| format!("download the package {package} (is there a network?)"))?;
        let packages: Vec<PathBuf> = fs::read_dir(folder)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        let [package] = packages.as_slice() else {
            bail!("apt-get download left {} packages", packages.len())
        };
        run(Command::new("dpkg").arg("-x").arg(package).arg(folder))
            .context("unpack the kernel package")?;
        fs::remove_file(package)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_is_found_in_both_notations_of_apt() {
        let old = "# deb http://no.example/debian x\ndeb [arch=amd64] http://a.example/debian/ bookworm main\n";
        let new = "Types: deb\nURIs: http://b.example/debian\nSuites: trixie\n";
        assert_eq!(mirror_in(old).as_deref(), Some("http://a.example/debian"));
        assert_eq!(mirror_in(new).as_deref(), Some("http://b.example/debian"));
        assert_eq!(mirror_in("URIs: http://c.example/ubuntu\n"), None);
    }
}
