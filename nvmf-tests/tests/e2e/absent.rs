//! Nodes that are to serve RDMA where there is none, or where they may not use it: each says what it lacks.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nvmf_tests::guest::soft_rdma;
use nvmf_tests::nvme::{self, Target, Transport};
use nvmf_tests::process::wait_until;
use nvmf_tests::scene::{Scene, nqn};

/// Root without the right to lock as much memory as it likes.
const FEW_LOCKED_PAGES: &str = "ulimit -l 64; exec setpriv --bounding-set=-ipc_lock,-sys_resource --inh-caps=-ipc_lock,-sys_resource";
/// The same with enough for the buffers and one device, of two.
const LOCKED_PAGES_OF_ONE_DEVICE: &str = "ulimit -l 262144; exec setpriv --bounding-set=-ipc_lock,-sys_resource --inh-caps=-ipc_lock,-sys_resource";
/// Root that must keep to the permissions of files.
const NO_OVERRIDE: &str = "exec setpriv --bounding-set=-dac_override,-dac_read_search \
     --inh-caps=-dac_override,-dac_read_search";
const APPEARS: Duration = Duration::from_secs(60);

fn both() -> [Target; 2] {
    [Transport::Rdma, Transport::Tcp].map(|it| Target::new(it, soft_rdma::address(0)))
}

pub fn node_without_the_library_serves_tcp_and_says_so(scene: &mut Scene) -> Result<()> {
    scene.expect_complaints(&["nvme nvme"]);
    let [rdma, tcp] = both();
    let path = "$(ldconfig -p | sed -n 's/.*libibverbs.so.1 .*=> //p' | head -1)";
    scene.guest.ok(&format!("path={path}; echo $path > /tmp/hidden; mv $path $path.hidden"))?;
    refuses(scene, "exec", std::slice::from_ref(&rdma), &["libibverbs.so.1"])?;
    scene.launch("exec", &[rdma.clone(), tcp.clone()])?;
    let log = scene.node.log();
    ensure!(log.contains("over TCP alone") && log.contains("libibverbs.so.1"), "{log}");
    only_tcp_works(scene, &rdma, &tcp)?;
    scene.guest.ok("path=$(cat /tmp/hidden); mv $path.hidden $path").map(drop)
}

pub fn node_without_a_device_serves_it_once_it_is_there(scene: &mut Scene) -> Result<()> {
    scene.expect_complaints(&["nvme nvme"]);
    let [rdma, tcp] = both();
    scene.node.kill()?;
    soft_rdma::remove_all(&scene.guest)?;
    refuses(scene, "exec", std::slice::from_ref(&rdma), &["device"])?;
    scene.launch("exec", &[rdma.clone(), tcp.clone()])?;
    let log = scene.node.log();
    ensure!(log.contains("over TCP alone") && log.contains("device"), "{log}");
    only_tcp_works(scene, &rdma, &tcp)?;
    soft_rdma::start(&scene.guest, 2)?;
    let mut last = None;
    wait_until("the new device to be served", APPEARS, || {
        last = Some(scene.guest.run(&format!("nvme discover {}", rdma.options()))?);
        Ok(last.as_ref().is_some_and(|output| output.code == 0).then_some(()))
    })
    .with_context(|| format!("{last:?}\n{}", scene.node.log_tail(10)))?;
    let connection = nvme::connect(&scene.guest, &rdma, &nqn("absent"), "")?;
    reads(scene, &connection.disk)
}

pub fn node_that_may_not_use_the_devices_says_what_to_set(scene: &mut Scene) -> Result<()> {
    scene.expect_complaints(&["nvme nvme"]);
    let [rdma, _] = both();
    refuses(scene, FEW_LOCKED_PAGES, std::slice::from_ref(&rdma), &["ulimit -l unlimited", "64K"])?;
    for file in ["rdma_cm", "uverbs*"] {
        scene.guest.ok(&format!("chmod 000 /dev/infiniband/{file}"))?;
        let reasons = ["RDMA devices cannot be used", "Permission denied"];
        refuses(scene, NO_OVERRIDE, std::slice::from_ref(&rdma), &reasons)?;
        scene.guest.ok(&format!("chmod 666 /dev/infiniband/{file}"))?;
    }
    // A device that comes later is counted, too.
    soft_rdma::remove(&scene.guest, 1)?;
    let later = Target::new(Transport::Rdma, soft_rdma::address(1));
    scene.launch(LOCKED_PAGES_OF_ONE_DEVICE, &[rdma.clone(), later])?;
    soft_rdma::start(&scene.guest, 2)?;
    wait_until("the node to say that it cannot lock enough for another device", APPEARS, || {
        let log = scene.node.log();
        Ok((log.contains("may be refused") && log.contains("ulimit -l unlimited")).then_some(()))
    })
    .with_context(|| scene.node.log_tail(10))?;
    scene.guest.ok(&format!("nvme discover {}", rdma.options())).map(drop)
}

/// A node that cannot do what it is to do ends at once and names the reason.
fn refuses(scene: &mut Scene, launch: &str, listen: &[Target], reasons: &[&str]) -> Result<()> {
    let Err(error) = scene.launch(launch, listen) else { bail!("it started: {launch}") };
    let said = format!("{error:#}");
    ensure!(
        said.contains("it ended with") && reasons.iter().all(|reason| said.contains(reason)),
        "not {reasons:?} but: {said}"
    );
    Ok(())
}

fn only_tcp_works(scene: &Scene, rdma: &Target, tcp: &Target) -> Result<()> {
    scene.node.conductor()?.export("absent", "1G", &nqn("absent"))?;
    let refused = scene.guest.run(&format!("nvme discover {}", rdma.options()))?;
    ensure!(refused.code != 0, "somebody answers at {}", rdma.url());
    let log = scene.guest.ok(&format!("nvme discover {}", tcp.options()))?;
    ensure!(!log.contains("rdma"), "an address where nobody answers is told to hosts:\n{log}");
    let connection = nvme::connect(&scene.guest, tcp, &nqn("absent"), "")?;
    reads(scene, &connection.disk)?;
    nvme::disconnect(&scene.guest, &nqn("absent"))
}

fn reads(scene: &Scene, disk: &str) -> Result<()> {
    let command = format!("dd if={disk} of=/dev/null bs=64k count=4 iflag=direct status=none");
    scene.guest.ok(&command).map(drop)
}
