//! `cargo lab test`: gets the machine ready, builds, runs the tests of the workspace, and says what ran.
//!
//! The test programs are run one by one by the lab itself, not by cargo, so that each part has its time and its own
//! line, end-to-end tests show their progress, and a program that hangs is ended. What does not look at the clock runs beside
//! the others with what processors these leave, for guests wait much: the simulator, guests with a clock of their own, and
//! the power cut.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::paths;
use crate::prepare::{Consent, Kernel, prepare, say};
use crate::process::{spawn, tied};
use crate::scene::{IN_LONG_RUNS, LONG, UNDER_LAB};
use crate::table::Table;

/// The longest that a test program may say nothing. The slowest test takes about a third of it on a slow machine.
const SILENCE: Duration = Duration::from_secs(20 * 60);

/// Test programs of this package that do not look at the clock.
const BESIDE: [&str; 2] = ["instructions", "power_cut"];

/// Which tests to run.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Only those whose name contains this.
    pub filter: Option<&'a str>,
    /// With many repetitions, and with those that other runs leave out.
    pub long: bool,
}

/// Runs the chosen tests; an error when any failed.
pub fn test(choice: Choice<'_>, consent: Consent) -> Result<()> {
    let Choice { filter, long } = choice;
    let begin = Instant::now();
    let mut table = Table::new(&["part", "passed", "failed", "skipped", "seconds"]);
    let mut step = |name: &str, began: Instant| {
        table.row([name, "", "", "", &format!("{:.1}", began.elapsed().as_secs_f32())]);
    };
    say("prepare the machine");
    prepare(&Kernel::ALL, consent)?;
    step("prepare the machine", begin);
    let began = Instant::now();
    say("build all programs and tests");
    let programs = test_programs()?;
    step("build", began);

    let mut total = Tally::default();
    for (program, (tally, took)) in programs.iter().zip(run_all(&programs, choice)?) {
        if tally.is_empty() && filter.is_some() {
            continue;
        }
        let seconds = format!("{:.1}", took.as_secs_f32());
        let count = |number: u32| number.to_string();
        table.row([
            &program.name,
            &count(tally.passed),
            &count(tally.failed),
            &count(tally.skipped),
            &seconds,
        ]);
        total.add(&tally);
    }
    if filter.is_none() {
        let began = Instant::now();
        say("examples in the documentation");
        doc_tests()?;
        table.row([
            "examples in the documentation",
            "",
            "",
            "",
            &format!("{:.1}", began.elapsed().as_secs_f32()),
        ]);
    }
    println!("\n{table}");
    for name in &total.failures {
        println!("  failed: {name}");
    }
    let minutes = begin.elapsed().as_secs() / 60;
    println!("  in all {minutes} min {} s\n", begin.elapsed().as_secs() % 60);
    if total.is_empty() {
        bail!("no test has a name that contains `{}`", filter.unwrap_or_default());
    }
    let skipped =
        if total.skipped > 0 { format!(", {} skipped", total.skipped) } else { String::new() };
    println!("{} passed, {} failed{skipped}", total.passed, total.failed);
    if total.left > 0 && !long {
        println!("{} left for `cargo lab test --long`", total.left);
    }
    if total.failed > 0 {
        bail!("{} tests failed", total.failed);
    }
    if total.skipped > 0 && env::var("CI").is_ok_and(|ci| ci == "true") {
        bail!("{} tests were skipped, and with CI=true none may be", total.skipped);
    }
    Ok(())
}

fn doc_tests() -> Result<()> {
    let mut cargo = Command::new(cargo_program());
    cargo.args(["test", "--quiet", "--workspace", "--doc"]).current_dir(paths::workspace());
    if !cargo.status().context("start cargo")?.success() {
        bail!("an example in the documentation failed");
    }
    Ok(())
}

fn cargo_program() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// What a test program needs of the machine; the order is that in which they are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Processors, and no clock but a simulated one.
    Simulation,
    /// Guests whose tests do not look at the clock.
    Beside,
    /// Real time and sockets.
    Native,
    /// Guests.
    EndToEnd,
}

impl Kind {
    /// Run beside the others, with what processors they leave.
    fn waits(self) -> bool {
        self.niceness().is_some()
    }

    /// Guests get enough that their kernels do not take a busy machine for a dead one.
    fn niceness(self) -> Option<&'static str> {
        match self {
            Self::Simulation => Some("19"),
            Self::Beside => Some("5"),
            Self::Native | Self::EndToEnd => None,
        }
    }

    fn has_guests(self) -> bool {
        matches!(self, Self::Beside | Self::EndToEnd)
    }
}

/// One test executable.
struct Program {
    name: String,
    executable: PathBuf,
    folder: PathBuf,
    kind: Kind,
}

/// Runs all programs, those that wait beside the others. The results are in the order of `programs`, which is that of their kinds.
fn run_all(programs: &[Program], choice: Choice<'_>) -> Result<Vec<(Tally, Duration)>> {
    let (waiting, others) =
        programs.split_at(programs.partition_point(|program| program.kind.waits()));
    let run = |programs: &[Program]| -> Result<Vec<(Tally, Duration)>> {
        let timed = programs.iter().map(|program| {
            let start = Instant::now();
            Ok((program.run(choice)?, start.elapsed()))
        });
        timed.collect()
    };
    thread::scope(|scope| {
        let beside = scope.spawn(|| run(waiting));
        let others = run(others);
        let waiting = beside.join().map_err(|_| anyhow!("a thread of the lab panicked"))?;
        Ok(waiting?.into_iter().chain(others?).collect())
    })
}

