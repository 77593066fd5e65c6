//! Queue pairs over the fake provider.
#![allow(clippy::unwrap_used)]

mod life;
mod rig;
mod sleep;
mod transfer;
