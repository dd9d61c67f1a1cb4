//! A registry that is SRV records: a server of names on loopback, and what clients see of what it answers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{net::UdpSocket, task::AbortHandle};

use crate::{
    registry::{Callers, config, has, service, stands},
    support::{client, eventually, gateway::Gateway, upstream::Upstream},
};

const SRV: u16 = 33;
const A: u16 = 1;
const SERVER_FAILED: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// What a server of names answers.
#[derive(Clone, Debug)]
enum Answers {
    /// Ports and weights of the service; all targets are this machine.
    Records(Vec<(u16, u16)>),
    Code(u8),
    Silence,
}

/// A server of names. Dropping it ends it.
struct Names {
    at: SocketAddr,
    answers: Arc<Mutex<Answers>>,
    task: AbortHandle,
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Names {
    async fn start(answers: Answers) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = socket.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(answers));
        let say = Arc::clone(&answers);
        let task = tokio::spawn(async move {
            let mut bytes = [0; 4096];
            loop {
                let (length, peer) = socket.recv_from(&mut bytes).await.unwrap();
                let answers = say.lock().unwrap().clone();
                if let Some(answer) = answer(&bytes[..length], &answers) {
                    socket.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        Self { at, answers, task: task.abort_handle() }
    }

    fn answer(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }

    fn url(&self) -> String {
        format!("srv://{}/_http._tcp.orders.example", self.at)
    }
}

/// The answer to a question (RFC 1035, RFC 2782).
fn answer(question: &[u8], answers: &Answers) -> Option<Vec<u8>> {
    let name = &question[12..=12 + question[12..].iter().position(|byte| *byte == 0).unwrap()];
    let after = 12 + name.len();
    let kind = u16::from_be_bytes([question[after], question[after + 1]]);
    let known = name == b"\x05_http\x04_tcp\x06orders\x07example\0" || name == b"\x02me\x07example\0";
    let (code, records): (u8, Vec<Vec<u8>>) = match answers {
        Answers::Silence => return None,
        Answers::Code(code) => (*code, Vec::new()),
        Answers::Records(_) if !known => (NO_SUCH_NAME, Vec::new()),
        Answers::Records(records) => match kind {
            SRV => (0, records.iter().map(|(port, weight)| srv(*port, *weight)).collect()),
            A => (0, vec![Ipv4Addr::LOCALHOST.octets().into()]),
            _ => (0, Vec::new()),
        },
    };
    let mut bytes = Vec::new();
    // The question's id; an authoritative answer.
    bytes.extend([question[0], question[1], 0x84 | question[2] & 1, code]);
    bytes.extend([0, 1]);
    bytes.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(&question[12..after + 4]);
    for record in records {
        // The name of the question, its kind and class, a minute to live.
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 60]);
        bytes.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
        bytes.extend(record);
    }
    Some(bytes)
}

fn srv(port: u16, weight: u16) -> Vec<u8> {
    let mut record = vec![0, 1];
    record.extend(weight.to_be_bytes());
    record.extend(port.to_be_bytes());
    record.extend(b"\x02me\x07example\0");
    record
}

/// Read again every second.
fn reading(names: &Names) -> String {
    config(&names.url(), "ttl: 1s\ngrace: 5s")
}

async fn server() -> Upstream {
    Upstream::start(|_| async { http::Response::new(client::empty()) }).await
}

#[tokio::test]
async fn what_srv_records_say_is_followed_and_servers_that_say_nothing_change_nothing() {
    let (first, second) = (server().await, server().await);
    let port = |server: &Upstream| server.addr().port();
    let names = Names::start(Answers::Records(vec![(port(&first), 1)])).await;
    let gateway = Gateway::start(&reading(&names)).await;
    has(&gateway, 1).await;
    let callers = Callers::start(&gateway);
    callers.served(10).await;

    names.answer(Answers::Records(vec![(port(&first), 1), (port(&second), 3)]));
    has(&gateway, 2).await;
    eventually("the second being called", async || second.calls() > 10).await;
    let state = gateway.state().await;
    let endpoints = service(&state)["endpoints"].as_array().unwrap();
    let weights: Vec<_> = endpoints.iter().map(|one| one["weight"].as_u64().unwrap()).collect();
    assert_eq!(weights.iter().sum::<u64>(), 4, "{state:#}");
    assert!(
        endpoints.iter().all(|one| one["address"].as_str().unwrap().starts_with("127.0.0.1:")),
        "{state:#}"
    );

    names.answer(Answers::Records(vec![(port(&second), 3)]));
    has(&gateway, 1).await;
    let other = second.calls();
    eventually("the second taking all", async || second.calls() > other + 20).await;

    for mute in [Answers::Silence, Answers::Code(SERVER_FAILED)] {
        names.answer(mute);
        stands(&gateway, "stale").await;
        gateway
            .state_is("why", |state| {
                service(state)["error"].as_str().is_some_and(|why| why.contains("_http._tcp.orders.example"))
            })
            .await;
        callers.served(50).await;
        names.answer(Answers::Records(vec![(port(&second), 3)]));
        stands(&gateway, "fresh").await;
    }

    // A name that is no more is doubted for the grace, and believed after it. The other one, which went just before, is
    // doubted to be gone as well.
    names.answer(Answers::Code(NO_SUCH_NAME));
    gateway
        .state_is("the doubt", |state| {
            let endpoints = service(state)["endpoints"].as_array().cloned().unwrap_or_default();
            let doubted =
                |one: &Value| one["proven_seconds"].is_number() || one["suspect_seconds"].is_number();
            endpoints.len() == 2 && endpoints.iter().all(doubted)
        })
        .await;
    callers.assert_all_served();
    drop(callers);
    stands(&gateway, "not-found").await;
    let none = client::get(gateway.http(), "/").await;
    assert_eq!((none.status.as_u16(), &none.json()["reason"]), (503, &"service-not-found".into()));
    names.answer(Answers::Records(vec![(port(&first), 1)]));
    has(&gateway, 1).await;
    assert_eq!(client::get(gateway.http(), "/").await.status, 200);
}

#[tokio::test]
async fn a_server_of_names_that_cannot_answer_is_told_from_a_name_that_does_not_exist() {
    for (answers, provenance, reason) in [
        (Answers::Code(NO_SUCH_NAME), "not-found", "service-not-found"),
        (Answers::Records(Vec::new()), "not-found", "service-not-found"),
        (Answers::Code(SERVER_FAILED), "unavailable", "registry-unavailable"),
    ] {
        let names = Names::start(answers.clone()).await;
        let gateway = Gateway::start(&reading(&names)).await;
        stands(&gateway, provenance).await;
        let answer = client::get(gateway.http(), "/").await;
        assert_eq!((answer.status.as_u16(), &answer.json()["reason"]), (503, &reason.into()), "{answers:?}");
        assert!(!answer.header("retry-after").is_empty(), "{answers:?}");
    }
}
