//! A mail program's login, as it goes over the wire.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Logs in at `address` and returns what both sides said, a line each, `C:` and `S:` in front.
///
/// # Errors
/// If the connection breaks or the login is refused.
pub(super) async fn login(address: SocketAddr, account: &str, token: &str) -> Result<String, String> {
    let connection = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let mut connection = BufReader::new(connection);
    let mut transcript = format!("S: {}\n", line(&mut connection).await?);
    for (command, tag) in [
        (format!("A LOGIN {account} {token}"), "A "),
        ("B LOGOUT".to_owned(), "B "),
    ] {
        let shown = tag == "A ";
        connection
            .write_all(format!("{command}\r\n").as_bytes())
            .await
            .map_err(|error| error.to_string())?;
        if shown {
            transcript.push_str(&format!("C: {command}\n"));
        }
        loop {
            let reply = line(&mut connection).await?;
            if shown {
                transcript.push_str(&format!("S: {reply}\n"));
            }
            if let Some(result) = reply.strip_prefix(tag) {
                if result.starts_with("OK") {
                    break;
                }
                return Err(format!("the login was refused:\n{transcript}"));
            }
        }
    }
    Ok(transcript)
}

async fn line(connection: &mut BufReader<TcpStream>) -> Result<String, String> {
    let mut line = String::new();
    match connection.read_line(&mut line).await {
        Ok(0) => Err("the proxy closed the connection".to_owned()),
        Ok(_) => Ok(line.trim_end().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
