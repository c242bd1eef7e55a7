//! The entity module.
