use std::collections::VecDeque;

use http_body_util::BodyExt;
use tokio::time::advance;

use super::{sweep::LIVE, *};

/// Frames, then whatever `then` says.
struct Scripted {
    frames: VecDeque<Frame<Bytes>>,
    then: Then,
}

enum Then {
    End,
    Break,
    Hang,
}

impl Scripted {
    fn new(frames: &[&'static str], then: Then) -> Self {
        Self {
            frames: frames.iter().map(|data| Frame::data(Bytes::from_static(data.as_bytes()))).collect(),
            then,
        }
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match (self.frames.pop_front(), &self.then) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Then::End) => Poll::Ready(None),
            (None, Then::Break) => Poll::Ready(Some(Err("broken".into()))),
            (None, Then::Hang) => Poll::Pending,
        }
    }
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Ending for Told {
    fn end(self, end: End<'_>, bytes: u64, _: Option<Instant>) {
        let end = match end {
            End::Complete(trailers) => format!("complete, trailers: {}", trailers.is_some()),
            other => format!("{other:?}"),
        };
        self.0.lock().push(format!("{end}, {bytes} bytes"));
    }
}

fn patience(deadline: Option<u64>, idle: Option<u64>) -> Patience {
    Patience {
        deadline: deadline.map(|ms| tidegate::clock::now() + Duration::from_millis(ms)),
        idle: idle.map(Duration::from_millis),
        revocable: false,
        last_words: LastWords::Reset,
        when_revoked: LastWords::Reset,
    }
}

#[tokio::test]
async fn the_end_is_told_once_at_the_end_of_the_body() {
    let told = Told::default();
    let flow = Flow::new(Scripted::new(&["ab", "c"], Then::End), told.clone(), Patience::default());
    assert_eq!(flow.collect().await.unwrap().to_bytes(), "abc");
    assert_eq!(*told.0.lock(), ["complete, trailers: false, 3 bytes"]);
}

#[tokio::test]
async fn trailers_are_the_end_and_are_seen() {
    let told = Told::default();
    let mut body = Scripted::new(&["ab"], Then::End);
    body.frames.push_back(Frame::trailers(HeaderMap::new()));
    let mut flow = Flow::new(body, told.clone(), Patience::default());
    flow.frame().await.unwrap().unwrap();
    assert!(told.0.lock().is_empty());
    flow.frame().await.unwrap().unwrap();
    assert_eq!(*told.0.lock(), ["complete, trailers: true, 2 bytes"]);
}

#[tokio::test]
async fn an_error_and_a_drop_are_told_as_what_they_are() {
    let told = Told::default();
    let flow = Flow::new(Scripted::new(&["ab"], Then::Break), told.clone(), Patience::default());
    assert!(flow.collect().await.is_err());
    drop(Flow::new(Scripted::new(&["ab"], Then::End), told.clone(), Patience::default()));
    assert_eq!(*told.0.lock(), ["Broken, 2 bytes", "Abandoned, 0 bytes"]);
}

