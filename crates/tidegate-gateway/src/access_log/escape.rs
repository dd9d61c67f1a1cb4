//! What clients send, made safe to log: a value can neither end its quotes nor its line, nor drive a terminal.

/// Longest value that is logged, in bytes. What is cut is marked with `...`.
const MOST_BYTES: usize = 4096;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `value` as nginx does: `"`, `\`, and what is not printable ASCII as `\xHH`.
pub(super) fn text(out: &mut Vec<u8>, value: &[u8]) {
    let (value, cut) = bounded(value);
    escaped(out, value, |byte| matches!(byte, 0..=0x1f | 0x7f.. | b'"' | b'\\'), hex);
    mark(out, cut);
}

/// Appends `value` as the inside of a JSON string. What is not UTF-8 becomes U+FFFD; C1 controls are escaped too.
pub(super) fn json(out: &mut Vec<u8>, value: &[u8]) {
    let (value, cut) = bounded(value);
    let special = |byte| matches!(byte, 0..=0x1f | 0x7f | b'"' | b'\\');
    if value.is_ascii() {
        escaped(out, value, special, unicode);
    } else {
        for c in String::from_utf8_lossy(value).chars() {
            match c {
                // C1 controls drive terminals; the separators end lines for some readers.
                '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                    let code = c as u32;
                    out.extend_from_slice(b"\\u");
                    out.extend([12, 8, 4, 0].map(|shift| HEX[(code >> shift & 0xf) as usize]));
                }
                _ => escaped(out, c.encode_utf8(&mut [0; 4]).as_bytes(), special, unicode),
            }
        }
    }
    mark(out, cut);
}

fn bounded(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    if value.len() > MOST_BYTES { (&value[..MOST_BYTES], Some(&value[MOST_BYTES..])) } else { (value, None) }
}

fn mark(out: &mut Vec<u8>, cut: Option<&[u8]>) {
    if cut.is_some() {
        out.extend_from_slice(b"...");
    }
}

/// Copies runs of plain bytes whole, and `escape`s the others.
fn escaped(out: &mut Vec<u8>, mut value: &[u8], special: impl Fn(u8) -> bool, escape: fn(&mut Vec<u8>, u8)) {
    // Nearly every value is plain. Looking at all of it, without stopping early, is what the compiler vectorizes.
    if value.iter().fold(false, |found, byte| found | special(*byte)) {
        while let Some(at) = value.iter().position(|byte| special(*byte)) {
            out.extend_from_slice(&value[..at]);
            escape(out, value[at]);
            value = &value[at + 1..];
        }
    }
    out.extend_from_slice(value);
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    out.extend([b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
}

fn unicode(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => out.extend([b'\\', byte]),
        _ => out.extend([b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]),
    }
}
