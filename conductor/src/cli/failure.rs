//! What can go wrong for the CLI, and how the user is told.

use std::fmt::Display;
use std::process::ExitCode;

use conductor::api::ErrorBody;

/// Why the program ends without having done what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// The conductor said no.
    Refused(ErrorBody),
    /// It was decided, but a node could not do it.
    NotEffective(Vec<String>),
    /// Something else failed.
    Other(String),
    /// The configuration or a value is wrong.
    Usage(String),
    /// The conductor did not answer.
    NotReached {
        /// Where it should be.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Whoever reads our output has gone; nothing to say and nobody to say it to.
    OutputClosed,
}

impl Failure {
    /// For `map_err`.
    pub(super) fn other<E: Display>(what: &str) -> impl FnOnce(E) -> Self {
        move |error| Self::Other(format!("{what}: {error}"))
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Refused(_) | Self::NotEffective(_) | Self::Other(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::NotReached { .. } => ExitCode::from(3),
        }
    }

    pub(super) fn print(&self) {
        match self {
            Self::OutputClosed => {}
            Self::Refused(body) => {
                eprintln!("error: {}", body.message);
                if !body.hint.is_empty() {
                    eprintln!("hint: {}", body.hint);
                }
            }
            Self::NotEffective(problems) => {
                for problem in problems {
                    eprintln!("error: {problem}");
                }
                eprintln!(
                    "hint: the change is kept; `conductor events` and the node's log say more"
                );
            }
            Self::Other(message) | Self::Usage(message) => eprintln!("error: {message}"),
            Self::NotReached { url, reason } => {
                eprintln!("error: cannot reach the conductor at {url}: {reason}");
                eprintln!(
                    "hint: start one (`conductor serve`, or `afs standalone`), \
                     or say where it is with --api URL or CONDUCTOR_API"
                );
            }
        }
    }
}
