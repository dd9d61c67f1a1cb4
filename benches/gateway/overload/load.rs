//! Open-loop load: calls come when they come, whatever becomes of those before them, and a call's time is counted from
//! when it was due. A load that waits for answers would offer less just when the upstream is slow (coordinated omission).

use std::{
    cell::RefCell,
    fmt,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::LocalSet, time};

/// What is offered.
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    /// Calls a second.
    pub(crate) rate: f64,
    /// Calls due in this time are made and not counted.
    pub(crate) warm: Duration,
    pub(crate) measured: Duration,
    /// After so long from when it was due a caller gives up.
    pub(crate) deadline: Duration,
    pub(crate) seed: u64,
}

/// What became of it; times in seconds.
#[derive(Default)]
pub(crate) struct Met {
    seconds: f64,
    offered: usize,
    /// From when each call was due.
    served: Vec<f64>,
    /// From when each call was sent: how late the load itself was is not the gateway's doing.
    refused: Vec<f64>,
    /// Given up at the deadline.
    late: usize,
    failed: usize,
}

enum Outcome {
    Served(f64),
    Refused(f64),
    Late,
    Failed,
}

type Idle = Rc<RefCell<Vec<SendRequest<Empty<Bytes>>>>>;

pub(crate) async fn run(plan: Plan) -> Met {
    let calls: Rc<RefCell<Vec<Outcome>>> = Rc::default();
    let tasks = LocalSet::new();
    let (begin, idle) = (Instant::now(), Idle::default());
    let end = plan.warm + plan.measured;
    let told = Rc::clone(&calls);
    let (warm, measured) = (plan.warm, plan.measured);
    tasks
        .run_until(async move {
            let mut random = Random(plan.seed | 1);
            let mut due = Duration::ZERO;
            let mut flying = Vec::new();
            while due < end {
                time::sleep_until((begin + due).into()).await;
                let (counts, idle, calls) = (due >= plan.warm, Rc::clone(&idle), Rc::clone(&told));
                let (address, due_at, deadline) = (plan.address, begin + due, plan.deadline);
                flying.push(tokio::task::spawn_local(async move {
                    let answered = time::timeout_at((due_at + deadline).into(), call(address, &idle, due_at));
                    let outcome = match answered.await {
                        Ok(Ok(outcome)) => outcome,
                        Ok(Err(_)) => Outcome::Failed,
                        Err(_) => Outcome::Late,
                    };
                    if counts {
                        calls.borrow_mut().push(outcome);
                    }
                }));
                due += Duration::from_secs_f64(random.exponential() / plan.rate);
            }
            for call in flying {
                call.await.expect("a call does not panic");
            }
        })
        .await;
    let mut met = Met { seconds: measured.as_secs_f64(), ..Met::default() };
    debug_assert!(warm < end);
    for outcome in calls.take() {
        met.offered += 1;
        match outcome {
            Outcome::Served(took) => met.served.push(took),
            Outcome::Refused(took) => met.refused.push(took),
            Outcome::Late => met.late += 1,
            Outcome::Failed => met.failed += 1,
        }
    }
    met.served.sort_by(f64::total_cmp);
    met.refused.sort_by(f64::total_cmp);
    met
}

/// One call on a connection that is free, or on a new one.
async fn call(address: SocketAddr, idle: &Idle, due: Instant) -> Result<Outcome, crate::Failed> {
    let free = std::iter::from_fn(|| idle.borrow_mut().pop()).find(SendRequest::is_ready);
    let mut sender = match free {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(connection);
            sender
        }
    };
    let sent = Instant::now();
    let request = Request::get("/").header("host", "bench").body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    let outcome = match status {
        StatusCode::OK => Outcome::Served(due.elapsed().as_secs_f64()),
        StatusCode::SERVICE_UNAVAILABLE => Outcome::Refused(sent.elapsed().as_secs_f64()),
        _ => Outcome::Failed,
    };
    if sender.ready().await.is_ok() {
        idle.borrow_mut().push(sender);
    }
    Ok(outcome)
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |times: &[f64], q: f64| match times.len() {
            0 => "null".to_owned(),
            count => times[((count as f64 * q) as usize).min(count - 1)].to_string(),
        };
        write!(
            f,
            "{{\"seconds\":{},\"offered\":{},\"served\":{},\"refused\":{},\"late\":{},\"failed\":{},\
             \"p50\":{},\"p99\":{},\"refused_p50\":{},\"refused_p99\":{}}}",
            self.seconds,
            self.offered,
            self.served.len(),
            self.refused.len(),
            self.late,
            self.failed,
            at(&self.served, 0.5),
            at(&self.served, 0.99),
            at(&self.refused, 0.5),
            at(&self.refused, 0.99),
        )
    }
}

/// xorshift64*: the same calls at the same times in every run.
struct Random(u64);

impl Random {
    /// A time between two calls that come independently of each other, with a mean of 1.
    fn exponential(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let uniform = (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64;
        -(1.0 - uniform).ln()
    }
}
