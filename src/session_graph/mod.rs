//! One session of an agent runtime: its graph of nodes, its checkpoint, what it used, and the work that waits for it. All of it
//! changes through one atomic commit that compares the head's revision and can be sent again.

pub mod backend;
mod blob;
mod command;
mod commit;
mod error;
mod fork;
mod graph;
mod load;
mod manifest;
mod pages;
mod prune;
mod queue;
pub mod side;
mod sql;
mod tables;
mod turn;
mod verify;

pub use command::{file_name, turn_commit_hash};
