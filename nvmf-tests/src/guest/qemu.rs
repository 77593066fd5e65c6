//! The command line of QEMU, and what a boot tells the guest through a second archive behind the initrd.

use std::fmt::Write;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Accelerator, Drive, Forward, Lan};
use crate::paths::{self, RunDir};
use crate::prepare::{Archive, Kernel, KernelFiles};
use crate::process::tied;
use crate::wire::PORT_NAME;

/// How the guest reaches others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Loopback only.
    None,
    /// QEMU's user-mode network: no root needed, the build machine's loopback is at [`super::OUTSIDE`].
    User,
}

/// What to boot.
#[derive(Clone, Debug)]
pub struct GuestOptions {
    /// The kernel line.
    pub kernel: Kernel,
    /// Virtual processors; 1 with `icount`.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Disks.
    pub drives: Vec<Drive>,
    /// An empty disk of this many GiB behind the others; it goes with the guest.
    pub scratch_gib: Option<u64>,
    /// A clock that advances one nanosecond per guest instruction and skips idle time: slow, but figures repeat.
    pub icount: bool,
    /// The network.
    pub network: Network,
    /// TCP ports of the guest that the build machine can reach, with [`Network::User`]; see [`super::Guest::forwarded`].
    pub forwarded: Vec<u16>,
    /// Cables to another guest.
    pub lans: Vec<Lan>,
    /// The console is the terminal and a person types there; no agent.
    pub interactive: bool,
}

impl GuestOptions {
    /// Two processors, 2 GiB, user-mode network, no disks.
    pub fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            cpus: 2,
            memory_mib: 2048,
            drives: Vec::new(),
            scratch_gib: None,
            icount: false,
            network: Network::User,
            forwarded: Vec::new(),
            lans: Vec::new(),
            interactive: false,
        }
    }
}

/// The command that boots a guest, with its files in `folder`.
pub fn command(
    options: &GuestOptions,
    files: &KernelFiles,
    accelerator: Accelerator,
    folder: &RunDir,
    forwards: &[Forward],
) -> Result<Command> {
    let initrd = folder.join("initrd");
    fs::write(&initrd, combined_initrd(options, files, folder)?)?;
    let mut qemu = tied("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    let cpus = if options.icount { 1 } else { options.cpus };
    qemu.args(["-smp", &cpus.to_string(), "-m", &options.memory_mib.to_string()]);
    match accelerator {
        Accelerator::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
        Accelerator::Tcg if options.icount => qemu.args([
            "-accel",
            "tcg,thread=single",
            "-icount",
            "shift=0,sleep=off",
            "-cpu",
            "max",
        ]),
        Accelerator::Tcg => qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]),
    };
    qemu.arg("-kernel").arg(&files.image).arg("-initrd").arg(&initrd);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off nowatchdog"]);
    qemu.args([
        "-virtfs",
        "local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap",
    ]);
    qemu.args(["-device", "virtio-rng-pci"]);
    if options.network == Network::User {
        let mut network = "user,id=net,ipv6=off".to_owned();
        for Forward { outside, inside } in forwards {
            let _ = write!(network, ",hostfwd=tcp:{outside}-:{inside}");
        }
        qemu.args(["-netdev", &network, "-device", "virtio-net-pci,netdev=net,romfile="]);
    }
    for lan in &options.lans {
        qemu.args(lan.qemu_arguments());
    }
    for drive in drives(options, folder)? {
        let image = drive.image.display().to_string().replace(',', ",,");
        // The guest sees a disk with a volatile cache, as most real ones have.
        qemu.args([
            "-drive",
            &format!(
                "file={image},format={},if=virtio,cache=writeback,discard=unmap",
                drive.format
            ),
        ]);
    }
    if options.interactive {
        qemu.args([
            "-chardev",
            "stdio,id=console,signal=off,mux=on",
            "-mon",
            "console",
            "-serial",
            "chardev:console",
        ]);
        return Ok(qemu);
    }
    qemu.args([
        "-chardev",
        &file_chardev("console", &folder.join("console.log")),
        "-serial",
        "chardev:console",
    ]);
    let socket = folder.join("agent.socket").display().to_string().replace(',', ",,");
    qemu.args([
        "-device",
        "virtio-serial-pci",
        "-chardev",
        &format!("socket,id=agent,path={socket}"),
    ]);
    qemu.args(["-device", &format!("virtserialport,chardev=agent,name={PORT_NAME}")]);
    let log = fs::File::create(folder.join("qemu.log"))?;
    qemu.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(qemu)
}

fn drives(options: &GuestOptions, folder: &RunDir) -> Result<Vec<Drive>> {
    let mut drives = options.drives.clone();
    if let Some(gib) = options.scratch_gib {
        drives.push(Drive::raw(folder.join("scratch"), gib << 30)?);
    }
    Ok(drives)
}

fn file_chardev(id: &str, path: &std::path::Path) -> String {
    format!("file,id={id},path={}", path.display().to_string().replace(',', ",,"))
}

/// The cached initrd with a small archive behind it that says what this boot wants.
fn combined_initrd(
    options: &GuestOptions,
    files: &KernelFiles,
    folder: &RunDir,
) -> Result<Vec<u8>> {
    // A copy: a build that replaces the binary must not pull it from under a running guest.
    let agent = folder.join("agent");
    fs::copy(paths::built("lab")?, &agent).context("copy the agent")?;
    let mut archive = Archive::default();
    let mut say = |name: &str, value: &str| archive.file(&format!("lab/{name}"), value.as_bytes());
    say("agent", &agent.display().to_string());
    say("modules", &files.modules.display().to_string());
    say("mode", if options.interactive { "shell" } else { "agent" });
    say("network", if options.network == Network::User { "user" } else { "none" });
    let drives = options.drives.len() + usize::from(options.scratch_gib.is_some());
    say("drives", &drives.to_string());
    say("setup.sh", include_str!("setup.sh"));
    let mut initrd =
        fs::read(&files.initrd).with_context(|| format!("read {}", files.initrd.display()))?;
    initrd.extend(archive.finish());
    Ok(initrd)
}
