//! The lab's end inside a guest: `lab agent` runs commands that arrive on a virtio-serial port.
//!
//! The guest's root is the build machine's own, so the binary that boots the guest is also there to be run inside it.
//! [`crate::guest`] is the other end; [`crate::wire`] has the frames between them.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::wait_until;
use crate::wire::{Frame, Kind, MAX_PAYLOAD, PORT_NAME};

/// Serves the port until the other side goes away.
pub fn serve() -> Result<()> {
    let path = wait_until("the agent's port", Duration::from_secs(30), || Ok(find_port()))?;
    let port =
        OpenOptions::new().read(true).write(true).open(&path).context("open the agent's port")?;
    let mut inbox = port.try_clone()?;
    let agent = Agent { port: Arc::new(Mutex::new(port)), commands: Arc::default() };
    agent.send(&Frame::new(Kind::Hello, 0, []))?;
    loop {
        match Frame::read(&mut inbox) {
            Ok(frame) => agent.handle(frame)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error).context("read from the agent's port"),
        }
    }
}

fn find_port() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    ports.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim() == PORT_NAME).then(|| PathBuf::from("/dev").join(entry.file_name()))
    })
}

/// A command that has not been reported as ended.
struct Entry {
    group: Option<rustix::process::Pid>,
    stdin: Option<ChildStdin>,
}

#[derive(Clone)]
struct Agent {
    port: Arc<Mutex<File>>,
    commands: Arc<Mutex<HashMap<u32, Entry>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    fn send(&self, frame: &Frame) -> io::Result<()> {
        frame.write(&mut *lock(&self.port))
    }

    fn handle(&self, frame: Frame) -> io::Result<()> {
        match frame.kind {
            Kind::Start => self.start(frame.id, &String::from_utf8_lossy(&frame.payload)),
            Kind::Stdin => {
                // Taken out while writing: a command that does not read must not block the one that kills it.
                let stdin =
                    lock(&self.commands).get_mut(&frame.id).and_then(|entry| entry.stdin.take());
                if let Some(mut stdin) = stdin {
                    let alive = stdin.write_all(&frame.payload).is_ok();
                    if let Some(entry) = lock(&self.commands).get_mut(&frame.id) {
                        entry.stdin = alive.then_some(stdin);
                    }
                }
                Ok(())
            }
            Kind::CloseStdin => {
                if let Some(entry) = lock(&self.commands).get_mut(&frame.id) {
                    entry.stdin = None;
                }
                Ok(())
            }
            Kind::Kill => {
                if let Some(group) =
                    lock(&self.commands).get(&frame.id).and_then(|entry| entry.group)
                {
                    let _ =
                        rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                Ok(())
            }
            Kind::Hello | Kind::Stdout | Kind::Stderr | Kind::Exit | Kind::Refused => Ok(()),
        }
    }

    fn start(&self, id: u32, script: &str) -> io::Result<()> {
        let child = Command::new("bash")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        match child {
            Ok(mut child) => {
                let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
                lock(&self.commands).insert(id, Entry { group, stdin: child.stdin.take() });
                let agent = self.clone();
                thread::spawn(move || agent.follow(id, child));
                Ok(())
            }
            Err(error) => self.send(&Frame::new(Kind::Refused, id, error.to_string())),
        }
    }

    /// Streams what a command prints, then reports its end. Runs on a thread of its own.
    fn follow(&self, id: u32, mut child: Child) {
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        thread::scope(|scope| {
            scope.spawn(|| self.copy(Kind::Stdout, id, stdout));
            scope.spawn(|| self.copy(Kind::Stderr, id, stderr));
        });
        let code = match child.wait() {
            Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            Err(_) => -1,
        };
        lock(&self.commands).remove(&id);
        let _ = self.send(&Frame::new(Kind::Exit, id, code.to_le_bytes()));
    }

    fn copy(&self, kind: Kind, id: u32, from: Option<impl Read>) {
        let Some(mut from) = from else { return };
        let mut buffer = vec![0; MAX_PAYLOAD];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if self.send(&Frame::new(kind, id, &buffer[..length])).is_err() {
                return;
            }
        }
    }
}
