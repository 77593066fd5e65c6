//! Coordination by ZooKeeper, as its users hold it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::board::{Board, Link};
use crate::config::ZooKeeperConfig;
use crate::drive::drive;

/// A connection to ZooKeeper that is kept up by a task of its own.
#[derive(Debug)]
pub struct ZooKeeper {
    board: Arc<Board>,
    closing: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ZooKeeper {
    /// Begins to connect, on the current tokio runtime. It never fails: ZooKeeper may come later.
    pub fn start(config: ZooKeeperConfig) -> Self {
        let board = Arc::new(Board::new(Link::Away));
        let (closing, closed) = watch::channel(false);
        tracing::info!(servers = config.connect_string(), path = config.root, "using ZooKeeper");
        let task = tokio::spawn(drive(config, board.clone(), closed));
        Self { board, closing, task: Mutex::new(Some(task)) }
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// Leaves. Nothing is entered after it.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        let task = self.task.lock().take();
        if let Some(task) = task {
            // It ended by itself or by a panic; there is nothing to leave in either case.
            let _ = task.await;
        }
    }
}
