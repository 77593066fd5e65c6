//! A ZooKeeper of a test's own: one Java process on a free port, gone when the test or its process is.
//!
//! Tests of other crates use it, too. Where Java or ZooKeeper is not installed they are skipped by name; with `CI=true`
//! that is a failure.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::paths::RunDir;
use crate::prepare::{ZOOKEEPER_JAR, zookeeper_obstacle};
use crate::process::{Tied, spawn, tail, tied, wait_until};

/// A busy machine may take long to start Java; usually it is below two seconds.
const START_WAIT: Duration = Duration::from_secs(60);
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// ZooKeeper ends sessions in steps of a tick, and grants time-outs of 2 to 20 ticks.
const TICK_MS: u32 = 100;
const SESSION_MS_MAX: u32 = 60_000;

/// A running server, or one that was stopped for a while.
#[derive(Debug)]
pub struct Server {
    folder: RunDir,
    address: SocketAddr,
    java: Option<Tied>,
}

/// A server for this test alone, or nothing where there is none to start. The name is that of the test.
pub fn server_for(test: &str) -> Option<Server> {
    if let Some(reason) = zookeeper_obstacle() {
        let ci = env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "{test} cannot run, and with CI=true nothing is skipped: {reason}");
        println!("lab: skipped {test}: {reason}");
        return None;
    }
    match Server::start() {
        Ok(server) => Some(server),
        Err(error) => panic!("{test}: {error:#}"),
    }
}

/// The one server that all tests of this process share; they tell themselves apart by their clusters. The kernel stops
/// it with the process.
pub fn shared_server_for(test: &str) -> Option<&'static Server> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    let server = SHARED.get_or_init(|| server_for(test)).as_ref();
    if server.is_none() {
        println!("lab: skipped {test}: no ZooKeeper here");
    }
    server
}

impl Server {
    /// An empty server.
    fn start() -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST)
    }

    /// The same on an address of this machine that is not loopback, for clients in other network namespaces.
    pub fn start_on(ip: Ipv4Addr) -> Result<Self> {
        let folder = RunDir::new("zookeeper")?;
        // Free now, and the kernel does not give it out again soon.
        let address = TcpListener::bind((ip, 0))?.local_addr()?;
        let config = format!(
            "tickTime={TICK_MS}\nmaxSessionTimeout={SESSION_MS_MAX}\ndataDir={}\nclientPort={}\n\
             clientPortAddress={ip}\nmaxClientCnxns=0\nadmin.enableServer=false\nforceSync=no\n\
             4lw.commands.whitelist=ruok\n",
            folder.path().join("data").display(),
            address.port()
        );
        fs::write(folder.path().join("zoo.cfg"), config)?;
        let mut server = Self { folder, address, java: None };
        server.resume()?;
        Ok(server)
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `kill -9`. What was entered stays, and so do sessions until they expire.
    pub fn stop(&mut self) -> Result<()> {
        match self.java.take() {
            Some(mut java) => java.kill(),
            None => Ok(()),
        }
    }

    /// Starts it again after [`stop`](Self::stop), with what it had, on the same port.
    pub fn resume(&mut self) -> Result<()> {
        let log = self.folder.path().join("log");
        let out = File::create(&log)?;
        let folder = self.folder.path().display().to_string();
        let mut java = tied("java");
        java.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{folder}:{ZOOKEEPER_JAR}"))
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(format!("{folder}/zoo.cfg"))
            .stdin(std::process::Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let mut java = spawn(java)?;
        wait_until("ZooKeeper to answer", START_WAIT, || {
            if let Some(status) = java.ended()? {
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("ZooKeeper ended ({status}): {}", tail(&said, 5));
            }
            Ok(is_ok(self.address).then_some(()))
        })?;
        self.java = Some(java);
        Ok(())
    }

    /// SIGSTOP: connections stay, and nobody answers.
    pub fn freeze(&self) -> Result<()> {
        self.java.as_ref().context("it was stopped")?.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.java.as_ref().context("it was stopped")?.signal(Signal::CONT)
    }
}

fn is_ok(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_WAIT)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.write_all(b"ruok")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer == "imok")
}
