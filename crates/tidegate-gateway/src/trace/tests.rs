use http::HeaderValue;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn parse(traceparent: &str) -> Option<TraceContext> {
    TraceContext::parse(&headers(&[("traceparent", traceparent)]))
}

#[test]
fn valid_parents_are_read() {
    for (text, sampled) in [
        (format!("00-{TRACE}-{SPAN}-01"), true),
        (format!("00-{TRACE}-{SPAN}-00"), false),
        (format!("00-{TRACE}-{SPAN}-ff"), true),
        (format!("cc-{TRACE}-{SPAN}-01"), true),
        (format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"), true),
    ] {
        let context = parse(&text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(format!("{:x}", context.trace_id), TRACE, "{text}");
        assert_eq!(context.span_id, 0x00f0_67aa_0ba9_02b7, "{text}");
        assert_eq!(context.is_sampled(), sampled, "{text}");
    }
}

#[test]
fn parents_that_break_the_standard_are_not_believed() {
    let zeros = "0".repeat(32);
    for text in [
        "".to_owned(),
        "00".to_owned(),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-01-extra"),
        format!("00-{TRACE}-{SPAN}-01."),
        format!("cc-{TRACE}-{SPAN}-01.future"),
        format!("00-{zeros}-{SPAN}-01"),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
        format!("0x-{TRACE}-{SPAN}-01"),
        format!("00_{TRACE}_{SPAN}_01"),
        format!("00-{TRACE}-{SPAN}-0"),
        format!("00-{TRACE}-{SPAN}-0g"),
        format!("00-{}-{SPAN}-01", &TRACE[1..]),
    ] {
        assert_eq!(parse(&text), None, "{text}");
    }
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let twice = headers(&[("traceparent", &parent), ("traceparent", &parent)]);
    assert_eq!(TraceContext::parse(&twice), None);
}

#[test]
fn what_is_written_reads_back() {
    for _ in 0..100 {
        let context = TraceContext::root(|low_bits| low_bits % 2 == 0);
        assert_eq!(parse(context.header().to_str().unwrap()), Some(context));
        let child = context.child();
        assert_eq!((child.trace_id, child.is_sampled()), (context.trace_id, context.is_sampled()));
        assert_ne!(child.span_id, context.span_id);
    }
}

#[test]
fn a_tracestate_is_kept_when_valid_and_dropped_when_not() {
    let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    let long = |key: usize, value: usize| format!("{}={}", "k".repeat(key), "v".repeat(value));
    for valid in [
        "a=1",
        "a=1,b=2",
        "a=1 , b=2",
        "tenant@vendor=x",
        "0a=1",
        "a=1,,b=2",
        "a=x y",
        &many(32),
        &long(256, 256),
    ] {
        let mut kept = headers(&[("tracestate", valid)]);
        context::keep_valid_state(&mut kept);
        assert_eq!(kept.get(TRACESTATE).unwrap(), valid);
    }
    for bad in [
        "a",
        "=1",
        "a=",
        "A=1",
        "a b=1",
        "_a=1",
        "a=b=c",
        "a@b@c=1",
        "a=\t",
        &many(33),
        &long(257, 1),
        &long(1, 257),
    ] {
        let mut dropped = headers(&[("tracestate", "good=1"), ("tracestate", bad)]);
        context::keep_valid_state(&mut dropped);
        assert!(dropped.is_empty(), "{bad}");
    }
}

#[test]
fn without_a_collector_the_context_passes_untouched() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let mut passing = headers(&[("traceparent", &parent), ("tracestate", "Odd,but=ours to pass on")]);
    let before = passing.clone();
    let trace = Tracer::off().begin(&mut passing);
    assert_eq!(passing, before);
    assert_eq!(trace.trace_id().map(|id| format!("{id:x}")).as_deref(), Some(TRACE));
    let mut none = HeaderMap::new();
    assert_eq!(Tracer::off().begin(&mut none), Trace::default());
    assert!(none.is_empty());
}

fn tracing(otlp: &str, percent: f64) -> config::Tracing {
    config::Tracing { otlp: Some(otlp.into()), sample_percent: Some(percent) }
}

#[tokio::test]
async fn with_a_collector_a_sampled_call_becomes_a_span_between_caller_and_upstream() {
    let tracer = Tracer::start(&tracing("http://127.0.0.1:1", 0.0), &Handle::current()).unwrap();
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let mut passing = headers(&[("traceparent", &parent), ("tracestate", "a=1")]);
    let trace = tracer.begin(&mut passing);
    assert_eq!(trace.recorded, Recorded::Yes);
    assert_eq!(trace.parent, Some(0x00f0_67aa_0ba9_02b7));
    let sent = TraceContext::parse(&passing);
    assert_eq!(sent, trace.context);
    assert_ne!(passing[TRACEPARENT], parent);
    assert_eq!(passing[TRACESTATE], "a=1");
}

#[tokio::test]
async fn the_callers_decision_not_to_sample_is_respected() {
    let tracer = Tracer::start(&tracing("http://127.0.0.1:1", 100.0), &Handle::current()).unwrap();
    let parent = format!("00-{TRACE}-{SPAN}-00");
    let mut passing = headers(&[("traceparent", &parent)]);
    assert_eq!(tracer.begin(&mut passing).recorded, Recorded::No);
    assert_eq!(passing[TRACEPARENT], parent);
}

#[tokio::test]
async fn calls_without_a_decision_are_sampled_in_the_share_asked_for() {
    for (percent, most, least) in [(0.0, 0, 0), (100.0, 2000, 2000), (50.0, 1200, 800)] {
        let tracer = Tracer::start(&tracing("http://127.0.0.1:1", percent), &Handle::current()).unwrap();
        let sampled = (0..2000)
            .filter(|_| {
                let mut fresh = headers(&[("tracestate", "orphan=1"), ("traceparent", "broken")]);
                let trace = tracer.begin(&mut fresh);
                assert_eq!(TraceContext::parse(&fresh), trace.context);
                assert!(!fresh.contains_key(TRACESTATE));
                trace.recorded == Recorded::Yes
            })
            .count();
        assert!((least..=most).contains(&sampled), "{percent} % sampled {sampled} of 2000");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_the_remedy() {
    let error = |otlp: &str, percent| {
        Tracer::start(&tracing(otlp, percent), &Handle::current()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(error("collector:4317", 1.0), @"tracing.otlp `collector:4317` cannot be used: the scheme is `collector`, and only plain gRPC to a collector is there; write a URL like http://127.0.0.1:4317");
    insta::assert_snapshot!(error("https://collector:4317", 1.0), @"tracing.otlp `https://collector:4317` cannot be used: the scheme is `https`, and only plain gRPC to a collector is there; write a URL like http://127.0.0.1:4317");
    insta::assert_snapshot!(error("http://127.0.0.1:4317", 101.0), @"tracing.sample_percent 101 is no percentage; write a number from 0 to 100");
    assert!(matches!(
        Tracer::start(&tracing("http://127.0.0.1:4317", f64::NAN), &Handle::current()),
        Err(OtlpError::Percent(_))
    ));
}

proptest::proptest! {
    #[test]
    fn no_header_makes_the_parser_panic_and_what_it_believes_it_writes_the_same(text in "[0-9a-f-]{50,60}|[ -~]{0,80}") {
        if let Some(context) = parse(&text) {
            assert_eq!(parse(context.header().to_str().unwrap()), Some(context));
            assert_eq!(context.header().as_bytes()[3..52], text.as_bytes()[3..52]);
        }
    }
}
