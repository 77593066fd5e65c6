//! libibverbs and librdmacm as C has them: the generated types ([`ibverbs`], [`rdmacm`]), and by
//! hand the functions that exist in the headers only. `afs_reactor::verbs` makes safe objects of
//! them; nobody else should want this crate.
//!
//! Both libraries are opened at run time ([`Ibverbs::new`], [`Rdmacm::new`]), so a program that
//! uses this crate starts on machines without them, and building it needs neither libclang nor
//! their header packages.
//!
//! **Changing the bindings.** `generate/generate.sh` writes `src/ibverbs.rs`, `src/rdmacm.rs` and
//! `tests/layout/expected.rs`. It lists the functions and constants that are wanted, and only
//! these and the types they need are generated; it needs `bindgen` 0.72, libclang,
//! `libibverbs-dev` and `librdmacm-dev` (rdma-core 44 was used). The libraries keep their binary
//! interface, so newer ones need no new bindings.
//!
//! **Mutexes.** Some structs embed pthread types, whose size depends on the machine; those come
//! from `libc`. Everything else is the same on all 64-bit Linux machines.

#[allow(
    missing_docs,
    non_camel_case_types,
    unused_qualifications,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]
pub mod ibverbs;
mod inline;
#[allow(
    missing_docs,
    non_camel_case_types,
    unused_qualifications,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]
pub mod rdmacm;

pub use ibverbs::*;
pub use inline::{ibv_poll_cq, ibv_post_send, ibv_post_srq_recv, ibv_req_notify_cq};
pub use libloading::{Error as LoadError, Library};
pub use rdmacm::*;
