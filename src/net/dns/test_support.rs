//! A name server on loopback that answers from a list.

use std::net::SocketAddr;

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{MX, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use hickory_resolver::proto::serialize::binary::BinDecodable as _;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::Dns;

/// Answers while it lives.
pub(crate) struct NameServer {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl NameServer {
    /// One that knows `records`, and that there are no others.
    pub(crate) async fn start(records: Vec<Record>) -> Self {
        Self::serve(Some(records)).await
    }

    /// One that answers nobody's questions.
    pub(crate) async fn start_refusing() -> Self {
        Self::serve(None).await
    }

    async fn serve(records: Option<Vec<Record>>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_bytes(&buffer[..length]).unwrap();
                let answer = answer(&question, records.as_deref());
                socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        Self { address, serving }
    }

    /// A resolver that asks it.
    pub(crate) fn dns(&self) -> Dns {
        Dns::at(self.address)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn answer(question: &Message, records: Option<&[Record]>) -> Message {
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = match records {
        Some(_) => ResponseCode::NoError,
        None => ResponseCode::Refused,
    };
    for query in &question.queries {
        answer.add_query(query.clone());
        let known = records.unwrap_or_default().iter();
        let matching =
            known.filter(|record| record.name == *query.name() && record.data.record_type() == query.query_type());
        answer.add_answers(matching.cloned());
    }
    answer
}

/// A mail exchanger of `domain`.
pub(crate) fn mx(domain: &str, preference: u16, host: &str) -> Record {
    Record::from_rdata(name(domain), 60, RData::MX(MX::new(preference, name(host))))
}

/// A place of the service `service`: priority, weight, port and host.
pub(crate) fn srv(service: &str, (priority, weight, port): (u16, u16, u16), host: &str) -> Record {
    let place = SRV::new(priority, weight, port, name(host));
    Record::from_rdata(name(service), 60, RData::SRV(place))
}

/// A name, label by label, so that it can hold what no host is called.
fn name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut name = Name::from_labels(labels.map(str::as_bytes)).unwrap();
    name.set_fqdn(true);
    name
}
