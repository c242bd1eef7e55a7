//! What is stored besides the graph and the queue, table by table.

pub(crate) mod artifacts;
pub(crate) mod attachments;
pub(crate) mod blobs;
pub(crate) mod gc;
pub(crate) mod head;
pub(crate) mod info;
pub(crate) mod meta;
pub(crate) mod pins;
pub(crate) mod turns;
pub(crate) mod usage;
