use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{net::TcpStream, sync::mpsc, time::timeout};

use super::support::*;
use crate::{
    listener::{Drained, Limits, Listener},
    workers::Stopped,
};

fn waiting(drain_time: Duration) -> (Server, mpsc::UnboundedReceiver<&'static str>) {
    let (told, waiting) = mpsc::unbounded_channel();
    let answers = Answers { waiting: Some(told), ..Answers::default() };
    (Server::start_with(Limits::default(), answers, None, drain_time), waiting)
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_closes_the_rest() {
    let (mut server, mut waiting) = waiting(EVENTUALLY);
    let mut idle = server.connect().await;
    idle.say(get("/")).await;
    idle.hear("hello").await;
    let mut silent = server.connect().await;
    let mut busy = server.connect().await;
    busy.say(get("/wait")).await;
    assert_eq!(told_of(&mut waiting).await, "waiting");
    server.until("three open", |stats| stats.open.load(Relaxed) == 3).await;

    server.drain.cancel();
    assert_eq!((idle.rest().await, silent.rest().await), (String::new(), String::new()));
    assert!(timeout(EVENTUALLY, TcpStream::connect(server.addr)).await.unwrap().is_err(), "nobody listens");
    assert!(Listener::bind(server.addr).is_ok(), "the address is free for a successor");
    assert!(!server.run.is_finished());

    server.answers.go_on.notify_one();
    let heard = busy.rest().await;
    assert!(heard.contains("connection: close") && heard.ends_with("waited"), "{heard}");
    assert_eq!(timeout(EVENTUALLY, &mut server.run).await.unwrap().unwrap(), Drained::Finished);
    server.until_none_open().await;
}

#[tokio::test]
async fn draining_finishes_http2_streams_and_refuses_new_ones() {
    let (mut server, mut waiting) = waiting(EVENTUALLY);
    let (mut send, connection) = http2(server.connect().await.0).await;
    let in_flight = tokio::spawn(send.send_request(request("/wait")));
    assert_eq!(told_of(&mut waiting).await, "waiting");
    server.drain.cancel();
    // The client learns of it by GOAWAY, after one round trip.
    let refused = async { while send.send_request(request("/")).await.is_ok() {} };
    timeout(EVENTUALLY, refused).await.unwrap();
    server.answers.go_on.notify_one();
    assert_eq!(text(in_flight.await.unwrap().unwrap()).await, "waited");
    timeout(EVENTUALLY, connection).await.unwrap().unwrap().unwrap();
    assert_eq!(timeout(EVENTUALLY, &mut server.run).await.unwrap().unwrap(), Drained::Finished);
}

#[tokio::test]
async fn what_does_not_end_within_the_drain_time_is_cut_off() {
    let (mut server, mut waiting) = waiting(Duration::from_millis(50));
    let mut busy = server.connect().await;
    busy.say(get("/wait")).await;
    let (mut send, connection) = http2(server.connect().await.0).await;
    let stream = tokio::spawn(send.send_request(request("/wait")));
    assert_eq!([told_of(&mut waiting).await, told_of(&mut waiting).await], ["waiting"; 2]);
    server.drain.cancel();
    assert_eq!(busy.rest().await, "");
    assert!(stream.await.unwrap().is_err());
    let _ = timeout(EVENTUALLY, connection).await.unwrap();
    assert_eq!([told_of(&mut waiting).await, told_of(&mut waiting).await], ["dropped"; 2]);
    assert_eq!(timeout(EVENTUALLY, &mut server.run).await.unwrap().unwrap(), Drained::CutOff(2));
    assert_eq!(server.stats.cut_off.load(Relaxed), 2);
    server.until_none_open().await;
}

#[tokio::test]
async fn stopping_the_workers_drops_their_connections() {
    let (mut server, mut waiting) = waiting(EVENTUALLY);
    let mut busy = server.connect().await;
    busy.say(get("/wait")).await;
    assert_eq!(told_of(&mut waiting).await, "waiting");
    server.run.abort();
    assert!(timeout(EVENTUALLY, &mut server.run).await.unwrap().unwrap_err().is_cancelled());
    let workers = std::sync::Arc::into_inner(server.workers).unwrap();
    assert_eq!(workers.stop(EVENTUALLY).await, Stopped::Clean);
    assert_eq!((busy.rest().await.as_str(), told_of(&mut waiting).await), ("", "dropped"));
    assert_eq!(server.stats.open.load(Relaxed), 0);
}
