//! The node's beats for the service manager: one only after every reactor has run a task since the last one.
//!
//! They come from a reactor: a control thread may wait for a slow folder while hosts are served well. A reactor never waits for a
//! disk; if it does not run a task for as long as the manager allows, hosts wait for it, and are better served by other nodes.

use std::sync::Arc;

use afs_coordination::ServiceManager;
use afs_reactor::{ReactorHandle, Reactors};
use tokio::sync::oneshot;

/// Beats until the reactors end.
pub(super) fn start(reactors: &Reactors, manager: Arc<ServiceManager>) {
    let handles: Vec<_> = (0..reactors.len()).map(|index| reactors.handle(index)).collect();
    reactors.handle(0).spawn(move |_| async move {
        manager.beat_while(|| all_answer(&handles)).await;
    });
}

/// Waits until each reactor has run a task; false when one has ended.
async fn all_answer(reactors: &[ReactorHandle]) -> bool {
    let asked: Vec<_> = reactors.iter().map(ask).collect();
    for answer in asked {
        if answer.await.is_err() {
            return false;
        }
    }
    true
}

fn ask(reactor: &ReactorHandle) -> oneshot::Receiver<()> {
    let (answer, answered) = oneshot::channel();
    reactor.spawn(move |_| async move {
        // Who asked may have ended with its own reactor.
        let _ = answer.send(());
    });
    answered
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::mpsc;

    use afs_reactor::ReactorConfig;

    use super::*;

    fn reactors() -> Reactors {
        let config = ReactorConfig {
            threads: 2,
            buffer_bytes: 1 << 20,
            ring_entries: 0,
            ..ReactorConfig::default()
        };
        Reactors::start(config).unwrap()
    }

    #[tokio::test]
    async fn a_reactor_that_hangs_keeps_the_beats_back_until_it_goes_on() {
        let reactors = reactors();
        let handles = [reactors.handle(0), reactors.handle(1)];
        assert!(all_answer(&handles).await);

        let (go_on, waits) = mpsc::channel::<()>();
        let (hangs, does_hang) = oneshot::channel();
        handles[1].spawn(move |_| async move {
            hangs.send(()).unwrap();
            let _ = waits.recv();
        });
        does_hang.await.unwrap();
        let mut answer = std::pin::pin!(all_answer(&handles));
        tokio::select! {
            biased;
            _ = &mut answer => panic!("a reactor that hangs has answered"),
            // It was asked after the other question, and so answers that first.
            answered = ask(&handles[0]) => assert!(answered.is_ok()),
        }
        drop(go_on);
        assert!(answer.await);
    }

    #[tokio::test]
    async fn a_reactor_that_has_ended_ends_the_beats() {
        let reactors = reactors();
        let handles = [reactors.handle(0), reactors.handle(1)];
        drop(reactors);
        assert!(!all_answer(&handles).await);
    }
}
