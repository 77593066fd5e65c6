//! The outside end of the agent's port: many commands over one stream.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::tail;
use crate::wire::{Frame, Kind, MAX_PAYLOAD};

/// Output beyond this is dropped: no command of the lab prints as much.
const MAX_OUTPUT: usize = 32 << 20;

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 + signal when a signal killed it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

#[derive(Debug)]
pub(super) struct Link {
    outbox: Mutex<UnixStream>,
    commands: Mutex<HashMap<u32, Sender<Frame>>>,
    next: AtomicU32,
    greeted: AtomicBool,
    alive: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub fn new(stream: UnixStream) -> Result<Arc<Self>> {
        let inbox = stream.try_clone()?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let link = Arc::new(Self {
            outbox: Mutex::new(stream),
            commands: Mutex::default(),
            next: AtomicU32::new(1),
            greeted: AtomicBool::new(false),
            alive: AtomicBool::new(true),
        });
        let reader = Arc::clone(&link);
        thread::spawn(move || reader.receive(inbox));
        Ok(link)
    }

    pub fn greeted(&self) -> bool {
        self.greeted.load(Ordering::Acquire)
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    fn receive(&self, mut inbox: impl Read) {
        while let Ok(frame) = Frame::read(&mut inbox) {
            if frame.kind == Kind::Hello {
                self.greeted.store(true, Ordering::Release);
                continue;
            }
            let ended = matches!(frame.kind, Kind::Exit | Kind::Refused);
            let id = frame.id;
            let mut commands = lock(&self.commands);
            if let Some(command) = commands.get(&id) {
                let _ = command.send(frame);
            }
            if ended {
                commands.remove(&id);
            }
        }
        self.alive.store(false, Ordering::Release);
        // Whoever waits for a command now learns that the guest is gone.
        lock(&self.commands).clear();
    }

    fn send(&self, frame: &Frame) -> Result<()> {
        frame
            .write(&mut *lock(&self.outbox))
            .context("the guest's agent does not take commands any more")
    }

    pub fn start(link: &Arc<Self>, command: &str) -> Result<Running> {
        if !link.is_alive() {
            bail!("the guest is gone; `{command}` was not run");
        }
        let id = link.next.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::channel();
        lock(&link.commands).insert(id, sender);
        link.send(&Frame::new(Kind::Start, id, command))?;
        Ok(Running {
            id,
            command: command.to_owned(),
            link: Arc::clone(link),
            events,
            stdout: Vec::new(),
            stderr: Vec::new(),
            code: None,
        })
    }
}

/// A command that runs in the guest. Dropping it kills the command.
#[derive(Debug)]
pub struct Running {
    id: u32,
    command: String,
    link: Arc<Link>,
    events: Receiver<Frame>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    code: Option<i32>,
}

impl Running {
    /// Sends bytes to its standard input.
    pub fn write_stdin(&self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(MAX_PAYLOAD) {
            self.link.send(&Frame::new(Kind::Stdin, self.id, piece))?;
        }
        Ok(())
    }

    /// Ends its standard input.
    pub fn close_stdin(&self) -> Result<()> {
        self.link.send(&Frame::new(Kind::CloseStdin, self.id, []))
    }

    /// SIGKILL for the command and all its children.
    pub fn kill(&self) -> Result<()> {
        self.link.send(&Frame::new(Kind::Kill, self.id, []))
    }

    /// Waits for its end; after `deadline` it is killed and the result is an error with what it printed.
    pub fn wait(mut self, deadline: Duration) -> Result<Output> {
        let start = Instant::now();
        while self.code.is_none() {
            self.step(deadline.saturating_sub(start.elapsed()))?;
        }
        Ok(Output {
            code: self.code.unwrap_or(-1),
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
        })
    }

    /// Waits until its standard output contains `text`.
    pub fn wait_for(&mut self, text: &str, deadline: Duration) -> Result<()> {
        let start = Instant::now();
        while !self.stdout().contains(text) {
            if let Some(code) = self.code {
                bail!(
                    "`{}` ended with {code} before it printed `{text}`: {}",
                    self.command,
                    self.said()
                );
            }
            self.step(deadline.saturating_sub(start.elapsed()))?;
        }
        Ok(())
    }

    /// How many bytes it has printed so far.
    pub fn stdout_bytes(&mut self) -> usize {
        while let Ok(frame) = self.events.try_recv() {
            self.take(frame);
        }
        self.stdout.len()
    }

    /// What it has printed so far.
    pub fn stdout(&mut self) -> String {
        self.stdout_bytes();
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The first line of its standard output, once all of it was seen by [`stdout`](Self::stdout) or a wait.
    pub fn first_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.stdout);
        text.split_once('\n').map(|(line, _)| line.to_owned())
    }

    /// Its exit code, once it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.stdout();
        self.code
    }

    fn step(&mut self, patience: Duration) -> Result<()> {
        match self.events.recv_timeout(patience) {
            Ok(frame) => {
                self.take(frame);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("`{}` ran out of time in the guest: {}", self.command, self.said())
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the guest went away while it ran `{}`: {}", self.command, self.said())
            }
        }
    }

    fn take(&mut self, frame: Frame) {
        let keep = |buffer: &mut Vec<u8>, bytes: &[u8]| {
            let room = MAX_OUTPUT.saturating_sub(buffer.len()).min(bytes.len());
            buffer.extend_from_slice(&bytes[..room]);
        };
        match frame.kind {
            Kind::Stdout => keep(&mut self.stdout, &frame.payload),
            Kind::Stderr => keep(&mut self.stderr, &frame.payload),
            Kind::Exit => {
                let code =
                    <[u8; 4]>::try_from(frame.payload.as_slice()).map_or(-1, i32::from_le_bytes);
                self.code = Some(code);
            }
            Kind::Refused => {
                keep(&mut self.stderr, &frame.payload);
                self.code = Some(127);
            }
            Kind::Start | Kind::Stdin | Kind::CloseStdin | Kind::Kill | Kind::Hello => {}
        }
    }

    fn said(&self) -> String {
        let text = |bytes: &[u8]| tail(&String::from_utf8_lossy(bytes), 15);
        format!("\n{}\n{}", text(&self.stdout), text(&self.stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.code.is_none() && self.link.is_alive() {
            let _ = self.kill();
        }
        lock(&self.link.commands).remove(&self.id);
    }
}
