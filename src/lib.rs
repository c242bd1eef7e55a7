//! holdfast: runtime state that survives.
//!
//! Layers, top down: [`binding`](crate) (Node-API, feature `node`) → modules ([`runtime_store`], [`entity`], [`packages`],
//! [`lifecycle`], [`session_graph`]) → engines ([`blobs`], then [`durable`], [`sqlite`], [`postgres`]) → leaves ([`error`], [`json`], [`hash`], [`clock`],
//! [`ids`], the runtime for the network). Arrows point down only.

#[cfg(feature = "node")]
mod binding;
pub mod blobs;
pub mod clock;
pub mod durable;
pub mod entity;
pub mod error;
pub mod hash;
pub mod ids;
pub mod json;
pub mod lifecycle;
mod network;
pub mod packages;
pub mod postgres;
pub mod runtime_store;
pub mod session_graph;
pub mod sqlite;
