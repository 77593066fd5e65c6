//! nvme-cli: the commands that a user would type to a connected controller or disk work and print sensible values.

use anyhow::{Context, Result, ensure};
use nvmf_tests::scene::Scene;

use super::tools::GIB;

pub fn identify_pages_and_logs_print_sensible_values(scene: &mut Scene) -> Result<()> {
    let connection = scene.volume("pages", "1G", "")?;
    let (controller, disk) = (&connection.controller, &connection.disk);
    let json = |command: String| scene.guest.json(&format!("{command} -o json"));

    let page = json(format!("nvme id-ctrl {controller}"))?;
    let number = |key: &str| page[key].as_u64().with_context(|| format!("{key} in {page}"));
    ensure!(page["subnqn"] == connection.nqn && page["cntrltype"] == 1, "{page}");
    // 1 MiB per command; compare, dataset management, write zeroes and verify offered; no volatile cache to flush.
    ensure!(
        number("mdts")? == 8
            && number("oncs")? & 0b1000_1101 == 0b1000_1101
            && number("vwc")? & 1 == 0,
        "{page}"
    );
    ensure!(
        number("kas")? > 0
            && number("sgls")? & 1 == 1
            && number("cntlid")? > 0
            && number("nn")? > 0,
        "{page}"
    );
    ensure!(page["mn"].as_str().is_some_and(|model| model.contains("Afs")), "model in {page}");

    let page = json(format!("nvme id-ns {disk}"))?;
    ensure!(page["nsze"] == GIB / 4096 && page["anagrpid"] == 1 && page["nmic"] == 1, "{page}");
    let format = usize::try_from(page["flbas"].as_u64().unwrap_or(99) & 15)?;
    ensure!(page["lbafs"][format]["ds"] == 12 && page["lbafs"][format]["ms"] == 0, "{page}");
    ensure!(
        page["nguid"]
            .as_str()
            .is_some_and(|id| id.len() == 32 && id.bytes().any(|byte| byte != b'0')),
        "{page}"
    );

    let page = json(format!("nvme ns-descs {disk}"))?;
    let kinds = page["ns-descs"].as_array().with_context(|| page.to_string())?;
    ensure!(
        ["uuid", "nguid"].iter().all(|kind| kinds.iter().any(|entry| entry["type"] == *kind)),
        "{page}"
    );
    ensure!(json(format!("nvme list-ns {controller}"))?["nsid_list"][0]["nsid"] == 1);

    let smart = json(format!("nvme smart-log {controller}"))?;
    let kelvin = smart["temperature"].as_u64().with_context(|| smart.to_string())?;
    ensure!(
        (250..400).contains(&kelvin)
            && smart["avail_spare"] == 100
            && smart["critical_warning"] == 0,
        "{smart}"
    );
    ensure!(smart["host_read_commands"].as_str().is_some_and(|reads| reads != "0"), "{smart}");

    let ana = json(format!("nvme ana-log {controller}"))?;
    let groups = ana["ANA DESC LIST "].as_array().with_context(|| ana.to_string())?;
    ensure!(
        groups.len() == 1
            && groups[0]["state"] == "optimized"
            && groups[0]["NSIDS"][0]["nsid"] == 1,
        "{ana}"
    );
    scene.guest.ok(&format!("nvme changed-ns-list-log {controller}"))?;
    scene.guest.ok(&format!("nvme effects-log {controller}"))?;
    // Older nvme-cli prints nothing of this log for fabrics: Identify is admin command 6, bit 0 says supported.
    let raw = format!("nvme get-log {controller} -i 5 -l 4096 -b | od -An -tu4 -j24 -N4");
    let identify: u32 = scene.guest.ok(&raw)?.trim().parse()?;
    ensure!(identify & 1 == 1, "the effects log says {identify:#x} of Identify");
    let errors = json(format!("nvme error-log {controller} -e 4"))?;
    ensure!(errors["errors"].is_array(), "{errors}");
    Ok(())
}

