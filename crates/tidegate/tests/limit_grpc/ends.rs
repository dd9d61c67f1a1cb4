//! How calls end, and when their permits are back: L2 and L3.

use std::time::Duration;

use futures_util::{FutureExt as _, stream};
use tidegate::{
    classify::ByStatus,
    layer::{
        RequestBody,
        limit::{BothDirections, Limit, LimitLayer},
    },
    limiter::Permit,
};
use tonic::{Code, Request, transport::Channel};
use tower::Layer;

use super::{
    Limited, client,
    echo::{self, Client, KINDS, Kind, Wire, ask, endpoint, hold, start},
    limiter, queued, refused, settled,
};

/// A stream that has told one message, and would go on once it is released.
async fn open(client: &mut Limited, kind: Kind) -> tonic::Streaming<echo::Told> {
    let stream = match kind {
        Kind::ServerStream => client.list(hold()).await,
        Kind::Bidi => client.chat(stream::iter([ask("one"), hold()])).await,
        Kind::Unary | Kind::ClientStream => unreachable!("its answer is no stream"),
    };
    let mut stream = stream.expect("the server answers");
    stream.message().await.expect("it tells one message");
    stream
}

#[tokio::test]
async fn l2_every_end_of_a_call_of_every_kind_gives_its_permit_back() {
    for kind in KINDS {
        let (mut server, limiter) = (start().await, limiter(1));
        let mut client = client(&server, &limiter);
        client.call(kind, ask("success")).await.unwrap();
        assert_eq!(limiter.in_flight(), 0, "{kind:?}: success");
        for count in [0, 2] {
            // Where nothing comes before it the status stands in the head.
            let fails = echo::Ask { code: Code::Aborted as i32, count, ..ask("") };
            assert_eq!(client.call(kind, fails).await.unwrap_err().code(), Code::Aborted);
            assert_eq!(limiter.in_flight(), 0, "{kind:?}: an error status");
        }
        // A panic in the handler resets its stream.
        client.call(kind, echo::Ask { panic: true, ..ask("") }).await.unwrap_err();
        assert_eq!(limiter.in_flight(), 0, "{kind:?}: panic in the handler");

        drop(client.held(kind));
        {
            let mut polled = Box::pin(client.held(kind));
            while server.counts.calls() < 5 {
                assert!(polled.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            assert_eq!(limiter.in_flight(), 1, "{kind:?}");
        }
        assert_eq!(limiter.in_flight(), 0, "{kind:?}: dropped while it ran");
        let late = tokio::time::timeout(Duration::from_millis(50), client.held(kind));
        late.await.unwrap_err();
        assert_eq!(limiter.in_flight(), 0, "{kind:?}: its caller's time is over");

        server.counts.until_live(0).await;
        let mut other = client.clone();
        let running = tokio::spawn(async move { other.held(kind).await });
        server.counts.until_live(1).await;
        server.go_away();
        server.counts.release(1);
        running.await.unwrap().unwrap();
        assert_eq!(limiter.in_flight(), 0, "{kind:?}: GOAWAY while it ran");

        let far = start().await;
        let wire = Wire::to(far.addr).await;
        let channel = endpoint(wire.addr).connect_lazy();
        let mut client = Client::new(LimitLayer::new(limiter.clone()).layer(channel));
        let mut other = client.clone();
        let running = tokio::spawn(async move { other.held(kind).await });
        far.counts.until_live(1).await;
        assert_eq!(limiter.in_flight(), 1, "{kind:?}");
        drop(wire);
        running.await.unwrap().unwrap_err();
        assert_eq!(limiter.in_flight(), 0, "{kind:?}: the connection broke");
        let nobody = client.call(kind, ask("nobody listens")).await.unwrap_err();
        assert_eq!((refused(&nobody), limiter.in_flight()), (None, 0), "{kind:?}: connect failure");
    }
}

#[tokio::test]
async fn l2_a_deadline_and_a_stream_dropped_in_the_middle_give_permits_back() {
    let (server, limiter) = (start().await, limiter(1));
    let mut client = client(&server, &limiter);
    let mut late = Request::new(hold());
    late.set_timeout(Duration::from_millis(50));
    // The deadline goes with the call: the transport ends it by itself.
    client.unary(late).await.unwrap_err();
    assert_eq!(limiter.in_flight(), 0, "deadline");
    for kind in [Kind::ServerStream, Kind::Bidi] {
        let stream = open(&mut client, kind).await;
        assert_eq!(limiter.in_flight(), 1, "{kind:?}");
        drop(stream);
        assert_eq!(limiter.in_flight(), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn l3_a_live_call_of_every_kind_holds_its_permit() {
    for kind in KINDS {
        let (server, limiter) = (start().await, limiter(1));
        let client = client(&server, &limiter);
        let mut other = client.clone();
        let live = tokio::spawn(async move { other.held(kind).await });
        server.counts.until_live(1).await;
        let mut other = client.clone();
        let mut waiting = Box::pin(other.call(kind, ask("second")));
        queued(&limiter, &mut waiting).await;
        assert_eq!((server.counts.calls(), limiter.in_flight()), (1, 1), "{kind:?}");
        server.counts.release(1);
        waiting.await.unwrap();
        live.await.unwrap().unwrap();
        assert_eq!((server.counts.calls(), server.counts.peak()), (2, 1), "{kind:?}");
    }
}

#[tokio::test]
async fn l3_a_stream_that_is_read_half_holds_its_permit_and_an_abandoned_one_is_cut() {
    for kind in [Kind::ServerStream, Kind::Bidi] {
        let (server, limiter) = (start().await, limiter(1));
        let mut client = client(&server, &limiter);
        let mut live = open(&mut client, kind).await;
        let mut waiting = Box::pin(client.unary(ask("second")));
        queued(&limiter, &mut waiting).await;
        server.counts.release(1);
        while live.message().await.unwrap().is_some() {}
        assert_eq!(waiting.await.unwrap().text, "second", "{kind:?}: over, though not dropped");
        drop(live);

        // A call that would send for ever is over only when its request is cut as well.
        let request = |body: RequestBody<tonic::body::Body, Permit>| tonic::body::Body::new(body);
        let layer = LimitLayer::new(limiter.clone()).both_directions(request);
        let layer = layer.idle_stream(Duration::from_millis(50));
        let mut client = Client::new(layer.layer(server.channel()));
        let unread = match kind {
            Kind::ServerStream => client.list(hold()).await.unwrap(),
            _ => client.chat(stream::pending()).await.unwrap(),
        };
        assert_eq!(limiter.in_flight(), 1, "{kind:?}");
        settled(&limiter).await;
        server.counts.until_live(0).await;
        drop(unread);
    }
}

#[tokio::test]
async fn l3_a_bidi_call_holds_until_both_sides_have_ended() {
    let (server, limiter) = (start().await, limiter(1));
    let layer = LimitLayer::new(limiter.clone()).both_directions(tonic::body::Body::new);
    type Both<F> = Limit<Channel, ByStatus, BothDirections<F>>;
    fn bidi<F: Fn(RequestBody<tonic::body::Body, Permit>) -> tonic::body::Body + Clone>(
        service: Both<F>,
    ) -> Client<Both<F>> {
        Client::new(service)
    }
    let mut client = bidi(layer.layer(server.channel()));
    let (asks, incoming) = tokio::sync::mpsc::unbounded_channel();
    let incoming = tokio_stream::wrappers::UnboundedReceiverStream::new(incoming);
    let mut tolds = client.chat(incoming).await.unwrap();
    asks.send(ask("one")).unwrap();
    assert_eq!(tolds.message().await.unwrap().unwrap().text, "one");
    // The server ends the call with an error while the client would still send.
    asks.send(echo::Ask { code: Code::Aborted as i32, ..ask("") }).unwrap();
    assert_eq!(tolds.message().await.unwrap_err().code(), Code::Aborted);
    drop((asks, tolds));
    settled(&limiter).await;
    assert_eq!(client.unary(ask("after")).await.unwrap().text, "after");
    settled(&limiter).await;
}
