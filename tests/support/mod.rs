//! What the reliability tests share: a recorder and power-cut model ([`model`]), disks that fail or freeze ([`disks`]),
//! runtime directories to work on ([`store`]), the original format by hand ([`original`]), and a verifier that does not use
//! the code under test ([`verify`]).
#![allow(dead_code, missing_docs, reason = "every test uses a part of it")]

pub mod disks;
pub mod model;
pub mod original;
pub mod power;
pub mod states;
pub mod store;
pub mod verify;
