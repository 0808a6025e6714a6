//! Listeners.

use super::*;

#[test]
fn a_listener_is_read_with_all_that_it_says() {
    let config = read(
        "[[listener]]\nprotocol = \"smtp\"\naddress = [\"0.0.0.0:587\", \"[::]:587\"]\ntls = \"starttls\"\n\
         proxy_protocol_from = [\"10.0.0.0/8\", \"192.0.2.7\", \"2001:db8::1\", \"::ffff:10.1.0.0/112\"]\nprovider = \"icloud\"\n\
         [[listener]]\nprotocol = \"pop3\"\n[[listener]]\n[[listener]]\nprotocol = \"smtp\"\nproxy_protocol_from = \"10.1.2.3\"\n\
         [certificate.default]\ncert_file = \"c\"\nkey_file = \"k\"\n",
    )
    .unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    let ports = |one: &Listener| one.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    let [submission, pop3, imap, behind] = config.listeners.as_slice() else {
        panic!("four listeners")
    };
    assert_eq!(
        (submission.protocol, submission.tls),
        (Protocol::Smtp, ListenerTls::Starttls)
    );
    assert_eq!(ports(submission), ["0.0.0.0:587", "[::]:587"]);
    assert_eq!(submission.provider.as_deref(), Some("icloud"));
    let ranges = |one: &Listener| {
        let ranges = one.proxy_protocol_from.iter();
        ranges.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        ranges(submission),
        ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::1/128", "10.1.0.0/16"]
    );
    assert_eq!(
        (pop3.protocol, ports(pop3)),
        (Protocol::Pop3, vec!["127.0.0.1:2995".to_owned()])
    );
    assert_eq!(
        (imap.protocol, ports(imap)),
        (Protocol::Imap, vec!["127.0.0.1:2993".to_owned()])
    );
    assert_eq!(
        (ports(behind), ranges(behind)),
        (vec!["127.0.0.1:2525".to_owned()], vec!["10.1.2.3/32".to_owned()])
    );
    let again = parse(None, &config.to_toml(), &user()).unwrap();
    assert_eq!(again.to_toml(), config.to_toml());
}

#[test]
fn believing_everybodys_proxy_header_is_warned_of() {
    let warnings = |range: &str| {
        let text = format!("[[listener]]\nproxy_protocol_from = \"{range}\"");
        read(&text).unwrap().warnings
    };
    assert_eq!(warnings("10.0.0.0/8"), Vec::<String>::new());
    for everybody in ["0.0.0.0/0", "::/0"] {
        assert!(warnings(everybody)[0].contains("may claim any address"));
    }
}
