//! Records as bytes: a format number and JSON.

use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// The bytes of `record`.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![FORMAT];
    serde_json::to_writer(&mut bytes, record)
        .map_err(|error| StoreError::Unwritable(format!("a record cannot be encoded: {error}")))?;
    Ok(bytes)
}

/// The bytes of `record` with its `rank`: listings tell by it which of two of the same millisecond is newer.
pub(super) fn encode_ranked<T: Serialize>(record: &T, rank: u64) -> Result<Vec<u8>, StoreError> {
    encode(&Ranked { record, rank })
}

/// The rank of the record in `bytes`; 0 for one that was written without. Whatever reads the record itself passes over it.
pub(super) fn rank(what: &'static str, bytes: &[u8]) -> Result<u64, StoreError> {
    decode::<Rank>(what, bytes).map(|ranked| ranked.rank)
}

#[derive(Serialize)]
struct Ranked<'a, T> {
    #[serde(flatten)]
    record: &'a T,
    rank: u64,
}

#[derive(Deserialize)]
struct Rank {
    #[serde(default)]
    rank: u64,
}

/// The record in `bytes`; `what` names its kind for the error.
pub(super) fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&FORMAT, json)) => serde_json::from_slice(json)
            .map_err(|error| StoreError::Unreadable(format!("the record of {what} is damaged: {error}"))),
        Some((format, _)) => Err(StoreError::Unreadable(format!(
            "the record of {what} has format {format}, which is newer than this program"
        ))),
        None => Err(StoreError::Unreadable(format!("the record of {what} is empty"))),
    }
}

const FORMAT: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_and_newer_formats_are_told_apart() {
        let good = encode(&7_u64).unwrap();
        assert_eq!(decode::<u64>("a test", &good).unwrap(), 7);
        for (bytes, expected) in [(&b"\x017x"[..], "damaged"), (b"\x027", "newer"), (b"", "empty")] {
            let error = decode::<u64>("a test", bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
