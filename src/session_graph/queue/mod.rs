//! Work that waits for a turn: batches in the order in which they came, owned by at most one claim at a time.

mod batch;
mod cancel;
mod claim;
mod dead;
mod finished;
pub(crate) mod postgres;
mod rows;

pub(crate) use batch::Draft;
pub(crate) use cancel::{Cancel, cancel};
pub(crate) use claim::{
    Abandonment, Claim, Renewal, abandon, check_completion, claim, complete, is_something_ready, renew,
};
pub(crate) use dead::{Requeue, dead_letters, requeue};
pub(crate) use finished::{clear as clear_finished, state};
pub(crate) use rows::{enqueue, list, problems};
