use std::sync::mpsc;

use super::*;
use crate::{record::Finished, trace::Tracer};

fn log(format: LogFormat) -> Log {
    Log { format, ..Log::default() }
}

fn line<'a>() -> CallRecord<'a> {
    crate::record::example()
}

fn refused<'a>() -> CallRecord<'a> {
    let mut headers = http::HeaderMap::new();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", parent.parse().unwrap());
    CallRecord {
        finished: Finished { status: 429, grpc_status: Some(8), head_duration: None, ..line().finished },
        endpoint: None,
        reason: Some("quota"),
        limit: Some("per-client"),
        trace: Tracer::off().begin(&mut headers),
        ..line()
    }
}

/// A sink that a test reads, and can hold up.
struct Sink(mpsc::SyncSender<Vec<u8>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn render(format: LogFormat, lines: &[CallRecord<'_>]) -> String {
    let (sink, written) = mpsc::sync_channel(16);
    let access = AccessLog::start(&log(format), 1, Sink(sink)).unwrap();
    lines.iter().for_each(|line| access.write(line));
    assert!(access.flush(Duration::from_secs(10)));
    assert_eq!((access.lines(), access.dropped()), (lines.len() as u64, 0));
    String::from_utf8(written.try_iter().flatten().collect()).unwrap()
}

#[test]
fn a_line_for_people_is_nginx_combined_and_what_a_gateway_adds() {
    insta::assert_snapshot!(render(LogFormat::Text, &[line(), refused()]));
}

#[test]
fn a_line_for_machines_is_one_json_object() {
    let lines = render(LogFormat::Json, &[line(), refused()]);
    for line in lines.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    insta::assert_snapshot!(lines);
}

const HOSTILE: &[u8] =
    b"x\" 200 0\r\n1.2.3.4 - - [forged] \"\\\x1b[2J\x00\x7f\xff\xc2\x9b\xe2\x80\xa8\t\xc3\xa9";

fn hostile<'a>() -> CallRecord<'a> {
    CallRecord {
        method: "GET\n\"",
        target: "/\u{9b}31m\"\\\r\n\u{2028}é",
        host: Some(HOSTILE),
        referer: Some(HOSTILE),
        user_agent: Some(HOSTILE),
        route: "a\"b\n",
        upstream: "a\"b\n",
        endpoint: Some("a\"b\n"),
        limit: Some("a\"b\n"),
        request_id: HOSTILE,
        ..line()
    }
}

#[test]
fn nothing_a_client_sends_forges_a_text_line() {
    let log = render(LogFormat::Text, &[hostile()]);
    assert_eq!(log.matches('\n').count(), 1);
    assert!(log.trim_end().bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{log}");
    // Two quotes for each of: request, referer, user agent, host, route, upstream, endpoint, limit, id.
    assert_eq!(log.matches('"').count(), 18, "{log}");
    assert!(log.contains(r#""x\x22 200 0\x0d\x0a1.2.3.4 - - [forged] \x22\x5c\x1b[2J\x00\x7f\xff"#), "{log}");
}

#[test]
fn nothing_a_client_sends_forges_a_json_field() {
    let log = render(LogFormat::Json, &[hostile()]);
    assert_eq!(log.matches('\n').count(), 1);
    assert!(!log.trim_end().chars().any(|c| c.is_control() || c == '\u{2028}'), "{log}");
    let value: serde_json::Value = serde_json::from_str(&log).unwrap();
    assert_eq!(value["target"], "/\u{9b}31m\"\\\r\n\u{2028}é");
    assert_eq!(value["user_agent"], String::from_utf8_lossy(HOSTILE).as_ref());
    assert_eq!(value["status"], 200);
}

#[test]
fn a_value_of_any_length_makes_a_line_of_bounded_length() {
    let long = "x".repeat(1 << 20);
    let log =
        render(LogFormat::Text, &[CallRecord { target: &long, user_agent: Some(long.as_bytes()), ..line() }]);
    assert!(log.len() < 10_000 && log.contains("xxx... HTTP/1.1"), "{}", log.len());
}

#[test]
fn durations_and_addresses_print_as_the_standard_library_does() {
    let v6 = "2001:db8::1".parse().unwrap();
    let mapped = "::ffff:192.0.2.1".parse().unwrap();
    let duration = Duration::new(61, 7_000);
    let log = render(
        LogFormat::Text,
        &[
            CallRecord { client: v6, finished: Finished { duration, ..line().finished }, ..line() },
            CallRecord {
                client: mapped,
                finished: Finished { response_bytes: u64::MAX, ..line().finished },
                ..line()
            },
        ],
    );
    assert!(log.starts_with("2001:db8::1 - - ["), "{log}");
    assert!(log.contains(" duration=61.000007 "), "{log}");
    assert!(log.contains("\n192.0.2.1 - - ["), "{log}");
    assert!(log.contains(&format!(" 200 {} ", u64::MAX)), "{log}");
}

#[test]
fn an_old_buffer_is_written_without_anybody_asking() {
    let (sink, written) = mpsc::sync_channel(16);
    let access = AccessLog::start(&log(LogFormat::Text), 1, Sink(sink)).unwrap();
    for _ in 0..2 {
        access.write(&line());
        assert!(written.recv_timeout(Duration::from_secs(10)).unwrap().ends_with(b"\n"));
    }
}

#[test]
fn a_reader_that_stopped_costs_lines_and_no_call_waits() {
    // Nobody receives: the first batch blocks the writer until the receiver is dropped.
    let (sink, written) = mpsc::sync_channel(0);
    let access = AccessLog::start(&log(LogFormat::Text), 1, Sink(sink)).unwrap();
    let target = "x".repeat(4000);
    let mut calls = 0;
    while access.dropped() == 0 {
        access.write(&CallRecord { target: &target, ..line() });
        calls += 1;
        assert!(calls < 10_000, "the queue is bounded");
    }
    assert!(!access.flush(Duration::from_millis(1)));
    drop(written);
    assert!(access.flush(Duration::from_secs(10)));
    assert_eq!((access.lines(), access.dropped()), (0, calls));
}

#[test]
fn dropping_the_log_writes_what_is_left_and_ends_the_writer() {
    let (sink, written) = mpsc::sync_channel(16);
    let access = AccessLog::start(&log(LogFormat::Text), 4, Sink(sink)).unwrap();
    access.write(&line());
    drop(access);
    assert!(written.recv_timeout(Duration::from_secs(10)).unwrap().starts_with(b"192.0.2.10 "));
    assert_eq!(written.recv_timeout(Duration::from_secs(10)), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn a_reload_turns_the_log_off_and_on_and_changes_its_format() {
    let (sink, written) = mpsc::sync_channel(16);
    let access = AccessLog::start(&Log { access: false, ..Log::default() }, 1, Sink(sink)).unwrap();
    access.write(&line());
    access.configure(&log(LogFormat::Json));
    assert!(access.enabled());
    access.write(&line());
    assert!(access.flush(Duration::from_secs(10)));
    let all: Vec<u8> = written.try_iter().flatten().collect();
    assert!(all.starts_with(b"{") && all.iter().filter(|byte| **byte == b'\n').count() == 1);
}

#[test]
fn lines_of_many_threads_are_all_written_and_never_mixed() {
    let (sink, written) = mpsc::sync_channel(4096);
    let access = AccessLog::start(&log(LogFormat::Json), 2, Sink(sink)).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..2000).for_each(|_| access.write(&line())));
        }
    });
    assert!(access.flush(Duration::from_secs(10)));
    let all = String::from_utf8(written.try_iter().flatten().collect()).unwrap();
    assert_eq!(all.lines().count() as u64 + access.dropped(), 8000);
    assert!(all.lines().all(|line| line.starts_with("{\"time\"") && line.ends_with('}')));
}

proptest::proptest! {
    #[test]
    fn whatever_is_sent_a_line_of_json_is_one_object(target in "\\PC{0,40}|.{0,40}", bytes: Vec<u8>) {
        let record = CallRecord { target: &target, host: Some(&bytes), user_agent: Some(&bytes), ..line() };
        let mut out = Vec::new();
        line::json(&mut out, &mut Stamps::default(), &record);
        let text = String::from_utf8(out).unwrap();
        assert!(!text.trim_end().chars().any(char::is_control));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["target"], target.as_str());
        assert_eq!(value["user_agent"], String::from_utf8_lossy(&bytes).as_ref());
    }

    #[test]
    fn whatever_is_sent_a_line_of_text_is_one_line_of_plain_characters(target in ".{0,40}", bytes: Vec<u8>) {
        let record = CallRecord { target: &target, host: Some(&bytes), referer: Some(&bytes), ..line() };
        let mut out = Vec::new();
        line::text(&mut out, &mut Stamps::default(), &record);
        let (end, text) = out.split_last().unwrap();
        assert_eq!(*end, b'\n');
        assert!(text.iter().all(|byte| (0x20..0x7f).contains(byte)));
        // Seven values in quotes, and none that ends its own.
        assert_eq!(text.iter().filter(|byte| **byte == b'"').count(), 16);
    }
}
