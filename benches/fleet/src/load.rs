//! Load on gateways that share a store, over connections that are kept.
//!
//! Paced, it is sent in the first nine tenths of each second of the clock, so that nearly nothing is under way where a
//! window ends and what the upstream counts in a second was admitted in it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    Outcome,
    figures::{Times, print},
    upstream::{self, Upstream, find},
};

pub struct Plan {
    pub upstream: SocketAddr,
    pub gateways: Vec<SocketAddr>,
    pub pace: Pace,
    pub seconds: u64,
    /// Of each gateway.
    pub connections: u64,
    /// Seconds after the start between which times are kept apart.
    pub stop: Option<(f64, f64)>,
}

#[derive(Clone, Copy)]
pub enum Pace {
    /// Calls a second, of all connections together.
    Rate(f64),
    /// As quick as answers come, each call with another of so many keys, in turn.
    Distinct(u64),
}

/// The part of each second in which calls are sent.
const SENDING: f64 = 0.9;

#[derive(Clone)]
struct Met {
    served: [Times; 2],
    refused: [Times; 2],
    other: u64,
    broken: u64,
    /// Longest time of a connection without an answer while one was due.
    longest: Duration,
}

impl Met {
    fn new() -> Self {
        let two = || [Times::new(), Times::new()];
        Self { served: two(), refused: two(), other: 0, broken: 0, longest: Duration::ZERO }
    }
}

struct Shared {
    plan: Plan,
    start: Instant,
    next_key: AtomicU64,
    /// When the latest answer came, and the longest time between two, in microseconds from the start.
    latest: AtomicU64,
    gap: AtomicU64,
}

pub async fn run(plan: Plan) -> Outcome {
    let upstream = Upstream::start(plan.upstream).await?;
    let mut streams = Vec::new();
    for _ in 0..plan.connections {
        for gateway in &plan.gateways {
            let stream = TcpStream::connect(gateway).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
    }
    let of_second =
        Duration::from_nanos(u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()));
    let start = Instant::now() + Duration::from_secs(1) - of_second;
    tokio::time::sleep_until(start.into()).await;
    println!("{{\"started\":true}}");
    let first = upstream::second();
    let shared = Arc::new(Shared {
        plan,
        start,
        next_key: AtomicU64::new(0),
        latest: AtomicU64::new(0),
        gap: AtomicU64::new(0),
    });
    let all = streams.len() as u64;
    let tasks: Vec<_> = (0..)
        .zip(streams)
        .map(|(at, stream)| tokio::spawn(connection(Arc::clone(&shared), stream, at, all)))
        .collect();
    let mut sum = Met::new();
    for task in tasks {
        let met = task.await?;
        for at in 0..2 {
            sum.served[at].add(&met.served[at]);
            sum.refused[at].add(&met.refused[at]);
        }
        (sum.other, sum.broken, sum.longest) =
            (sum.other + met.other, sum.broken + met.broken, sum.longest.max(met.longest));
    }
    let took = start.elapsed().as_secs_f64();
    let seconds = upstream.seconds();
    let arrived: Vec<String> = (first..first + shared.plan.seconds + 2)
        .map(|second| {
            let calls = seconds.get(&second).copied().unwrap_or_default();
            format!("[{},{}]", calls.surely, calls.perhaps)
        })
        .collect();
    print(&[
        ("served", sum.served[0].json()),
        ("served_stopped", sum.served[1].json()),
        ("refused", sum.refused[0].json()),
        ("refused_stopped", sum.refused[1].json()),
        ("other", sum.other.to_string()),
        ("broken", sum.broken.to_string()),
        ("longest", sum.longest.as_secs_f64().to_string()),
        ("gap", (shared.gap.load(Ordering::Relaxed) as f64 / 1e6).to_string()),
        ("seconds", took.to_string()),
        ("arrived", format!("[{}]", arrived.join(","))),
    ]);
    Ok(())
}

async fn connection(shared: Arc<Shared>, mut stream: TcpStream, at: u64, all: u64) -> Met {
    let (mut met, mut buffer, mut number) = (Met::new(), Vec::with_capacity(4096), 0u64);
    let (plan, end) = (&shared.plan, shared.start + Duration::from_secs(shared.plan.seconds));
    loop {
        let due = match plan.pace {
            Pace::Rate(rate) => {
                let second = rate as u64;
                let call = number * all + at;
                let (whole, part) = (call / second, (call % second) as f64 / second as f64 * SENDING);
                shared.start + Duration::from_secs(whole) + Duration::from_secs_f64(part)
            }
            Pace::Distinct(_) => Instant::now(),
        };
        if due >= end {
            return met;
        }
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        number += 1;
        let key = match plan.pace {
            Pace::Rate(_) => 0,
            Pace::Distinct(keys) => shared.next_key.fetch_add(1, Ordering::Relaxed) % keys,
        };
        let sent = Instant::now();
        let call = format!(
            "GET / HTTP/1.1\r\nhost: bench\r\nx-key: {key}\r\nx-sent: {}\r\n\r\n",
            upstream::second()
        );
        let status = match exchange(&mut stream, call.as_bytes(), &mut buffer).await {
            Ok(status) => status,
            Err(_) => {
                met.broken += 1;
                return met;
            }
        };
        let (took, from_start) = (sent.elapsed(), shared.start.elapsed());
        met.longest = met.longest.max(took);
        let micros = from_start.as_micros() as u64;
        let before = shared.latest.fetch_max(micros, Ordering::Relaxed);
        shared.gap.fetch_max(micros.saturating_sub(before), Ordering::Relaxed);
        let began = (sent - shared.start).as_secs_f64();
        let part = usize::from(plan.stop.is_some_and(|(from, to)| (from..to).contains(&began)));
        match status {
            // The connections to the upstream are opened in the first second.
            200 | 429 | 503 if began < 1.0 => {}
            200 => met.served[part].record(took),
            429 | 503 => met.refused[part].record(took),
            _ => met.other += 1,
        }
    }
}

/// Sends a call and reads its answer; the status.
async fn exchange(stream: &mut TcpStream, call: &[u8], buffer: &mut Vec<u8>) -> std::io::Result<u16> {
    stream.write_all(call).await?;
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = find(buffer, b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..end])
            .map_err(|_| std::io::ErrorKind::InvalidData)?
            .to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let whole = end + 4 + length.ok_or(std::io::ErrorKind::InvalidData)?;
        while buffer.len() < whole {
            if stream.read_buf(buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        return head
            .get(9..12)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| std::io::ErrorKind::InvalidData.into());
    }
}
