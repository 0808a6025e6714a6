//! Sealing: authenticated encryption of secrets before they reach a disk.
//!
//! XChaCha20-Poly1305 with a random nonce of 24 bytes, which may be drawn at random for as long as a key lives. The
//! associated data are the space and the key of the record, so that a sealed value cannot be moved to another record.
//! A removed value stays readable in an engine's journal for a while; that is why nothing secret is written unsealed.
//!
//! ```text
//! format (1 byte: 1) | nonce (24) | ciphertext (as long as the plaintext) | tag (16)
//! ```

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rand::TryRngCore;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::master_key::MasterKey;

/// Seals and opens records with one master key, and derives other keys from it. The key is wiped when this is dropped.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    /// What derived keys are made of: not the master key itself, which is the cipher's alone.
    root: Zeroizing<[u8; 32]>,
}

/// Why a sealed record was not made or not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random bytes for a nonce.
    #[error("the system has no random bytes")]
    NoRandomness,
    /// The plaintext is longer than the cipher allows (256 GiB).
    #[error("the record is too long to be sealed")]
    TooLong,
    /// This is no sealed record, or one of a newer format.
    #[error("not a sealed record of a format that this version reads")]
    Malformed,
    /// Another key or another record, or the bytes were changed.
    #[error("the record was sealed with another key, belongs elsewhere, or is damaged")]
    NotAuthentic,
}

impl Sealer {
    /// A sealer with this key.
    pub fn new(key: &MasterKey) -> Self {
        Self {
            cipher: XChaCha20Poly1305::new(key.bytes().into()),
            root: keyed_hash(key.bytes(), b"portreeve: root of derived keys"),
        }
    }

    /// A key for `purpose`, from which neither the master key nor the key of another purpose can be told.
    pub fn derive_key(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        keyed_hash(&self.root, purpose.as_bytes())
    }

    /// Seals `plaintext` for the record `key` of `space`. `space` must not contain a NUL.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`], [`SealError::TooLong`].
    pub fn seal(&self, space: &str, key: &[u8], mut plaintext: Zeroizing<Vec<u8>>) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rngs::OsRng
            .try_fill_bytes(&mut nonce)
            .map_err(|_| SealError::NoRandomness)?;
        let tag = self
            .cipher
            .encrypt_in_place_detached(XNonce::from_slice(&nonce), &associated_data(space, key), &mut plaintext)
            .map_err(|_| SealError::TooLong)?;
        Ok([&[FORMAT], nonce.as_slice(), &plaintext, &tag].concat())
    }

    /// Opens what [`Self::seal`] made for the same record.
    ///
    /// # Errors
    /// [`SealError::Malformed`], [`SealError::NotAuthentic`].
    pub fn open(&self, space: &str, key: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, rest) = sealed
            .strip_prefix(&[FORMAT])
            .and_then(|rest| rest.split_first_chunk::<NONCE_BYTES>())
            .ok_or(SealError::Malformed)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(SealError::Malformed)?;
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        self.cipher
            .decrypt_in_place_detached(
                XNonce::from_slice(nonce),
                &associated_data(space, key),
                &mut plaintext,
                Tag::from_slice(tag),
            )
            .map_err(|_| SealError::NotAuthentic)?;
        Ok(plaintext)
    }
}

/// HMAC-SHA256, which is a pseudorandom function of its key (RFC 2104; RFC 5869 §2.3 uses it so).
fn keyed_hash(key: &[u8; 32], text: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn associated_data(space: &str, key: &[u8]) -> Vec<u8> {
    [space.as_bytes(), &[0], key].concat()
}

const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealer(key: u8) -> Sealer {
        Sealer::new(&MasterKey::from_bytes([key; 32]))
    }

    fn sealed(plaintext: &[u8]) -> Vec<u8> {
        sealer(1)
            .seal("secrets", b"example", Zeroizing::new(plaintext.to_vec()))
            .unwrap()
    }

    #[test]
    fn a_record_opens_only_with_its_key_and_in_its_place() {
        let record = sealed(b"open sesame");
        assert_eq!(
            sealer(1).open("secrets", b"example", &record).unwrap().as_slice(),
            b"open sesame"
        );
        for (key, space, name) in [
            (2, "secrets", "example"),
            (1, "meta", "example"),
            (1, "secrets", "other"),
        ] {
            let opened = sealer(key).open(space, name.as_bytes(), &record);
            assert_eq!(opened.unwrap_err(), SealError::NotAuthentic);
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_to_the_same_bytes() {
        assert_ne!(sealed(b"open sesame"), sealed(b"open sesame"));
    }

    #[test]
    fn what_is_too_short_or_of_another_format_is_malformed() {
        let record = sealed(b"");
        for bytes in [
            &[][..],
            &[FORMAT],
            &record[..record.len() - 1],
            &[&[9], &record[1..]].concat(),
        ] {
            assert_eq!(
                sealer(1).open("secrets", b"example", bytes).unwrap_err(),
                SealError::Malformed
            );
        }
    }

    proptest! {
        #[test]
        fn any_changed_bit_is_noticed(plaintext: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let mut record = sealed(&plaintext);
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
            prop_assert!(sealer(1).open("secrets", b"example", &record).is_err());
        }
    }
}
