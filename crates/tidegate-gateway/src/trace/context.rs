//! `traceparent` and `tracestate` (W3C Trace Context): read, checked and written.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header of the caller's position.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header of what vendors add.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of a version-00 `traceparent`: `00-` 32 digits `-` 16 digits `-` 2 digits.
const LENGTH: usize = 55;
const SAMPLED: u8 = 0x01;
/// The trace id was made at random (Level 2); passed on.
const RANDOM: u8 = 0x02;
/// Most members of a `tracestate`.
const MOST_MEMBERS: usize = 32;

/// A position in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never zero.
    pub trace_id: u128,
    /// The span in it; never zero.
    pub span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// Reads the caller's position. Nothing unless there is exactly one valid `traceparent`.
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let (value, None) = (all.next()?.as_bytes(), all.next()) else { return None };
        let (fixed, rest) = value.split_at_checked(LENGTH)?;
        if fixed[2] != b'-' || fixed[35] != b'-' || fixed[52] != b'-' {
            return None;
        }
        match hex(&fixed[..2])? {
            0xff => return None,
            0 if !rest.is_empty() => return None,
            // A later version may add fields.
            _ if !rest.is_empty() && rest[0] != b'-' => return None,
            _ => {}
        }
        let (trace_id, span_id) = (hex(&fixed[3..35])?, hex(&fixed[36..52])? as u64);
        let flags = hex(&fixed[53..])? as u8 & (SAMPLED | RANDOM);
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags })
    }

    /// Begins a trace. `sample` decides, from 64 random bits.
    pub(super) fn root(sample: impl FnOnce(u64) -> bool) -> Self {
        let trace_id = fastrand::u128(1..);
        let flags = if sample(trace_id as u64) { SAMPLED | RANDOM } else { RANDOM };
        Self { trace_id, span_id: fastrand::u64(1..), flags }
    }

    /// The position of a new span below this one.
    pub(super) fn child(self) -> Self {
        Self { span_id: fastrand::u64(1..), ..self }
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The `traceparent` of this position.
    pub fn header(&self) -> HeaderValue {
        let mut text = [b'-'; LENGTH];
        digits(&mut text[..2], 0);
        digits(&mut text[3..35], self.trace_id);
        digits(&mut text[36..52], self.span_id.into());
        digits(&mut text[53..], self.flags.into());
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are a header value")
    }
}

/// Removes a `tracestate` that is not valid, as whoever restarts or continues a trace must.
pub(super) fn keep_valid_state(headers: &mut HeaderMap) {
    let mut members = 0;
    let valid = headers.get_all(TRACESTATE).iter().all(|value| {
        value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).all(|member| {
            members += usize::from(!member.is_empty());
            members <= MOST_MEMBERS && (member.is_empty() || is_member(member))
        })
    });
    if !valid {
        headers.remove(TRACESTATE);
    }
}

/// `key=value` with the characters that the standard allows.
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let key_char = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=256).contains(&key.len())
        && key.first().is_some_and(first)
        && key.iter().all(key_char)
        && key.iter().filter(|byte| **byte == b'@').count() <= 1
        && (1..=256).contains(&value.len())
        && value.iter().all(|byte| matches!(byte, 0x20..=0x7e) && *byte != b'=')
}

/// Lower-case hexadecimal digits only, as the standard demands.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// Fills `text` with the last digits of `value`.
pub(super) fn digits(text: &mut [u8], mut value: u128) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 0xf) as usize];
        value >>= 4;
    }
}