#[tokio::test]
async fn an_empty_body_ends_at_once() {
    let told = Told::default();
    let flow = Flow::new(http_body_util::Empty::<Bytes>::new(), told.clone(), Patience::default());
    assert!(flow.is_end_stream());
    assert_eq!(*told.0.lock(), ["complete, trailers: false, 0 bytes"]);
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_nobody_polls_is_cut_all_the_same() {
    let sweeping = tokio::spawn(sweeper());
    tokio::task::yield_now().await;
    let told = Told::default();
    let flow = Flow::new(Scripted::new(&["ab"], Then::Hang), told.clone(), patience(None, Some(1000)));
    for _ in 0..13 {
        advance(SWEEP).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(*told.0.lock(), ["Stalled, 0 bytes"]);
    assert!(flow.collect().await.is_err());
    sweeping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_and_an_overdue_one_are_told_apart_and_wake_the_reader() {
    let sweeping = tokio::spawn(sweeper());
    tokio::task::yield_now().await;
    for (deadline, idle, expected) in
        [(None, Some(500), "Silent, 2 bytes"), (Some(500), None, "Overdue, 2 bytes")]
    {
        let patience = patience(deadline, idle);
        let told = Told::default();
        let flow = Flow::new(Scripted::new(&["ab"], Then::Hang), told.clone(), patience);
        assert!(flow.collect().await.is_err());
        assert_eq!(*told.0.lock(), [expected]);
    }
    sweeping.abort();
}

#[tokio::test(start_paused = true)]
async fn grpc_is_told_in_trailers_why_it_was_cut() {
    let sweeping = tokio::spawn(sweeper());
    tokio::task::yield_now().await;
    let patience = Patience { last_words: LastWords::GrpcTrailers, ..patience(Some(500), None) };
    let flow = Flow::new(Scripted::new(&["ab"], Then::Hang), Told::default(), patience);
    let collected = flow.collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "4");
    assert_eq!(
        collected.trailers().unwrap()["grpc-message"],
        "the gateway cut this response: its time was up"
    );
    sweeping.abort();
}

/// What the other direction does, and whether the lease is lost.
struct Other(Told, Arc<Mutex<(bool, bool)>>);

impl Ending for Other {
    fn end(self, end: End<'_>, bytes: u64, now: Option<Instant>) {
        self.0.end(end, bytes, now);
    }

    fn moved(&mut self) -> bool {
        self.1.lock().0
    }

    fn taken(&mut self, _: Instant) -> Option<Taken> {
        self.1.lock().1.then_some(Taken::Permit)
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_is_not_silent_while_the_other_direction_moves() {
    let sweeping = tokio::spawn(sweeper());
    tokio::task::yield_now().await;
    let (told, other) = (Told::default(), Arc::new(Mutex::new((true, false))));
    let ending = Other(told.clone(), Arc::clone(&other));
    let flow = Flow::new(Scripted::new(&[], Then::Hang), ending, patience(None, Some(500)));
    for _ in 0..20 {
        advance(SWEEP).await;
        tokio::task::yield_now().await;
    }
    assert!(told.0.lock().is_empty(), "two seconds of silence one way");
    other.lock().0 = false;
    assert!(flow.collect().await.is_err());
    assert_eq!(*told.0.lock(), ["Silent, 0 bytes"]);
    sweeping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_flow_whose_lease_is_lost_is_cut() {
    let sweeping = tokio::spawn(sweeper());
    tokio::task::yield_now().await;
    let (told, other) = (Told::default(), Arc::new(Mutex::new((false, true))));
    let ending = Other(told.clone(), other);
    let patience = Patience { revocable: true, ..patience(None, None) };
    let flow = Flow::new(Scripted::new(&["ab"], Then::Hang), ending, patience);
    assert!(flow.collect().await.is_err());
    assert_eq!(*told.0.lock(), ["Revoked(Permit), 2 bytes"]);
    sweeping.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_that_is_revoked_ends_and_is_not_broken() {
    let sweeping = tokio::spawn(sweeper());
    tokio::task::yield_now().await;
    let (told, other) = (Told::default(), Arc::new(Mutex::new((false, true))));
    let ending = Other(told.clone(), other);
    let patience = Patience { revocable: true, when_revoked: LastWords::End, ..patience(None, None) };
    let flow = Flow::new(Scripted::new(&["ab"], Then::Hang), ending, patience);
    assert_eq!(flow.collect().await.unwrap().to_bytes(), "ab");
    assert_eq!(*told.0.lock(), ["Revoked(Permit), 2 bytes"]);
    sweeping.abort();
}

#[tokio::test(start_paused = true)]
async fn places_are_given_back() {
    let sweeping = tokio::spawn(sweeper());
    tokio::task::yield_now().await;
    for _ in 0..100 {
        drop(Flow::new(Scripted::new(&["ab"], Then::End), Told::default(), patience(None, Some(500))));
    }
    LIVE.with_borrow(|places| assert_eq!((places.flows.len(), places.free.len()), (1, 1)));
    sweeping.abort();
}
