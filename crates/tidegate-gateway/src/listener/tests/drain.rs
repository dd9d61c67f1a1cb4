use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::support::*;
use crate::{
    listener::{Drained, Limits, Listener, Settings},
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
    server.socket = None;
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

#[tokio::test]
async fn once_handed_over_idle_connections_may_call_once_more_and_new_ones_wait_for_the_successor() {
    let (mut server, _waiting) = waiting(EVENTUALLY);
    let (mut idle, mut resting) = (server.connect().await, server.connect().await);
    for client in [&mut idle, &mut resting] {
        client.say(get("/")).await;
        client.hear("hello").await;
    }
    let mut silent = server.connect().await;
    server
        .until("all taken, one at rest", |stats| {
            stats.open.load(Relaxed) == 3 && stats.resting.load(Relaxed) >= 2
        })
        .await;
    server.handed_over.cancel();
    for client in [&mut idle, &mut resting, &mut silent] {
        // The listener learns of the handover a moment later: until then an answer promises more.
        loop {
            client.say(get("/")).await;
            let heard = client.hear("hello").await;
            if heard.contains("connection: close") {
                break;
            }
        }
        assert_eq!(client.rest().await, "");
    }
    assert_eq!(timeout(EVENTUALLY, &mut server.run).await.unwrap().unwrap(), Drained::Finished);

    let mut late = server.connect().await;
    late.say(get("/")).await;
    let successor = Listener::adopt(server.socket.take().unwrap()).unwrap();
    let (drain, handed_over) = (server.drain.clone(), CancellationToken::new());
    let limits = server.limits.clone();
    let settings = Settings { limits, tls: None, drain, handed_over, drain_time: EVENTUALLY };
    let (answers, workers) = (server.answers.clone(), server.workers.clone());
    let run = tokio::spawn(async move { successor.run(answers, &workers, settings).await.unwrap() });
    late.hear("hello").await;
    server.drain.cancel();
    assert_eq!(timeout(EVENTUALLY, run).await.unwrap().unwrap(), Drained::Finished);
}

#[tokio::test]
async fn once_handed_over_http2_clients_are_told_without_losing_a_stream() {
    let (mut server, mut waiting) = waiting(EVENTUALLY);
    let (mut send, connection) = http2(server.connect().await.0).await;
    let in_flight = tokio::spawn(send.send_request(request("/wait")));
    assert_eq!(told_of(&mut waiting).await, "waiting");
    let (mut fresh, fresh_connection) = http2(server.connect().await.0).await;
    server.until("both taken", |stats| stats.open.load(Relaxed) == 2).await;
    server.handed_over.cancel();
    // As above: the one that is answered before asks again, until it is told.
    while let Ok(answer) = fresh.send_request(request("/")).await {
        assert_eq!(text(answer).await, "hello");
    }
    timeout(EVENTUALLY, fresh_connection).await.unwrap().unwrap().unwrap();
    server.answers.go_on.notify_one();
    assert_eq!(text(in_flight.await.unwrap().unwrap()).await, "waited");
    timeout(EVENTUALLY, connection).await.unwrap().unwrap().unwrap();
    assert_eq!(timeout(EVENTUALLY, &mut server.run).await.unwrap().unwrap(), Drained::Finished);
}

#[tokio::test]
async fn what_is_idle_at_the_end_of_a_handover_is_closed_and_not_counted_as_cut_off() {
    let (mut server, _waiting) = waiting(Duration::from_millis(50));
    let mut idle = server.connect().await;
    idle.say(get("/")).await;
    idle.hear("hello").await;
    server.handed_over.cancel();
    assert_eq!(idle.rest().await, "");
    assert_eq!(timeout(EVENTUALLY, &mut server.run).await.unwrap().unwrap(), Drained::Finished);
}
