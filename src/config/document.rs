//! From text to [`raw::File`]: syntax, types and unknown keys, table by table, so that one bad table does not hide the next.
//! A table that cannot be read is as if it were not there.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::raw;
use super::report::{Report, quoted};

/// Reads the file; what cannot be read is noted in `report` and left at nothing.
pub(super) fn read(text: &str, report: &mut Report<'_>) -> raw::File {
    let mut file = raw::File::default();
    let document = match DeTable::parse(text) {
        Ok(document) => document.into_inner(),
        Err(error) => {
            // Only the message: the error's own rendering prints the line, which may hold a secret.
            report.refuse(error.span(), "", error.message());
            return file;
        }
    };
    for (key, value) in document {
        match key.get_ref().as_ref() {
            "server" => file.server = table("server", value, report).unwrap_or_default(),
            "store" => file.store = table("store", value, report).unwrap_or_default(),
            "secrets" => file.secrets = table("secrets", value, report).unwrap_or_default(),
            "admin" => file.admin = table("admin", value, report).unwrap_or_default(),
            "metrics" => file.metrics = table("metrics", value, report).unwrap_or_default(),
            "log" => file.log = table("log", value, report).unwrap_or_default(),
            "web" => file.web = table("web", value, report).unwrap_or_default(),
            "hooks" => file.hooks = table("hooks", value, report).unwrap_or_default(),
            "limits" => file.limits = table("limits", value, report).unwrap_or_default(),
            "listener" => file.listener = listeners(value, report),
            "certificate" => file.certificate = named_tables("certificate", value, report),
            "provider" => file.provider = named_tables("provider", value, report),
            unknown => report.refuse(Some(key.span()), unknown, format!("unknown table; use one of {TABLES}")),
        }
    }
    file
}

/// The tables of a file, in the order of INTERFACE §3.
const TABLES: &str = "server, store, secrets, admin, metrics, log, limits, web, hooks, [[listener]], [certificate.NAME], [provider.NAME]";

/// The elements of `[[listener]]`.
fn listeners(value: Spanned<DeValue<'_>>, report: &mut Report<'_>) -> Vec<Spanned<raw::Listener>> {
    let span = value.span();
    let DeValue::Array(elements) = value.into_inner() else {
        report.refuse(
            Some(span),
            "listener",
            "expected a list of tables; begin each with [[listener]]",
        );
        return Vec::new();
    };
    let read = |element: Spanned<_>| Some(Spanned::new(element.span(), table("listener", element, report)?));
    elements.into_iter().filter_map(read).collect()
}

/// The tables of `[section.NAME]`.
fn named_tables<T: DeserializeOwned>(
    section: &str,
    value: Spanned<DeValue<'_>>,
    report: &mut Report<'_>,
) -> BTreeMap<String, Spanned<T>> {
    let span = value.span();
    let DeValue::Table(tables) = value.into_inner() else {
        report.refuse(
            Some(span),
            section,
            format!("expected tables; begin each with [{section}.NAME]"),
        );
        return BTreeMap::new();
    };
    let mut read = BTreeMap::new();
    for (name, value) in tables {
        let span = value.span();
        let name = name.into_inner().into_owned();
        if let Some(table) = table(&format!("{section}.{name}"), value, report) {
            read.insert(name, Spanned::new(span, table));
        }
    }
    read
}

/// One table. Nothing of a value reaches the error, since what stands in a wrong place may be a secret.
fn table<T: DeserializeOwned>(section: &str, value: Spanned<DeValue<'_>>, report: &mut Report<'_>) -> Option<T> {
    if !value.get_ref().is_table() {
        let found = value.get_ref().type_str();
        report.refuse(
            Some(value.span()),
            section,
            format!("expected a table, found {}", with_article(found)),
        );
        return None;
    }
    let kept = value.clone();
    match T::deserialize(ValueDeserializer::from(value)) {
        Ok(table) => Some(table),
        Err(error) => {
            let span = error.span().unwrap_or_else(|| kept.span());
            let mut path = vec![section.to_owned()];
            let found = find(kept.get_ref(), &span, &mut path);
            report.refuse(Some(span), path.join("."), explanation(error.message(), found));
            None
        }
    }
}

/// Finds what is at `span`, completes `path` to it, and answers the type of its value.
fn find(value: &DeValue<'_>, span: &Range<usize>, path: &mut Vec<String>) -> Option<&'static str> {
    match value {
        DeValue::Table(table) => table.iter().find_map(|(key, value)| {
            path.push(AsRef::<str>::as_ref(key.get_ref()).to_owned());
            if key.span() == *span || value.span() == *span {
                return Some(value.get_ref().type_str());
            }
            let found = find(value.get_ref(), span, path);
            if found.is_none() {
                path.pop();
            }
            found
        }),
        DeValue::Array(elements) => elements.iter().find_map(|element| {
            if element.span() == *span {
                return Some(element.get_ref().type_str());
            }
            find(element.get_ref(), span, path)
        }),
        _ => None,
    }
}

/// The deserialiser's words without the value that it repeats.
fn explanation(message: &str, found: Option<&'static str>) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let (name, known) = rest.split_once("`, expected ").unwrap_or((rest, ""));
        let known = known
            .strip_prefix("one of ")
            .unwrap_or(known)
            .replace('`', "")
            .replace(" or ", ", ");
        return format!("unknown key {}; use one of {known}", quoted(name));
    }
    let expected = message
        .rsplit_once("expected ")
        .map_or("another type", |(_, expected)| expected);
    let expected = match expected {
        "i64" => "a whole number",
        "a sequence" => "a list of strings",
        "a map" => "a table",
        "a boolean" => "true or false",
        expected if expected.starts_with("struct ") => "a table",
        expected => expected,
    };
    match found {
        Some(found) => format!("expected {expected}, found {}", with_article(found)),
        None => format!("expected {expected}"),
    }
}

/// A type's name as a sentence needs it.
fn with_article(name: &str) -> String {
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name}")
}