/// Builds all test executables and returns them by kind. The programs that tests start are built with them: each belongs to a
/// package with a folder `tests`.
fn test_programs() -> Result<Vec<Program>> {
    let mut build = Command::new(cargo_program());
    build.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let output = build
        .current_dir(paths::workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs: Vec<Program> = messages.filter_map(|message| program(&message)).collect();
    programs.sort_by_key(|program| program.kind);
    Ok(programs)
}

fn program(message: &Value) -> Option<Program> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(message["executable"].as_str()?);
    let folder = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let package = folder.file_name()?.to_string_lossy().into_owned();
    let target = message["target"]["name"].as_str()?;
    let made_of = message["target"]["kind"][0].as_str().unwrap_or("?");
    Some(Program {
        name: if made_of == "lib" { package.clone() } else { format!("{package}: {target}") },
        kind: match (package.as_str(), made_of) {
            ("sim", _) => Kind::Simulation,
            ("nvmf-tests", "test") if BESIDE.contains(&target) => Kind::Beside,
            ("nvmf-tests", "test") => Kind::EndToEnd,
            _ => Kind::Native,
        },
        executable,
        folder,
    })
}

/// How tests ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
    /// For long runs.
    left: u32,
    failures: Vec<String>,
}

impl Tally {
    fn is_empty(&self) -> bool {
        self.passed + self.failed + self.skipped + self.left == 0
    }

    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.left += other.left;
        self.failures.extend(other.failures.iter().cloned());
    }

    /// Takes a line that the test harness printed; true when it tells how a test ended.
    fn take(&mut self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix("test ") else { return false };
        if rest.starts_with("result:") {
            return false;
        }
        if rest.ends_with("... ok") {
            self.passed += 1;
        } else if rest.ends_with(&format!("... ignored, {IN_LONG_RUNS}")) {
            self.left += 1;
        } else if rest.contains("... ignored") {
            self.skipped += 1;
        } else if rest.ends_with("... FAILED") {
            self.failed += 1;
            self.failures.push(rest.trim_end_matches(" ... FAILED").to_owned());
        } else {
            return false;
        }
        true
    }
}

impl Program {
    fn run(&self, choice: Choice<'_>) -> Result<Tally> {
        let mut command = match self.kind.niceness() {
            Some(niceness) => {
                let mut behind = tied("nice");
                behind.args(["-n", niceness]).arg(&self.executable);
                behind
            }
            None => tied(&self.executable),
        };
        if choice.long {
            command.arg("--include-ignored").env(LONG, "1");
        }
        command
            .args(choice.filter)
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder);
        command
            .env("RUST_BACKTRACE", "0")
            .env(UNDER_LAB, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if self.kind.has_guests() {
            // One guest at a time: two processors are emulated by all that this machine has.
            command.arg("--test-threads=1");
        }
        let mut child = spawn(command)?;
        let stdout = child.stdout().context("no output of the test program")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut report = Report {
            program: self,
            tally: Tally::default(),
            kept: Vec::new(),
            last: Instant::now(),
        };
        loop {
            match lines.recv_timeout(SILENCE) {
                Ok(line) => report.take(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    child.kill()?;
                    report.kept.push(format!("ended after {} s without a word", SILENCE.as_secs()));
                    break;
                }
            }
        }
        let status = child.wait()?;
        Ok(report.finish(status.success()))
    }
}

/// Shows progress of one program and keeps what is needed to explain a failure.
struct Report<'a> {
    program: &'a Program,
    tally: Tally,
    kept: Vec<String>,
    last: Instant,
}

impl Report<'_> {
    fn take(&mut self, line: String) {
        if self.tally.take(&line) {
            if self.program.kind.has_guests() {
                say(&format!("{line}  ({:.1} s)", self.last.elapsed().as_secs_f32()));
            }
            self.last = Instant::now();
        } else {
            self.kept.push(line);
        }
    }

    fn finish(mut self, success: bool) -> Tally {
        if !success && self.tally.failed == 0 {
            self.tally.failed = 1;
            self.tally.failures.push(format!("{} ended badly", self.program.name));
        }
        if self.tally.failed > 0 {
            println!("{}", self.kept.join("\n"));
        } else if !self.program.kind.has_guests() && !self.tally.is_empty() {
            say(&format!("{}: {} passed", self.program.name, self.tally.passed));
        }
        let mut seen = BTreeMap::new();
        self.tally.failures.retain(|name| seen.insert(name.clone(), ()).is_none());
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_harness_are_counted_by_how_the_test_ended() {
        let mut tally = Tally::default();
        let ends = [
            "test a::b ... ok",
            "test c ... FAILED",
            "test d ... ignored",
            "test e ... ignored, slow",
            "test f ... ignored, in long runs alone",
        ];
        assert!(ends.iter().all(|line| tally.take(line)));
        let others = ["running 4 tests", "test result: ok. 4 passed", "", "failures:"];
        assert!(others.iter().all(|line| !tally.take(line)));
        assert_eq!(
            tally,
            Tally { passed: 1, failed: 1, skipped: 2, left: 1, failures: vec!["c".to_owned()] }
        );
    }

    #[test]
    fn only_test_artifacts_are_programs() {
        let message = serde_json::json!({
            "reason": "compiler-artifact", "profile": {"test": true}, "executable": "/x/deps/e2e-1",
            "manifest_path": "/w/nvmf-tests/Cargo.toml", "target": {"name": "e2e", "kind": ["test"]}
        });
        let found = program(&message).map(|program| (program.name, program.kind));
        assert_eq!(found, Some(("nvmf-tests: e2e".to_owned(), Kind::EndToEnd)));
        let mut beside = message.clone();
        beside["target"]["name"] = "power_cut".into();
        assert_eq!(program(&beside).map(|program| program.kind), Some(Kind::Beside));
        let library =
            serde_json::json!({"reason": "compiler-artifact", "profile": {"test": false}});
        assert!(program(&library).is_none());
    }
}
