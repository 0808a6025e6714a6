//! Headers as bytes, in every cut, and over real sockets.

use proptest::prelude::*;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::net::test_support::tcp_pair;

const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0xDD, 0xD5, 3, 0xE1];

/// A header of version 2: version and command, family and protocol, the block.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family], &length, block].concat()
}

fn ipv6(source: &str) -> Vec<u8> {
    let source: std::net::Ipv6Addr = source.parse().unwrap();
    [&source.octets()[..], &[0; 16], &[0xDD, 0xD5, 3, 0xE1]].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, value].concat()
}

fn client(address: &str) -> Source {
    Source::Client(address.parse().unwrap())
}

/// Headers and what they say.
fn known() -> Vec<(Vec<u8>, Source)> {
    let line = |text: &str| text.as_bytes().to_vec();
    let certificate = tlv(0x20, &vec![7; 3000]);
    let unix = [b'/'; 216];
    vec![
        (
            line("PROXY TCP4 192.0.2.7 198.51.100.1 56789 993\r\n"),
            client("192.0.2.7:56789"),
        ),
        (
            line("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
            client("255.255.255.255:65535"),
        ),
        (
            line("PROXY TCP6 2001:db8::7 2001:db8::1 56789 993\r\n"),
            client("[2001:db8::7]:56789"),
        ),
        (
            line("PROXY TCP6 ::ffff:192.0.2.7 ::1 56789 993\r\n"),
            client("192.0.2.7:56789"),
        ),
        (
            line(
                "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            ),
            client("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        (line("PROXY UNKNOWN\r\n"), Source::Peer),
        (line("PROXY UNKNOWN one two three four five six\r\n"), Source::Peer),
        (
            line(
                "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            ),
            Source::Peer,
        ),
        (binary(0x21, 0x11, &IPV4), client("192.0.2.7:56789")),
        (binary(0x21, 0x21, &ipv6("2001:db8::7")), client("[2001:db8::7]:56789")),
        (binary(0x21, 0x21, &ipv6("::ffff:192.0.2.7")), client("192.0.2.7:56789")),
        // Values behind the addresses: an authority, a checksum that is not looked at, a certificate, and rubbish.
        (
            binary(
                0x21,
                0x11,
                &[&IPV4[..], &tlv(2, b"imap.test"), &tlv(3, &[0; 4])].concat(),
            ),
            client("192.0.2.7:56789"),
        ),
        (
            binary(0x21, 0x11, &[&IPV4[..], &certificate].concat()),
            client("192.0.2.7:56789"),
        ),
        (
            binary(0x21, 0x11, &[&IPV4[..], &[1, 0xFF]].concat()),
            client("192.0.2.7:56789"),
        ),
        (binary(0x20, 0x00, &[]), Source::Peer),
        (binary(0x20, 0x11, &IPV4), Source::Peer),
        (binary(0x20, 0x5F, b"whatever"), Source::Peer),
        (binary(0x21, 0x00, &[]), Source::Peer),
        (binary(0x21, 0x00, &IPV4), Source::Peer),
        (binary(0x21, 0x10, &IPV4), Source::Peer),
        (binary(0x21, 0x12, &IPV4), Source::Peer),
        (binary(0x21, 0x31, &unix), Source::Peer),
    ]
}

fn whole(bytes: &[u8]) -> Result<Progress, HeaderError> {
    HeaderReader::default().push(bytes)
}

#[test]
fn a_header_says_whom_the_connection_is_for() {
    for (header, source) in known() {
        let taken = header.len();
        let shown = String::from_utf8_lossy(&header).into_owned();
        assert_eq!(
            whole(&header).unwrap(),
            Progress::Complete { taken, source },
            "{shown:?}"
        );
        let followed = [&header[..], b"\x16\x03\x01\x02\x00\r\n"].concat();
        assert_eq!(
            whole(&followed).unwrap(),
            Progress::Complete { taken, source },
            "{shown:?} and more"
        );
    }
}

#[test]
fn a_header_is_complete_at_its_last_byte_and_not_before() {
    for (header, _) in known() {
        for length in 0..header.len() {
            let progress = whole(&header[..length]).unwrap();
            assert_eq!(
                progress,
                Progress::Partial,
                "{length} of {:?}",
                String::from_utf8_lossy(&header)
            );
        }
    }
}

#[test]
fn what_is_no_header_is_told_apart_at_once() {
    for bytes in [
        &b"\x16\x03\x01"[..],
        b"A1 LOGIN alice secret\r\n",
        b"EHLO client\r\n",
        b"PROXYTCP4",
        b"proxy TCP4 ",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\r\n\r\nA",
        b" PROXY",
    ] {
        assert!(matches!(whole(bytes), Err(HeaderError::Missing)), "{bytes:?}");
    }
}

#[test]
fn a_malformed_header_is_refused_with_what_is_wrong() {
    let line = |text: &str| text.as_bytes().to_vec();
    let long = "PROXY UNKNOWN ".to_owned() + &"x".repeat(100);
    for (header, wanted) in [
        (line("PROXY \r\n"), "version 1"),
        (line("PROXY TCP4\r\n"), "version 1"),
        (line("PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n"), "invalid protocol"),
        (line("PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n"), "invalid protocol"),
        (line("PROXY UNKNOWNS\r\n"), "invalid protocol"),
        (
            line("PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n"),
            "IP address for the source",
        ),
        (
            line("PROXY TCP4 192.0.02.7 198.51.100.1 1 2\r\n"),
            "IP address for the source",
        ),
        (
            line("PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n"),
            "IP address for the source",
        ),
        (
            line("PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n"),
            "IP address for the source",
        ),
        (
            line("PROXY TCP4 192.0.2.7 nobody 1 2\r\n"),
            "IP address for the destination",
        ),
        (
            line("PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n"),
            "TCP port for the source",
        ),
        (
            line("PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n"),
            "TCP port for the source",
        ),
        (line("PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n"), "version 1"),
        (line("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n"), "version 1"),
        (line("PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n"), "version 1"),
        (line("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n"), "version 1"),
        (line("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r2\n"), "version 1"),
        (line("PROXY UNKNOWN\n"), "version 1"),
        (line("PROXY UNKNOWN x\n"), "version 1"),
        (b"PROXY TCP4 \xFF\xFE\r\n".to_vec(), "UTF-8"),
        (line(&long), "more than 107 bytes"),
        (binary(0x11, 0x11, &IPV4), "version 10"),
        (binary(0x22, 0x11, &IPV4), "Invalid command"),
        (binary(0x21, 0x41, &IPV4), "Address Family"),
        (binary(0x21, 0x13, &IPV4), "Invalid protocol"),
        (binary(0x21, 0x11, &IPV4[..11]), "cannot store the 12 bytes"),
        (binary(0x21, 0x21, &IPV4), "cannot store the 36 bytes"),
        (binary(0x21, 0x31, &IPV4), "cannot store the 216 bytes"),
        (binary(0x21, 0x11, &[0; PROXY_V2_BYTES_MAX]), "more than 4096 bytes"),
    ] {
        let text = match whole(&header) {
            Err(error) => error.to_string(),
            Ok(progress) => panic!("{:?} is {progress:?}", String::from_utf8_lossy(&header)),
        };
        assert!(text.contains(wanted), "{:?}: {text}", String::from_utf8_lossy(&header));
    }
}

#[test]
fn the_largest_headers_fit_and_one_byte_more_does_not() {
    let room = PROXY_V2_BYTES_MAX - V2_FIXED_BYTES;
    let header = binary(0x20, 0, &vec![0; room]);
    assert!(matches!(
        whole(&header),
        Ok(Progress::Complete {
            taken: PROXY_V2_BYTES_MAX,
            ..
        })
    ));
    // The length alone is enough to refuse it: nobody waits for the rest.
    let header = binary(0x20, 0, &vec![0; room + 1]);
    assert!(matches!(
        whole(&header[..V2_FIXED_BYTES]),
        Err(HeaderError::TooLong(PROXY_V2_BYTES_MAX))
    ));
    let line = |spaces: usize| format!("PROXY UNKNOWN{}\r\n", " ".repeat(spaces));
    let spaces = PROXY_V1_BYTES_MAX - line(0).len();
    assert!(whole(line(spaces).as_bytes()).is_ok());
    let refused = whole(line(spaces + 1).as_bytes());
    assert!(matches!(refused, Err(HeaderError::TooLong(PROXY_V1_BYTES_MAX))));
}

/// What `receive` makes of bytes written to it in pieces, and what is left behind.
async fn received(pieces: &[&[u8]]) -> (Result<Source, HeaderError>, Vec<u8>) {
    let (mut near, mut far) = tcp_pair().await;
    near.set_nodelay(true).unwrap();
    let writing = async {
        for piece in pieces {
            near.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        near.shutdown().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(receive(&mut far), writing);
    let mut rest = Vec::new();
    if outcome.is_ok() {
        far.read_to_end(&mut rest).await.unwrap();
    }
    (outcome, rest)
}

#[tokio::test]
async fn what_comes_behind_a_header_is_left_in_the_socket() {
    for (header, source) in known() {
        let hello = b"\x16\x03\x01\x00\x05hello\r\n";
        let together = [&header[..], hello].concat();
        let (outcome, rest) = received(&[&together]).await;
        assert_eq!((outcome.unwrap(), rest.as_slice()), (source, &hello[..]));
        let (outcome, rest) = received(&[&header[..9], &header[9..], hello]).await;
        assert_eq!((outcome.unwrap(), rest.as_slice()), (source, &hello[..]));
    }
}

#[tokio::test]
async fn bytes_that_come_one_by_one_make_the_same_header() {
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56789 993\r\nA1 NOOP\r\n";
    let pieces: Vec<_> = header.chunks(1).collect();
    let (outcome, rest) = received(&pieces).await;
    assert_eq!(
        (outcome.unwrap(), rest.as_slice()),
        (client("192.0.2.7:56789"), &b"A1 NOOP\r\n"[..])
    );
}

#[tokio::test]
async fn a_peer_that_hangs_up_is_told_from_one_that_never_spoke() {
    assert!(matches!(received(&[]).await.0, Err(HeaderError::Silent)));
    assert!(matches!(received(&[b"PROXY TCP4 192"]).await.0, Err(HeaderError::Cut)));
    assert!(matches!(received(&[&V2_SIGNATURE[..5]]).await.0, Err(HeaderError::Cut)));
}

#[tokio::test]
async fn a_peer_that_breaks_off_is_a_health_check_only_as_long_as_it_said_nothing() {
    for said in [&b""[..], b"PROXY TCP4 192"] {
        let (mut near, mut far) = tcp_pair().await;
        near.write_all(said).await.unwrap();
        // Without lingering a close is a reset.
        SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
        drop(near);
        match receive(&mut far).await {
            Err(HeaderError::Silent) => assert!(said.is_empty()),
            Err(HeaderError::Io(error)) => {
                assert!(error.kind() == io::ErrorKind::ConnectionReset && !said.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_does_not_end_is_not_waited_for_long() {
    for beginning in [&b""[..], b"PROXY TCP4 192", V2_SIGNATURE] {
        let (mut near, mut far) = tcp_pair().await;
        near.write_all(beginning).await.unwrap();
        let begun = tokio::time::Instant::now();
        let outcome = receive(&mut far).await;
        assert!(
            matches!(outcome, Err(HeaderError::TimedOut(PROXY_HEADER_TIMEOUT))),
            "{outcome:?}"
        );
        assert_eq!(begun.elapsed(), PROXY_HEADER_TIMEOUT);
    }
}

/// What a reader makes of a stream in pieces: how many bytes it took in all, and what it says.
fn in_pieces<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Result<Option<(usize, Source)>, String> {
    let (mut reader, mut before) = (HeaderReader::default(), 0);
    for piece in pieces {
        match reader.push(piece).map_err(|error| error.to_string())? {
            Progress::Partial => before += piece.len(),
            Progress::Complete { taken, source } => return Ok(Some((before + taken, source))),
        }
    }
    Ok(None)
}

proptest! {
    #[test]
    fn the_cuts_of_a_stream_make_no_difference(
        which in 0..known().len(),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        behind in prop::collection::vec(any::<u8>(), 0..64),
        cuts in prop::collection::vec(1..40_usize, 0..200),
    ) {
        let mut stream = known()[which].0.clone();
        if let Some((at, byte)) = damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream.extend(behind);
        let mut rest = stream.as_slice();
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let all = in_pieces(std::iter::once(stream.as_slice()));
        prop_assert_eq!(in_pieces(pieces.into_iter()), all.clone());
        prop_assert_eq!(in_pieces(stream.chunks(1)), all);
    }

    #[test]
    fn any_bytes_are_a_header_or_refused_within_its_bounds(bytes in prop::collection::vec(any::<u8>(), 0..300), v2 in any::<bool>()) {
        let (beginning, bytes_max) = match v2 {
            true => (V2_SIGNATURE, PROXY_V2_BYTES_MAX),
            false => (V1_BEGINNING, PROXY_V1_BYTES_MAX),
        };
        let _ = whole(&bytes);
        if let Ok(Progress::Complete { taken, .. }) = whole(&[beginning, &bytes].concat()) {
            prop_assert!(taken <= bytes_max);
        }
    }
}
