//! Any stream, cut anywhere: whether it begins with a PROXY header, where that ends and what it says does not depend on the
//! cuts, a header stays within its bounds, and what is one is also recognised as one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::limits::{PROXY_V1_BYTES_MAX, PROXY_V2_BYTES_MAX};
use portreeve::net::first_bytes::{FIRST_BYTES, FirstBytes};
use portreeve::net::proxy_protocol::{HeaderReader, Progress, Source};

fuzz_target!(|data: &[u8]| {
    // The first byte says how long the pieces are.
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    let whole = read([stream].into_iter());
    assert_eq!(read(stream.chunks(usize::from(size).max(1))), whole);
    if let Ok(Some((taken, source))) = whole {
        let bytes_max = match stream.first() {
            Some(b'P') => PROXY_V1_BYTES_MAX,
            _ => PROXY_V2_BYTES_MAX,
        };
        assert!((1..=bytes_max).contains(&taken));
        let first = stream.get(..FIRST_BYTES).unwrap_or(stream);
        assert_eq!(FirstBytes::of(first), FirstBytes::ProxyHeader);
        if let Source::Client(client) = source {
            assert_eq!(client.ip(), client.ip().to_canonical());
        }
    }
});

/// The bytes that were the header's and what it says; `None` where it is not complete.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Option<(usize, Source)>, String> {
    let (mut reader, mut before) = (HeaderReader::default(), 0);
    for piece in pieces {
        match reader.push(piece).map_err(|error| error.to_string())? {
            Progress::Partial => before += piece.len(),
            Progress::Complete { taken, source } => return Ok(Some((before + taken, source))),
        }
    }
    Ok(None)
}
