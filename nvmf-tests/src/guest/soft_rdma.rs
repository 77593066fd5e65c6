//! RDMA in a guest without an adapter: devices `rxe0`, `rxe1` … on interfaces that lead nowhere but to the guest itself.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Shell;

/// What soft RDMA needs of the kernel.
///
/// The order is that of a machine whose adapter was there when it booted: uverbs before all that uses the connection manager. A
/// device that goes is taken from its users last come, first served; uverbs waits until processes have closed it, and they hear of it by
/// the connection manager.
const MODULES: &str = "set -e
# rxe computes its checksums with the driver that is there when it is loaded; not every processor has the fast one.
modprobe crc32_pclmul || true
modprobe -a crc32_generic dummy rdma_rxe ib_uverbs rdma_ucm nvme-rdma";

/// Loads the modules.
pub(super) fn load(shell: &Shell) -> Result<()> {
    shell.ok(MODULES).context("load what soft RDMA needs in the guest").map(drop)
}

/// Makes the first `count` devices that are not there yet, and waits until their ports are active.
pub fn start(shell: &Shell, count: u32) -> Result<()> {
    load(shell)?;
    shell.write_file("/tmp/soft-rdma.sh", include_bytes!("soft_rdma.sh"))?;
    shell
        .ok(&format!("bash /tmp/soft-rdma.sh {count}"))
        .context("make soft RDMA devices in the guest")
        .map(drop)
}

/// The IPv4 address of a device.
pub fn address(device: u32) -> String {
    format!("10.77.{device}.1")
}

/// The IPv6 address of a device.
pub fn address_v6(device: u32) -> String {
    format!("fd77:{device}::1")
}

/// Takes the IPv4 address of a device from the interface of another, if that has it, and gives it to a third.
pub fn move_address(shell: &Shell, device: u32, from: Option<u32>, to: Option<u32>) -> Result<()> {
    let step = |verb: &str, interface: Option<u32>| {
        interface.map_or("true".to_owned(), |interface| {
            format!("ip address {verb} {}/24 dev soft{interface}", address(device))
        })
    };
    shell.ok(&format!("{} && {}", step("del", from), step("add", to))).map(drop)
}

/// Takes a device away, as when an adapter is pulled; its interface and addresses stay.
pub fn remove(shell: &Shell, device: u32) -> Result<()> {
    remove_named(shell, &format!("rxe{device}"))
}

/// The same with a device of another name.
pub fn remove_named(shell: &Shell, device: &str) -> Result<()> {
    // The kernel waits until every process has let go of it.
    shell
        .ok_within(Duration::from_secs(60), &format!("rdma link delete {device}"))
        .with_context(|| {
            let holders = shell.ok(HOLDERS).unwrap_or_else(|error| error.to_string());
            format!("remove {device}: somebody keeps it open: {holders}")
        })
        .map(drop)
}

/// Who has which devices open, and what the kernel counts of them.
const HOLDERS: &str = "for p in /proc/[0-9]*; do
  found=$(ls -l $p/fd 2>/dev/null | grep -o 'uverbs[0-9]*\\|rdma_cm' | sort | uniq -c | tr '\\n' ' ')
  [ -z \"$found\" ] || echo $(tr '\\0' ' ' < $p/cmdline): $found
done
for kind in ctx pd cq qp mr cm_id; do rdma resource show $kind; done
cat /proc/$(pidof rdma)/stack 2>/dev/null || true";

/// Takes every device away.
pub fn remove_all(shell: &Shell) -> Result<()> {
    shell
        .ok("for d in /sys/class/infiniband/*; do [ ! -e $d ] || rdma link delete ${d##*/} || exit 1; done")
        .map(drop)
}

/// Lists per device what is in use, then per kind how many belong to processes: the node, that is. Completion queues of the kernel are
/// left out: it keeps those of its own drivers in a pool, for as long as the device lives.
const RESOURCES: &str = "set -o pipefail
rdma resource show | sed 's/ cq [0-9]*//'
for kind in pd cq qp cm_id mr srq ctx; do
  echo of processes: $kind $(rdma resource show $kind | grep -c ' pid ')
done";

/// What the kernel counts: queue pairs, memory regions and the rest, of hosts and nodes alike.
pub fn resources(shell: &Shell) -> Result<String> {
    shell.ok(RESOURCES)
}
