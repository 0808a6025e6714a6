//! `portreeve demo`: the main job with nothing configured, as it shows itself.

use std::process::Command;

use rustix::process::Signal;

use crate::support::process::Process;
use crate::support::shell::{assert_in_order, only_token_in};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_shows_its_login_and_ends_without_any_network() {
    let program = env!("CARGO_BIN_EXE_portreeve");
    // A network of its own with nothing in it but loopback, which has to be switched on first; where
    // the system does not allow that, proxies that are not there must do.
    let lonely = "import fcntl, os, socket, struct, sys\n\
                  fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 0x41))\n\
                  os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "python3", "-c", lonely, program]);
    let may_be_alone = Command::new("unshare")
        .args(["--map-root-user", "--net", "true"])
        .output();
    if !may_be_alone.is_ok_and(|output| output.status.success()) {
        command = Command::new(program);
    }
    command
        .args(["demo", "--once"])
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env("HTTP_PROXY", "http://127.0.0.1:1");
    let mut demo = Process::spawn("demo", &mut command);
    assert!(demo.wait().await.success(), "{}", demo.log_tail());
    demo.until_output_ends().await;
    let shown = demo.stdout();
    let token = only_token_in(&shown);
    let login = format!("C: A LOGIN example {token}");
    assert_in_order(
        &shown,
        &[
            "S: * OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN] \
             Portreeve IMAP proxy ready for requests from 127.0.0.1\n",
            &login,
            "S: * CAPABILITY IMAP4rev1",
            "S: A OK example authenticated\n",
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_demos_at_once_can_be_tried_as_they_say() {
    let demos = [(); 2].map(|()| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve"));
        Process::spawn("demo", command.arg("demo"))
    });
    let mut urls = Vec::new();
    for demo in &demos {
        for scheme in ["imap://", "imaps://"] {
            let line = demo
                .stdout_line(|line| line.contains("curl ") && line.contains(scheme))
                .await;
            let output = Command::new("sh").args(["-c", &line]).output().expect("sh is there");
            let read = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{line}: {output:?}");
            assert!(read.contains("Subject: "), "{line}: {read}");
            urls.extend(line.split(scheme).nth(1).map(str::to_owned));
        }
        demo.stdout_line(|line| line.contains("openssl s_client")).await;
    }
    urls.sort();
    urls.dedup();
    assert_eq!(urls.len(), 4, "each has ports of its own");
    for mut demo in demos {
        demo.signal(Signal::INT);
        assert!(demo.wait().await.success(), "{}", demo.log_tail());
    }
}
