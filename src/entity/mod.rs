//! Reactive entity handles: the durable history of field changes, the journal that closes the gap between an owner's write
//! and its history, and the outbox of change events.
//!
//! The state itself belongs to the caller; sequencing his callbacks is the facade's work. Here are the parts that must not lose
//! anything: deriving what a change means ([`derive`], [`mask`]), and the log ([`log`]) on its databases ([`sqlite`], [`postgres`]).

mod clock;
mod continuity;
pub mod derive;
pub mod event;
pub mod field_text;
pub mod handed_in;
mod intent;
pub mod log;
pub mod mask;
pub mod model;
pub mod postgres;
mod rewrite;
pub mod sqlite;
mod units;

#[cfg(test)]
mod derive_properties;
#[cfg(test)]
mod derive_tables;
