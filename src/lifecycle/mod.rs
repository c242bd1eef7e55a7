//! Sessions of coding agents: their durable truth, what is decided about them, and the log of what changed.

pub mod backend;
pub mod check;
pub mod command;
pub mod decide;
pub mod manager;
pub mod model;
pub mod owners;
pub mod sql;
pub mod tables;
pub mod time;
pub mod words;
