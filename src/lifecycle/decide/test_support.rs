//! What the tests of the deciders start from.

use crate::lifecycle::model::{Activity, Lifecycle, PrFacts};
use crate::lifecycle::words::{SessionState, TerminationReason};

/// A lifecycle in `state`, with nothing else in it.
pub fn lifecycle(state: SessionState) -> Lifecycle {
    Lifecycle {
        state,
        termination_reason: TerminationReason::None,
        is_alive: true,
        harness: String::new(),
        activity: Activity::default(),
        detecting: None,
    }
}

/// An open pull request of which nothing else is known.
pub fn open() -> PrFacts {
    PrFacts { exists: true, url: "https://x/pull/1".to_owned(), number: 1, ..PrFacts::default() }
}

/// A closed one.
pub fn closed() -> PrFacts {
    PrFacts { closed: true, ..open() }
}
