//! The digits of a short access token: Crockford's base32 (<https://www.crockford.com/base32.html>).
//!
//! People read these tokens from a screen and type them on the panel of a scanner. So upper and lower case mean the same, `O` is
//! read as 0, `I` and `L` as 1, and hyphens, by which people part long words, count for nothing. The letter `U` is no digit; the
//! specification's check symbol is not used. The canonical way of writing is upper case without hyphens: it is what is shown, and
//! what is hashed.

use crate::limits::SHORT_TOKEN_DIGITS;
use crate::secret::SecretString;

use zeroize::Zeroizing;

/// The token whose digits are the low five bits of each of `bytes`.
pub(super) fn of_bytes(bytes: &[u8; SHORT_TOKEN_DIGITS]) -> SecretString {
    let digits = bytes.iter().filter_map(|byte| DIGITS.get(usize::from(byte % 32)));
    digits.map(|digit| char::from(*digit)).collect::<String>().into()
}

/// `text` in the canonical way of writing, if it is a short token in any.
pub(super) fn read(text: &str) -> Option<SecretString> {
    let mut digits = Zeroizing::new([0; SHORT_TOKEN_DIGITS]);
    let mut places = digits.iter_mut();
    for symbol in text.bytes().filter(|symbol| *symbol != b'-') {
        *places.next()? = value(symbol)?;
    }
    match places.next() {
        Some(_) => None,
        None => Some(of_bytes(&digits)),
    }
}

/// The five bits that `symbol` stands for.
fn value(symbol: u8) -> Option<u8> {
    let digit = match symbol.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        digit => digit,
    };
    let place = DIGITS.iter().position(|known| *known == digit)?;
    u8::try_from(place).ok()
}

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::ExposeSecret;

    fn canonical(text: &str) -> Option<String> {
        read(text).map(|token| token.expose_secret().to_owned())
    }

    #[test]
    fn digits_are_read_as_crockford_has_them() {
        for (text, expected) in [
            ("0123456789ABCDEFGHJK", Some("0123456789ABCDEFGHJK")),
            ("mnpqrstvwxyzMNPQRSTV", Some("MNPQRSTVWXYZMNPQRSTV")),
            ("oOiIlLoOiIlLoOiIlLoO", Some("00111100111100111100")),
            ("abcde-FGHJK-mnpqr-STVWX", Some("ABCDEFGHJKMNPQRSTVWX")),
            ("-abcdeFGHJKmnpqrSTVWX--", Some("ABCDEFGHJKMNPQRSTVWX")),
            ("ABCDEFGHJKMNPQRSTVWU", None),
            ("ABCDEFGHJKMNPQRSTVW*", None),
            ("ABCDEFGHJKMNPQRSTVW", None),
            ("ABCDEFGHJKMNPQRSTVWXY", None),
            ("ABCDE FGHJK MNPQR STVWX", None),
            ("ABCDEFGHJKMNPQRSTVWé", None),
            ("--------------------", None),
            ("", None),
        ] {
            assert_eq!(canonical(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_token_is_read_however_its_digits_are_written(
            bytes: [u8; SHORT_TOKEN_DIGITS],
            hands in prop::collection::vec((any::<bool>(), 0..3_usize, prop::option::weighted(0.2, Just('-'))), SHORT_TOKEN_DIGITS),
        ) {
            let token = of_bytes(&bytes).expose_secret().to_owned();
            let mut written = String::new();
            for (digit, (is_lower, alike, hyphen)) in token.chars().zip(hands) {
                let digit = match (digit, alike) {
                    ('0', 1) => 'O',
                    ('1', 1) => 'I',
                    ('1', 2) => 'L',
                    _ => digit,
                };
                written.push(if is_lower { digit.to_ascii_lowercase() } else { digit });
                written.extend(hyphen);
            }
            prop_assert_eq!(canonical(&written), Some(token));
        }
    }
}
