//! What kinds there are.

use serde::Deserialize;

use super::{effects, host_events, processes};
use crate::error::Result;
use crate::session_graph::sql::Sql;
use crate::sqlite::Migration;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Processes, their events, leases and the handles of them.
    Processes,
    /// Outcomes of effects.
    Effects,
    /// Events of the host, and who wants to hear of them.
    HostEvents,
}

impl Kind {
    /// As it stands in messages.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Processes => "process registry",
            Self::Effects => "effect replay",
            Self::HostEvents => "host event",
        }
    }

    pub(super) fn application_id(self) -> i32 {
        match self {
            Self::Processes => processes::APPLICATION_ID,
            Self::Effects => effects::APPLICATION_ID,
            Self::HostEvents => host_events::APPLICATION_ID,
        }
    }

    pub(super) fn migrations(self) -> &'static [Migration] {
        match self {
            Self::Processes => processes::MIGRATIONS,
            Self::Effects => effects::MIGRATIONS,
            Self::HostEvents => host_events::MIGRATIONS,
        }
    }

    /// The version of the files that this version writes.
    #[must_use]
    pub fn schema_version(self) -> u32 {
        self.migrations().last().map_or(0, |migration| migration.version)
    }

    /// Runs a command that may write, in a transaction that is undone if it fails.
    pub(super) fn write(self, sql: &mut dyn Sql, name: &str, text: &str) -> Result<String> {
        match self {
            Self::Processes => processes::write(sql, name, text),
            Self::Effects => effects::write(sql, name, text),
            Self::HostEvents => host_events::write(sql, name, text),
        }
    }

    /// Runs a command that only reads, on one snapshot.
    pub(super) fn read(self, sql: &mut dyn Sql, name: &str, text: &str) -> Result<String> {
        match self {
            Self::Processes => processes::read(sql, name, text),
            Self::Effects => effects::read(sql, name, text),
            Self::HostEvents => host_events::read(sql, name, text),
        }
    }
}
