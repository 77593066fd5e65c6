//! Which of several conductors the node talks to: the active one, as far as it is known.
//!
//! What ZooKeeper says comes first; without it the configured ones are tried in turn, and one that stands by leads to
//! the active one. A change of mind wakes whoever waits for an answer of the conductor before.

use parking_lot::Mutex;
use reqwest::Url;
use tokio::sync::watch;

/// The conductors of the cluster.
pub(super) struct Conductors {
    configured: Vec<Url>,
    /// Those that ZooKeeper names, the active one first.
    found: Mutex<Vec<Url>>,
    chosen: watch::Sender<Option<Url>>,
}

impl Conductors {
    pub(super) fn new(configured: Vec<Url>) -> Conductors {
        let chosen = watch::Sender::new(configured.first().cloned());
        Conductors { configured, found: Mutex::new(vec![]), chosen }
    }

    /// The one to talk to, now and whenever that changes.
    pub(super) fn chosen(&self) -> watch::Receiver<Option<Url>> {
        self.chosen.subscribe()
    }

    /// ZooKeeper names these; the first one is active if `active`.
    pub(super) fn found(&self, urls: Vec<Url>, active: bool) {
        let first = urls.first().filter(|_| active).cloned();
        *self.found.lock() = urls;
        if let Some(url) = first {
            self.choose(url);
        } else if self.chosen.borrow().is_none() {
            self.next(None);
        }
    }

    /// This one did not do it: it is the next one's turn.
    pub(super) fn failed(&self, url: &Url) {
        // Somebody else may have gone on already.
        if self.chosen.borrow().as_ref() == Some(url) {
            self.next(Some(url));
        }
    }

    /// An answer came from here, where another one may have led to.
    pub(super) fn answered(&self, from: &Url) {
        if let Ok(base) = from.join("/") {
            self.choose(base);
        }
    }

    fn next(&self, after: Option<&Url>) {
        let found = self.found.lock().clone();
        let mut all: Vec<Url> = Vec::new();
        for url in found.into_iter().chain(self.configured.iter().cloned()) {
            if !all.contains(&url) {
                all.push(url);
            }
        }
        let at = after.and_then(|after| all.iter().position(|url| url == after));
        let next = at.map_or(0, |at| at + 1) % all.len().max(1);
        if let Some(url) = all.into_iter().nth(next) {
            self.choose(url);
        }
    }

    fn choose(&self, url: Url) {
        self.chosen.send_if_modified(|chosen| {
            let changed = chosen.as_ref() != Some(&url);
            *chosen = Some(url);
            changed
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn url(name: &str) -> Url {
        Url::parse(&format!("http://{name}")).unwrap()
    }

    #[test]
    fn all_are_tried_in_turn_and_what_zookeeper_says_comes_first() {
        let conductors = Conductors::new(vec![url("a"), url("b")]);
        let now = || conductors.chosen().borrow().clone().unwrap();
        assert_eq!(now(), url("a"));
        conductors.failed(&url("b"));
        assert_eq!(now(), url("a"), "that one was not asked any more");
        conductors.failed(&url("a"));
        assert_eq!(now(), url("b"));
        conductors.found(vec![url("c"), url("a")], true);
        assert_eq!(now(), url("c"));
        for next in ["a", "b", "c"] {
            conductors.failed(&now());
            assert_eq!(now(), url(next));
        }
        conductors.found(vec![url("a")], false);
        assert_eq!(now(), url("c"), "nobody is known to be active");
        conductors.answered(&url("d/api/v1/nodes?x=1"));
        assert_eq!(now(), url("d"));
        conductors.failed(&url("d"));
        assert_eq!(now(), url("a"));
    }

    #[test]
    fn without_any_address_zookeeper_alone_knows() {
        let conductors = Conductors::new(vec![]);
        assert_eq!(*conductors.chosen().borrow(), None);
        conductors.found(vec![], false);
        assert_eq!(*conductors.chosen().borrow(), None);
        conductors.found(vec![url("a")], false);
        assert_eq!(*conductors.chosen().borrow(), Some(url("a")), "it may know more");
    }
}
