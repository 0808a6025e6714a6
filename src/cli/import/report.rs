//! What `account import` prints: the provider tables, and what became of each account.

use serde::Serialize;

use super::table::ProviderTable;
use crate::cli::Failure;
use crate::cli::output::{cell, print, print_table, table};

/// What became of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    /// Its name.
    pub(super) account: String,
    /// Its provider, if one is known.
    pub(super) provider: Option<String>,
    /// What was done.
    #[serde(rename = "result")]
    pub(super) outcome: Outcome,
    /// Whether the daemon got its grant, or would.
    #[serde(rename = "grant")]
    pub(super) has_grant: bool,
    /// How, or why not.
    pub(super) message: String,
}

/// What was done with an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// The daemon has it.
    Imported,
    /// The daemon would have it, were it not a dry run.
    Planned,
    /// There was nothing to do.
    Skipped,
    /// It could not be done.
    Failed,
}

/// Prints the table, or an object that holds it.
///
/// # Errors
/// As printing has them.
pub(super) fn print_provider_table(table: &ProviderTable, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print(&serde_json::json!({"provider": table.provider, "toml": table.toml}).to_string());
    }
    print(&format!("{}\n", table.toml.trim_end()))?;
    print("")
}

/// Prints a table, or an object a line.
///
/// # Errors
/// As printing has them.
pub(super) fn print_rows(rows: &[Row], as_json: bool) -> Result<(), Failure> {
    if as_json {
        return rows
            .iter()
            .try_for_each(|row| print(&serde_json::json!(row).to_string()));
    }
    let mut table = table(&["ACCOUNT", "PROVIDER", "RESULT", "WHY"]);
    for row in rows {
        let outcome = match row.outcome {
            Outcome::Imported => comfy_table::Cell::new("imported").fg(comfy_table::Color::Green),
            Outcome::Planned => comfy_table::Cell::new("would import"),
            Outcome::Skipped => comfy_table::Cell::new("skipped"),
            Outcome::Failed => comfy_table::Cell::new("failed").fg(comfy_table::Color::Red),
        };
        table.add_row([
            cell(Some(&row.account)),
            cell(row.provider.as_deref()),
            outcome,
            cell(Some(&row.message)),
        ]);
    }
    print_table(&table)
}
