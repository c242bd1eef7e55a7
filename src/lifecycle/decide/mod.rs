//! What follows from what was seen: pure functions, no I/O, an answer for every input.

pub mod call;
pub mod evidence;
pub mod probe;
pub mod reaction;
pub mod several;
pub mod status;
#[cfg(test)]
mod test_support;

pub use call::call;
