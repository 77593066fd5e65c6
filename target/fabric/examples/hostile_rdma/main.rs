//! A hostile host over RDMA: everything that CONFORMANCE 2 lets a broken host do, against a live node.
//!
//! `hostile_rdma ADDRESS NQN` prints a line per case and ends with `all cases held`, or fails at the first that did not.
//! After each case a well-behaved host, connected all the while, must still be served.
//! `hostile_rdma ADDRESS NQN no-credits` stops taking responses, until it is killed.
//! `hostile_rdma ADDRESS NQN half-open` asks for connections and never confirms one, `no-connect` confirms them and then says
//! nothing; both say `waiting`, until they are killed.
//! `hostile_rdma ADDRESS NQN drown` keeps many RDMA READs and WRITEs under way until it is killed.
#![allow(clippy::unwrap_used)]

mod cases;
mod raw;

use std::net::SocketAddr;
use std::process::ExitCode;

use afs_nvme::Nqn;
use afs_reactor::verbs::Verbs;
use afs_reactor::{ReactorConfig, Reactors};

enum What {
    All,
    NoCredits,
    HalfOpen,
    NoConnect,
    Drown,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (target, what) = match words.as_slice() {
        [address, nqn] => (target(address, nqn), What::All),
        [address, nqn, "no-credits"] => (target(address, nqn), What::NoCredits),
        [address, nqn, "half-open"] => (target(address, nqn), What::HalfOpen),
        [address, nqn, "no-connect"] => (target(address, nqn), What::NoConnect),
        [address, nqn, "drown"] => (target(address, nqn), What::Drown),
        _ => {
            eprintln!(
                "usage: hostile_rdma ADDRESS NQN [no-credits|half-open|no-connect|drown]; see the beginning of this file"
            );
            return ExitCode::from(2);
        }
    };
    let config = ReactorConfig { ring_entries: 0, ..ReactorConfig::default() };
    let reactors = Reactors::start(config).unwrap();
    let outcome = reactors.handle(0).run(move |local| async move {
        let world = cases::World { verbs: Verbs::load().unwrap(), target, local };
        match what {
            What::All => cases::all(world).await,
            What::NoCredits => cases::no_credits(world).await,
            What::HalfOpen => cases::half_open(world).await,
            What::NoConnect => cases::no_connect(world).await,
            What::Drown => cases::drown(world).await,
        }
    });
    match outcome.unwrap() {
        Ok(()) => {
            println!("all cases held");
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("FAILED: {what}");
            ExitCode::FAILURE
        }
    }
}

fn target(address: &str, nqn: &str) -> (SocketAddr, Nqn) {
    (address.parse().unwrap(), Nqn::new(nqn).unwrap())
}