pub fn features_can_be_read_and_set(scene: &mut Scene) -> Result<()> {
    let connection = scene.volume("features", "1G", "")?;
    let controller = &connection.controller;
    let get =
        |feature: &str| scene.guest.ok(&format!("nvme get-feature {controller} -f {feature}"));
    for feature in ["0x01", "0x02", "0x04", "0x05", "0x07", "0x08", "0x09", "0x0a", "0x0b", "0x0f"]
    {
        ensure!(get(feature)?.contains("urrent value"), "feature {feature}");
    }
    // Over all: nvme-cli walks from 0 and goes on past what the controller says it does not have.
    let all = scene.guest.run(&format!("nvme get-feature {controller} -H"))?;
    ensure!(!all.stderr.contains("Internal"), "{}", all.stderr);
    let before = get("0x0b")?;
    scene.guest.ok(&format!("nvme set-feature {controller} -f 0x0b -v 0x100"))?;
    ensure!(get("0x0b")?.contains("0x00000100"));
    let value = before.rsplit("0x").next().context("value of feature 0x0b")?.trim();
    scene.guest.ok(&format!("nvme set-feature {controller} -f 0x0b -v 0x{value}"))?;
    let refused = scene.guest.run(&format!("nvme set-feature {controller} -f 0x7f -v 1"))?;
    ensure!(refused.code != 0 && refused.stderr.contains("Invalid Field"), "{}", refused.stderr);
    Ok(())
}

pub fn data_commands_do_what_they_say(scene: &mut Scene) -> Result<()> {
    let connection = scene.volume("data", "1G", "")?;
    let (guest, disk) = (&scene.guest, &connection.disk);
    guest.ok("head -c 32768 /dev/urandom > /tmp/random; head -c 32768 /dev/zero > /tmp/zero")?;
    let io = |command: &str, first: u64, blocks: u64, file: &str| {
        let size = blocks * 4096;
        guest
            .run(&format!("nvme {command} {disk} -s {first} -c {} -z {size} -d {file}", blocks - 1))
    };
    let works = |command: &str, first: u64, blocks: u64, file: &str| -> Result<()> {
        let output = io(command, first, blocks, file)?;
        ensure!(output.code == 0, "{command} of {blocks} blocks at {first}: {}", output.stderr);
        Ok(())
    };
    works("write", 100, 8, "/tmp/random")?;
    works("read", 100, 8, "/tmp/back")?;
    guest.ok("cmp /tmp/random /tmp/back")?;
    works("compare", 100, 8, "/tmp/random")?;
    let differs = io("compare", 100, 8, "/tmp/zero")?;
    ensure!(differs.code != 0 && differs.stderr.contains("Compare Failure"), "{}", differs.stderr);
    guest.ok(&format!("nvme verify {disk} -s 100 -c 7"))?;
    guest.ok(&format!("nvme flush {disk}"))?;

    guest.ok(&format!("nvme write-zeroes {disk} -s 100 -c 3"))?;
    works("compare", 100, 4, "/tmp/zero")?;
    let kept = io("compare", 104, 4, "/tmp/zero")?;
    ensure!(kept.code != 0, "write-zeroes went too far");
    guest.ok(&format!("nvme dsm {disk} -d -s 104 -b 4"))?;
    works("compare", 100, 8, "/tmp/zero")?;

    let outside = io("read", (GIB / 4096) - 1, 2, "/tmp/back")?;
    ensure!(outside.code != 0 && outside.stderr.contains("LBA Out of Range"), "{}", outside.stderr);
    let log = guest.json(&format!("nvme error-log {} -e 8 -o json", connection.controller))?;
    let entries = log["errors"].as_array().context("errors")?;
    ensure!(
        entries.iter().any(|entry| entry["error_count"].as_u64() > Some(0)),
        "no error is remembered: {log}"
    );
    let smart = guest.json(&format!("nvme smart-log {} -o json", connection.controller))?;
    ensure!(smart["num_err_log_entries"].as_str().is_some_and(|count| count != "0"), "{smart}");
    Ok(())
}
