//! One line: nginx's combined format with what a gateway adds, or a JSON object.

use std::{io::Write, net::IpAddr, time::Duration};

use http::Version;

use super::{escape, stamp::Stamps};
use crate::record::CallRecord;

/// Appends the line for people.
pub(super) fn text(out: &mut Vec<u8>, stamps: &mut Stamps, line: &CallRecord<'_>) {
    address(out, line.client);
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(stamps.common(line.at).as_bytes());
    out.extend_from_slice(b"] \"");
    escape::text(out, line.method.as_bytes());
    out.push(b' ');
    escape::text(out, line.target.as_bytes());
    out.push(b' ');
    out.extend_from_slice(version(line.version).as_bytes());
    out.extend_from_slice(b"\" ");
    decimal(out, line.finished.status.into());
    out.push(b' ');
    decimal(out, line.finished.response_bytes);
    for value in [line.referer, line.user_agent] {
        out.extend_from_slice(b" \"");
        escape::text(out, value.unwrap_or(b"-"));
        out.push(b'"');
    }
    let mut quoted = |name: &str, value: Option<&[u8]>| {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            out.push(b'"');
            escape::text(out, value);
            out.push(b'"');
        }
    };
    quoted(" host=", line.host);
    quoted(" route=", Some(line.route.as_bytes()));
    quoted(" upstream=", Some(line.upstream.as_bytes()));
    quoted(" endpoint=", line.endpoint.map(str::as_bytes));
    quoted(" reason=", line.reason.map(str::as_bytes));
    quoted(" limit=", line.limit.map(str::as_bytes));
    quoted(" id=", Some(line.request_id));
    numbers(out, line, [" grpc_status=", " request_bytes=", " duration=", " head=", " trace="], b"");
    out.push(b'\n');
}

/// Appends the line for machines.
pub(super) fn json(out: &mut Vec<u8>, stamps: &mut Stamps, line: &CallRecord<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(stamps.rfc3339(line.at).as_bytes());
    out.push(b'.');
    digits(out, line.at.as_nanos() / 1_000_000 % 1000, 3);
    out.extend_from_slice(b"Z\",\"client\":\"");
    address(out, line.client);
    out.extend_from_slice(b"\",\"status\":");
    decimal(out, line.finished.status.into());
    let mut quoted = |name: &str, value: Option<&[u8]>| {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            escape::json(out, value);
            out.push(b'"');
        }
    };
    quoted(",\"method\":\"", Some(line.method.as_bytes()));
    quoted(",\"target\":\"", Some(line.target.as_bytes()));
    quoted(",\"protocol\":\"", Some(version(line.version).as_bytes()));
    quoted(",\"host\":\"", line.host);
    quoted(",\"referer\":\"", line.referer);
    quoted(",\"user_agent\":\"", line.user_agent);
    quoted(",\"route\":\"", Some(line.route.as_bytes()));
    quoted(",\"upstream\":\"", Some(line.upstream.as_bytes()));
    quoted(",\"endpoint\":\"", line.endpoint.map(str::as_bytes));
    quoted(",\"reason\":\"", line.reason.map(str::as_bytes));
    quoted(",\"limit\":\"", line.limit.map(str::as_bytes));
    quoted(",\"request_id\":\"", Some(line.request_id));
    out.extend_from_slice(b",\"response_bytes\":");
    decimal(out, line.finished.response_bytes);
    let names = [
        ",\"grpc_status\":",
        ",\"request_bytes\":",
        ",\"duration\":",
        ",\"head_duration\":",
        ",\"trace_id\":",
    ];
    numbers(out, line, names, b"\"");
    out.extend_from_slice(b"}\n");
}

/// What both kinds end with, under their own names.
fn numbers(out: &mut Vec<u8>, line: &CallRecord<'_>, names: [&str; 5], quote: &[u8]) {
    let [grpc_status, request_bytes, duration, head, trace] = names.map(str::as_bytes);
    if let Some(code) = line.finished.grpc_status {
        out.extend_from_slice(grpc_status);
        decimal(out, code.into());
    }
    out.extend_from_slice(request_bytes);
    decimal(out, line.finished.request_bytes);
    out.extend_from_slice(duration);
    seconds(out, line.finished.duration);
    if let Some(duration) = line.finished.head_duration {
        out.extend_from_slice(head);
        seconds(out, duration);
    }
    if let Some(id) = line.trace.trace_id() {
        for part in [trace, quote] {
            out.extend_from_slice(part);
        }
        write!(out, "{id:032x}").expect("writing to memory does not fail");
        out.extend_from_slice(quote);
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP",
    }
}

/// Several times faster than `Display` for the address that nearly all lines carry.
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            for (at, octet) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                decimal(out, octet.into());
            }
        }
        IpAddr::V6(v6) => write!(out, "{v6}").expect("writing to memory does not fail"),
    }
}

/// Seconds with six decimals.
fn seconds(out: &mut Vec<u8>, duration: Duration) {
    decimal(out, duration.as_secs());
    out.push(b'.');
    digits(out, duration.subsec_micros().into(), 6);
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    digits(out, number, number.checked_ilog10().map_or(1, |log| log as usize + 1));
}

/// The last `width` digits, with zeros in front.
fn digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut text = [b'0'; 20];
    for digit in text[..width].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&text[..width]);
}
