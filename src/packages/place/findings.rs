//! What a plan has to say besides the layout.

/// Something about a layout that a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Path of the package that has the dependency.
    pub path: String,
    /// Key of the dependency.
    pub key: String,
    /// What the dependency asks for.
    pub spec: String,
    /// The same for people, with what was done about it.
    pub message: String,
}

/// What a [`Finding`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// The manifest has the package, but no version that satisfies; another one stands in.
    Unsatisfied,
    /// A peer is there in a version that does not satisfy.
    PeerMismatch,
    /// A peer is not in the manifest.
    PeerMissing,
    /// Packages need each other in versions that cannot all be near; nesting them would not end.
    Cycle,
    /// The key cannot name a folder; an optional or peer dependency was skipped.
    BadKey,
    /// The name of a command is too long for a file; it was skipped.
    LongBin,
    /// A `package.json` is no JSON object: what the package needs is unknown, so it got nothing.
    Unreadable,
}

impl FindingKind {
    /// Whether it is worth a warning; the others are for debug logs.
    #[must_use]
    pub fn is_warning(self) -> bool {
        self != FindingKind::Unsatisfied
    }
}
