//! What the reliability tests share: a recorder ([`model`]), the power-cut models ([`states`]), disks that fail or freeze ([`disks`]),
//! runtime directories to work on ([`store`]), the original format by hand ([`original`]), and a verifier that does not use
//! the code under test ([`verify`]).
#![allow(dead_code, missing_docs, reason = "every test uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test"
)]

pub mod disks;
pub mod kills;
pub mod model;
pub mod original;
pub mod power;
pub mod states;
pub mod store;
pub mod tree;
pub mod verify;
