//! The lab's own ground: guests boot, run commands and vanish; its tools work against the kernel's own target, so that
//! what they find in Afs is about Afs.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use nvmf_tests::fio::{self, Job};
use nvmf_tests::guest::{Guest, GuestOptions, KernelTarget, Network, soft_rdma};
use nvmf_tests::ledger;
use nvmf_tests::nvme::{self, Target, Transport};
use nvmf_tests::prepare::Kernel;
use nvmf_tests::scene::may_run;

#[test]
fn commands_run_side_by_side_and_tools_work_against_the_kernels_own_target() {
    if !may_run(
        "commands_run_side_by_side_and_tools_work_against_the_kernels_own_target",
        &[Kernel::V6_12],
    ) {
        return;
    }
    let mut options = GuestOptions::new(Kernel::V6_12);
    options.network = Network::None;
    let guest = Guest::boot(&options).unwrap();
    commands_run_side_by_side_and_report_their_end(&guest);
    tools_work_against_the_kernels_own_target(&guest);
    let folder = guest.folder();
    guest.power_cut().unwrap();
    assert!(!folder.exists());
}

fn commands_run_side_by_side_and_report_their_end(guest: &Guest) {
    let failed = guest.run("echo out; echo err >&2; exit 7").unwrap();
    assert_eq!(
        (failed.code, failed.stdout.as_str(), failed.stderr.as_str()),
        (7, "out\n", "err\n")
    );

    let mut listener = guest.spawn("read line; echo got $line; sleep 1000").unwrap();
    let endless = guest.spawn("sleep 1000").unwrap();
    assert!(guest.ok("true").is_ok());
    listener.write_stdin(b"word\n").unwrap();
    listener.wait_for("got word", Duration::from_secs(20)).unwrap();
    let error = endless.wait(Duration::from_millis(100)).unwrap_err();
    assert!(error.to_string().contains("out of time"), "{error}");
    listener.kill().unwrap();
    assert_eq!(listener.wait(Duration::from_secs(20)).unwrap().code, 128 + 9);

    let content: Vec<u8> =
        (0..3_000_000u32).map(|i| b'a' + u8::try_from(i % 23).unwrap_or(0)).collect();
    guest.write_file("/tmp/large", &content).unwrap();
    assert_eq!(guest.ok("cat /tmp/large").unwrap().as_bytes(), content);
    assert!(guest.ok("ls /dev/no-such-device").unwrap_err().to_string().contains("No such file"));
}

fn tools_work_against_the_kernels_own_target(guest: &Guest) {
    let address = Target::new(Transport::Tcp, "127.0.0.1");
    let target = KernelTarget {
        nqn: "nqn.2026-11.io.afs.lab:kernel",
        target: &address,
        gib: 1,
        keeps_data: true,
    };
    target.start(guest).unwrap();
    let connection =
        nvme::connect(guest, &address, target.nqn, "--hdr-digest --data-digest").unwrap();
    nvme::wait_size(guest, &connection.disk, 1 << 30).unwrap();
    nvme::wait_state(guest, &connection, "live", Duration::from_secs(10)).unwrap();

    let jobs = [
        Job::verified("verified", "rw=randwrite bs=64k iodepth=8 size=2m"),
        Job::new("plain", "rw=read bs=1m size=4m"),
    ];
    let measured = fio::run(guest, &connection.disk, &jobs, Duration::from_secs(60)).unwrap();
    assert_eq!(
        (measured[0].name.as_str(), measured[0].writes, measured[1].reads),
        ("verified", 32, 4)
    );

    // fio's bytes are no stamps.
    guest.ok(&format!("blkdiscard -f {}", connection.disk)).unwrap();
    let tool = format!("{} ledger", guest.folder().join("agent").display());
    let mut writer =
        guest.spawn(&format!("{tool} write --device {} --blocks 512", connection.disk)).unwrap();
    writer.wait_for(" 100 ", Duration::from_secs(60)).unwrap();
    writer.kill().unwrap();
    let acknowledged = ledger::acknowledged(&writer.stdout());
    assert!(acknowledged.len() > 50);
    let read = format!("{tool} read --device {} --blocks 512", connection.disk);
    ledger::compare(&acknowledged, &guest.ok(&read).unwrap()).unwrap();
    guest.ok(&format!("blkdiscard -f -o 0 -l 65536 {}", connection.disk)).unwrap();
    assert!(ledger::compare(&acknowledged, &guest.ok(&read).unwrap()).is_err());

    guest.assert_no_nvme_warnings().unwrap();
    guest.ok("echo '<3>nvme nvme0: planted' > /dev/kmsg").unwrap();
    assert!(guest.assert_no_nvme_warnings().unwrap_err().to_string().contains("planted"));
    guest.assert_no_complaints_but(&["planted"]).unwrap();
    nvme::disconnect(guest, target.nqn).unwrap();
    soft_rdma_carries_what_tcp_carries(guest, &target);
}

fn soft_rdma_carries_what_tcp_carries(guest: &Guest, target: &KernelTarget<'_>) {
    soft_rdma::start(guest, 2).unwrap();
    let resources = soft_rdma::resources(guest).unwrap();
    let address = Target::new(Transport::Rdma, soft_rdma::address(1));
    KernelTarget { target: &address, ..*target }.start(guest).unwrap();
    let connection = nvme::connect(guest, &address, target.nqn, "").unwrap();
    let subsystems = guest.ok("nvme list-subsys").unwrap();
    assert!(subsystems.contains(&format!("rdma traddr={}", address.address)), "{subsystems}");
    let job = Job::verified("verified", "rw=randwrite bsrange=4k-256k iodepth=8 size=8m");
    let measured = fio::run(guest, &connection.disk, &[job], Duration::from_secs(60)).unwrap();
    assert!(measured[0].writes > 0 && measured[0].reads > 0, "{measured:?}");
    assert_ne!(soft_rdma::resources(guest).unwrap(), resources);
    nvme::disconnect(guest, target.nqn).unwrap();
    guest.assert_no_complaints_but(&["planted"]).unwrap();
    soft_rdma::remove(guest, 1).unwrap();
    assert!(!soft_rdma::resources(guest).unwrap().contains("rxe1"));
    soft_rdma::start(guest, 2).unwrap();
    assert!(soft_rdma::resources(guest).unwrap().contains("rxe1"));
}
