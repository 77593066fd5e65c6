//! Runs the real `afs` program for a test: its own folder, its own ports, its output kept for when something fails.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used)]

pub mod grafana;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use afs_fabric::{ControllerOptions, HostController};
use afs_nvme::{HostId, Nqn};
use afs_reactor::{ReactorConfig, Reactors};
use serde_json::Value;
use tempfile::TempDir;

/// Long enough for a busy machine; nothing here normally takes a second.
pub const SOON: Duration = Duration::from_secs(60);

/// Worth a line in the output of a test that fails.
const LONG: Duration = Duration::from_secs(1);

/// A port that nobody else here is given.
pub fn free_address() -> SocketAddr {
    nvmf_tests::node::free_port().unwrap()
}

/// Waits until `look` finds something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    let deadline = begun + SOON;
    loop {
        if let Some(found) = look() {
            if begun.elapsed() > LONG {
                eprintln!("waited {:?} for {what}", begun.elapsed());
            }
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process of which the output is collected, and which ends with the test.
pub struct Running {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().unwrap();
        let stderr = child.stderr.take().unwrap();
        let readers = vec![collect(stdout, &output), collect(stderr, &output)];
        Running { child, output, readers }
    }

    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    pub fn wait_for_output(&mut self, part: &str) {
        let output = Arc::clone(&self.output);
        let child = &mut self.child;
        wait_for(part, || {
            let text = output.lock().unwrap().clone();
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() || text.contains(part),
                "ended ({ended:?}) without `{part}`:\n{text}"
            );
            text.contains(part).then_some(())
        });
    }

    pub fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &process]).status().unwrap().success());
    }

    /// Stops it where it stands. A signal has other threads stop in their time; this waits until all have.
    pub fn stand_still(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        wait_for("all threads to stand still", || {
            let mut threads = std::fs::read_dir(&tasks).unwrap();
            let runs = threads.any(|thread| {
                let status = std::fs::read_to_string(thread.unwrap().path().join("status"));
                // One that ended meanwhile has none.
                status.is_ok_and(|status| !status.contains("\nState:\tT"))
            });
            (!runs).then_some(())
        });
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; returns the status and all that it said.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let child = &mut self.child;
        let status = wait_for("the end of the process", || child.try_wait().unwrap());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        (status, self.output())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- output of process {}\n{}", self.child.id(), self.output());
        }
    }
}

fn collect(
    stream: impl std::io::Read + Send + 'static,
    output: &Arc<Mutex<String>>,
) -> std::thread::JoinHandle<()> {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut output = output.lock().unwrap();
            output.push_str(&line);
            output.push('\n');
        }
    })
}

/// `afs` with these words. It dies with the test, whatever ends that.
pub fn afs(words: &[&str]) -> Command {
    let mut command = nvmf_tests::process::tied(env!("CARGO_BIN_EXE_afs"));
    command.args(words);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AFS_")) {
        command.env_remove(name);
    }
    command
}

/// Runs `afs` to its end.
pub fn run(words: &[&str]) -> (ExitStatus, String) {
    Running::start(&mut afs(words)).wait()
}

/// Runs a command that must refuse to start; returns what it said.
pub fn refused(command: &mut Command) -> String {
    let (status, output) = Running::start(command).wait();
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(!output.contains("panicked"), "{output}");
    output
}

/// Where one node of a test has its things.
pub struct Place {
    pub folder: TempDir,
    pub portal: SocketAddr,
    pub api: SocketAddr,
    pub http: SocketAddr,
}

impl Place {
    pub fn new() -> Place {
        // Under build/, because a disk wants a file system that allows direct I/O.
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Place { folder, portal: free_address(), api: free_address(), http: free_address() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn disk(&self, size: &str) -> String {
        format!("{}:{size}", self.path("disk").display())
    }

    /// `afs standalone` with these disks and further words.
    pub fn standalone(&self, disks: &[&str], more: &[&str]) -> Command {
        self.standalone_with_data(&self.path("data"), disks, more)
    }

    /// The same, with another data folder.
    pub fn standalone_with_data(&self, data: &Path, disks: &[&str], more: &[&str]) -> Command {
        let mut command =
            afs(&["standalone", "--node", "n1", "--reactors", "2", "--buffers", "64M"]);
        command.arg("--data").arg(data);
        command.arg("--listen").arg(format!("tcp://{}", self.portal));
        command.arg("--api").arg(self.api.to_string()).arg("--http").arg(self.http.to_string());
        for disk in disks {
            command.args(["--disk", disk]);
        }
        command.args(more);
        command
    }

    /// Starts it and waits until hosts may connect.
    pub fn start(&self, disks: &[&str]) -> Running {
        let mut running = Running::start(&mut self.standalone(disks, &[]));
        running.wait_for_output("Next: ");
        running
    }

    /// Starts it expecting a refusal; returns what it said.
    pub fn refused(&self, disks: &[&str]) -> String {
        refused(&mut self.standalone(disks, &[]))
    }

    pub fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let (code, text) = http(method, &format!("http://{}{path}", self.api), Some(body));
        assert!((200..300).contains(&code), "{method} {path}: {code} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// What the API shows, when it does.
    pub fn call_if_there(&self, path: &str) -> Option<Value> {
        let (code, text) = http("GET", &format!("http://{}{path}", self.api), None);
        if code == 200 { serde_json::from_str(&text).ok() } else { None }
    }

    pub fn node(&self, path: &str) -> (u16, String) {
        http("GET", &format!("http://{}{path}", self.http), None)
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.node("/status").1).unwrap()
    }

    /// A volume on the (first) disk, exported to any host.
    pub fn export(&self, nqn: &str, volume: &str, bytes: u64) {
        self.call(
            "POST",
            "/api/v1/volumes",
            serde_json::json!({ "name": volume, "size_bytes": bytes }),
        );
        self.call("POST", "/api/v1/subsystems", serde_json::json!({ "nqn": nqn }));
        let subsystem = format!("/api/v1/subsystems/{nqn}");
        self.call(
            "POST",
            &format!("{subsystem}/namespaces"),
            serde_json::json!({ "volume": volume }),
        );
        self.call("POST", &format!("{subsystem}/hosts"), serde_json::json!({ "host": "any" }));
    }
}

/// A host that writes and reads namespace 1 until it is refused or dropped, with pauses so that others can run.
pub fn keep_busy(portal: SocketAddr, nqn: &'static str) -> Reactors {
    let reactors = Reactors::start(ReactorConfig::default()).unwrap();
    reactors.handle(0).spawn(move |local| async move {
        let host = Nqn::new("nqn.2026-11.test:host").unwrap();
        let options = ControllerOptions::new(Nqn::new(nqn).unwrap(), host, HostId([7; 16]));
        let controller = HostController::connect(portal, &local, options).await.unwrap();
        let queues = controller.io_queues(2).await.unwrap();
        for turn in 0.. {
            let queue = &queues[turn % queues.len()];
            let lba = turn as u64 % 1024;
            let mut data = local.pool().alloc(4096).await;
            data.fill(1);
            let written = queue.write(1, lba, data.freeze()).await;
            let read = queue.read(1, lba, local.pool().alloc(4096).await).await;
            if written.is_err() || read.is_err() {
                return;
            }
            if turn % 8 == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    reactors
}

/// One HTTP call; code 0 when there is no answer.
pub fn http(method: &str, url: &str, body: Option<Value>) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build().unwrap();
        let mut request = client.request(method.parse().unwrap(), url);
        if let Some(body) = body.filter(|body| !body.is_null()) {
            request = request.json(&body);
        }
        match request.send().await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(error) => (0, error.to_string()),
        }
    })
}
