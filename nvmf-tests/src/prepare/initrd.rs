//! The initrd of a guest: busybox, the modules that reach the shared root, and `init.sh`.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use crate::process::run;

/// Raise it whenever the content changes, so that cached initrds are made anew.
const GENERATION: u32 = 4;

/// What the kernel must be able to do before it sees the build machine's root; the rest is loaded from there.
const MODULES: [&str; 6] =
    ["virtio_pci", "virtio_console", "virtio_rng", "9pnet_virtio", "9p", "overlay"];

/// The name under which this generation is cached.
pub fn file_name() -> String {
    format!("initrd-{GENERATION}")
}

/// The archive for the kernel unpacked in `tree`.
pub fn build(tree: &Path, version: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "proc", "sys", "dev", "root", "overlay", "modules", "lab"] {
        archive.folder(folder);
    }
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].iter().find_map(|path| fs::read(path).ok());
    archive.program("bin/busybox", &busybox.context("busybox is not installed")?);
    archive.program("init", include_bytes!("init.sh"));
    let mut order = String::new();
    for path in module_files(tree, version)? {
        let name =
            path.file_name().context("module without a name")?.to_string_lossy().into_owned();
        let plain = name.split(".ko").next().unwrap_or(&name).to_owned();
        archive.file(&format!("modules/{plain}"), &decompressed(&path)?);
        order.push_str(&plain);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes());
    Ok(archive.finish())
}

/// The modules with all they depend on, in loading order. What is built into the kernel has no file.
fn module_files(tree: &Path, version: &str) -> Result<Vec<PathBuf>> {
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    for module in MODULES {
        let output = run(Command::new("modprobe")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .arg("-d")
            .arg(tree)
            .args(["-S", version, "--show-depends", module]))
        .with_context(|| format!("look up the module {module} of kernel {version}"))?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(path) = line.trim().strip_prefix("insmod ") {
                let path = PathBuf::from(path.trim());
                if seen.insert(path.clone()) {
                    files.push(path);
                }
            }
        }
    }
    Ok(files)
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return fs::read(path).with_context(|| format!("read {}", path.display())),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{} is compressed in a way that the lab does not know", path.display()),
    };
    Ok(run(Command::new(tool).arg("-dcq").arg(path))?.stdout)
}
