//! Work that waits for a turn: batches in the order in which they came, owned by at most one claim at a time.

mod batch;
mod claim;
pub(crate) mod postgres;
mod rows;

pub(crate) use batch::Draft;
pub(crate) use claim::{Claim, Held, Renewal, abandon, check_completion, claim, complete, is_something_ready, renew};
pub(crate) use rows::{cancel, enqueue, list, problems};
