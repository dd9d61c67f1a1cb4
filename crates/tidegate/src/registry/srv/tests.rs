//! Against a server of names on loopback.

use std::{future::pending, net::Ipv4Addr};

use hickory_resolver::proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SRV},
    },
};
use tokio::{net::UdpSocket, task::AbortHandle};

use super::*;

/// What the server answers: its records, an error, or nothing at all.
enum Answers {
    Records(Vec<SRV>),
    Code(ResponseCode),
    Silence,
}

struct Server(SocketAddr, AbortHandle);

impl Drop for Server {
    fn drop(&mut self) {
        self.1.abort();
    }
}

async fn server(answers: Answers) -> Server {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let address = socket.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        let mut bytes = [0; 4096];
        loop {
            let (length, peer) = socket.recv_from(&mut bytes).await.expect("a question");
            let question = Message::from_vec(&bytes[..length]).expect("a message");
            let mut answer = question.clone();
            answer.metadata.message_type = MessageType::Response;
            let (name, kind) = (question.queries[0].name().clone(), question.queries[0].query_type());
            match &answers {
                Answers::Records(_) if kind == RecordType::A => match address_of(&name) {
                    Ok(address) => {
                        answer.answers = vec![Record::from_rdata(name, 60, RData::A(A(address)))];
                    }
                    Err(code) => answer.metadata.response_code = code,
                },
                Answers::Records(_) if kind != RecordType::SRV => {}
                Answers::Records(records) => {
                    answer.answers = records
                        .iter()
                        .map(|record| Record::from_rdata(name.clone(), 60, RData::SRV(record.clone())))
                        .collect();
                }
                Answers::Code(code) => answer.metadata.response_code = *code,
                Answers::Silence => pending().await,
            }
            socket.send_to(&answer.to_vec().expect("a message"), peer).await.expect("it is sent");
        }
    });
    Server(address, task.abort_handle())
}

/// The addresses of the targets.
fn address_of(name: &Name) -> Result<Ipv4Addr, ResponseCode> {
    match name.to_ascii().as_str() {
        "a.example." => Ok(Ipv4Addr::new(10, 0, 0, 1)),
        "b.example." => Ok(Ipv4Addr::new(10, 0, 0, 2)),
        "broken.example." => Err(ResponseCode::ServFail),
        _ => Err(ResponseCode::NXDomain),
    }
}

fn record(priority: u16, weight: u16, port: u16, target: &str) -> SRV {
    SRV::new(priority, weight, port, Name::from_ascii(target).expect("a name"))
}

async fn ask(server: &Server) -> Result<Listing, SourceError> {
    let source = SrvSource::at("_{service}._tcp.example.", [server.0]).expect("a source");
    source.get(&"orders".parse().expect("a name")).await
}

#[tokio::test]
async fn the_targets_of_the_first_priority_are_the_instances_with_their_weights() {
    let server = server(Answers::Records(vec![
        record(10, 5, 9001, "a.example."),
        record(10, 0, 9002, "b.example."),
        record(20, 9, 9003, "spare.example."),
    ]))
    .await;
    let listing = ask(&server).await.unwrap();
    let found: Vec<_> = listing.instances.iter().map(|one| (one.address.as_str(), one.weight)).collect();
    assert_eq!(found, [("10.0.0.1:9001", 5), ("10.0.0.2:9002", 1)]);
    assert_eq!(listing.malformed, 0);
}

#[tokio::test]
async fn a_target_without_an_address_is_counted_and_one_that_cannot_be_asked_for_fails_the_reading() {
    let good = || record(0, 5, 9001, "a.example.");
    let lost = server(Answers::Records(vec![good(), record(0, 5, 9002, "lost.example.")])).await;
    let listing = ask(&lost).await.unwrap();
    assert_eq!((listing.instances.len(), listing.malformed), (1, 1));
    let broken = server(Answers::Records(vec![good(), record(0, 5, 9002, "broken.example.")])).await;
    let error = ask(&broken).await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Unavailable);
    assert!(error.message.starts_with("broken.example: "), "{}", error.message);
}

#[test]
fn as_the_system_knows_a_name_its_targets_stay_names() {
    let records =
        [record(1, 0, 80, "a.example."), record(1, 7, 81, "a.example."), record(2, 1, 82, "b.example.")];
    let targets = first(records.iter());
    let named = targets.iter().map(|target| (format!("{}:{}", target.host, target.port), target.weight));
    let told = listing(&"orders".parse().unwrap(), named);
    let found: Vec<_> = told.instances.iter().map(|one| (one.address.as_str(), one.weight)).collect();
    assert_eq!(found, [("a.example:80", 1), ("a.example:81", 7)]);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_service_without_instances_and_so_is_one_that_says_so() {
    let unknown = server(Answers::Code(ResponseCode::NXDomain)).await;
    assert_eq!(ask(&unknown).await, Ok(Listing::default()));
    let refused = server(Answers::Records(vec![record(0, 0, 0, ".")])).await;
    assert_eq!(ask(&refused).await, Ok(Listing::default()));
}

#[tokio::test]
async fn a_server_that_fails_is_an_error_and_never_an_empty_service() {
    let failing = server(Answers::Code(ResponseCode::ServFail)).await;
    let error = ask(&failing).await.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Unavailable);
    assert!(error.message.starts_with("_orders._tcp.example.: "), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_an_error_in_time() {
    let silent = server(Answers::Silence).await;
    assert_eq!(ask(&silent).await.unwrap_err().kind, SourceErrorKind::Unavailable);
}

#[test]
fn without_a_server_there_is_no_source() {
    let error = SrvSource::at("_http._tcp.example", []).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Malformed);
    assert!(error.message.ends_with("name one, like 127.0.0.1:53"), "{}", error.message);
}

#[tokio::test]
async fn it_neither_lists_nor_tells_changes_nor_registers() {
    let silent = server(Answers::Silence).await;
    let source = SrvSource::at("_http._tcp.example", [silent.0]).unwrap();
    assert_eq!(source.describe(), format!("srv://{}/_http._tcp.example", silent.0));
    assert!(source.list().await.is_err() && source.watch(&"orders".parse().unwrap()).await.is_err());
}
