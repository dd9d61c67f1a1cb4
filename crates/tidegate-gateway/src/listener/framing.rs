//! Where one HTTP/1 message ends and the next begins, read as strictly as RFC 9112 allows. It sees every byte before the
//! parser does and stops at the first that two readers could understand differently: that is how requests are smuggled.
//!
//! What the parser refuses itself (obs-fold, blanks before a colon, NUL, bad chunk ends) is left to it.

use memchr::memchr;

/// Enough of a line that two reads share to know its name and its whole value, where either matters.
const KEPT: usize = 64;
/// The longest line that may give a length; no writer makes a longer one.
const LONGEST: usize = KEPT - 1;
/// More digits than this are more bytes than anyone has.
const MOST_DIGITS: usize = 18;

/// The reader's place in a stream of requests.
#[derive(Debug)]
pub(super) struct Framing {
    place: Place,
    head: Head,
    /// The start of a line that the last read cut, with its length so far.
    line: [u8; KEPT],
    line_len: usize,
    /// The last byte of that line: a line feed may be the first of the next read.
    last: u8,
    /// Whether bytes came after a request that asks for another protocol, before it was answered.
    blind: bool,
}

/// Where the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Between two requests.
    Between,
    /// In a request line or a header line.
    Head,
    /// In a body of a known length, so many bytes before its end.
    Body(u64),
    /// In the line that gives a chunk's length.
    ChunkSize,
    /// In a chunk, so many bytes before the end of its line.
    Chunk(u64),
    /// In the lines after the last chunk.
    Trailers,
    /// After a request that asks for another protocol: what follows has no meaning yet.
    Undecided,
    /// Another protocol's.
    Opaque,
}

/// What the head said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    leaves: bool,
    request_line: bool,
}

/// What two readers could understand differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ambiguous {
    /// Bytes of this read before the place.
    pub(super) at: usize,
    /// What it is, for a log line.
    pub(super) why: &'static str,
}

impl Framing {
    /// A connection from its first byte.
    pub(super) const fn new() -> Self {
        Self {
            place: Place::Between,
            head: Head { length: None, chunked: false, leaves: false, request_line: false },
            line: [0; KEPT],
            line_len: 0,
            last: 0,
            blind: false,
        }
    }

    /// A connection that speaks something else than HTTP/1.
    pub(super) const fn opaque() -> Self {
        Self { place: Place::Opaque, ..Self::new() }
    }

    /// Where the next byte belongs.
    pub(super) const fn place(&self) -> Place {
        self.place
    }

    /// Whether bytes came that cannot be told apart before the change of protocol is decided.
    pub(super) const fn is_blind(&self) -> bool {
        self.blind
    }

    /// The change of protocol was decided.
    pub(super) fn decide(&mut self, other_protocol: bool) {
        if self.place == Place::Undecided {
            self.place = if other_protocol || self.blind { Place::Opaque } else { Place::Between };
        }
    }

    /// Follows what was read.
    ///
    /// # Errors
    /// At the first byte that makes the message ambiguous; nothing may be read from the connection after it.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Ambiguous> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.place {
                Place::Opaque => return Ok(()),
                Place::Undecided => {
                    self.blind = true;
                    return Ok(());
                }
                Place::Body(left) => {
                    let (taken, left) = take(rest, left);
                    self.place = if left == 0 { self.after_message() } else { Place::Body(left) };
                    taken
                }
                Place::Chunk(left) => {
                    let (taken, left) = take(rest, left);
                    self.place = if left == 0 { Place::ChunkSize } else { Place::Chunk(left) };
                    taken
                }
                Place::Between | Place::Head | Place::ChunkSize | Place::Trailers => {
                    self.read_line(rest).map_err(|(offset, why)| Ambiguous { at: at + offset, why })?
                }
            };
        }
        Ok(())
    }

    /// Reads to the end of a line, or keeps the start of a cut one, and says how many bytes that took.
    fn read_line(&mut self, bytes: &[u8]) -> Result<usize, (usize, &'static str)> {
        let Some(end) = memchr(b'\n', bytes) else {
            if self.place == Place::Between && bytes != b"\r" {
                self.place = Place::Head;
            }
            self.keep(bytes);
            return Ok(bytes.len());
        };
        let before = if end == 0 { self.last } else { bytes[end - 1] };
        if before != b'\r' {
            return Err((end, "a line feed without its carriage return"));
        }
        if self.line_len == 0 {
            self.line(&bytes[..end - 1]).map_err(|why| (end, why))?;
        } else {
            self.keep(&bytes[..end]);
            let (line, len) = (self.line, self.line_len);
            // What was not kept makes a line that matters too long, so it is refused and not misread.
            let whole = if len > KEPT { &line[..] } else { &line[..len - 1] };
            self.line(whole).map_err(|why| (end, why))?;
        }
        (self.line_len, self.last) = (0, 0);
        Ok(end + 1)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(&last) = bytes.last() {
            self.last = last;
        }
        if let Some(room) = self.line.get_mut(self.line_len..) {
            let kept = bytes.len().min(room.len());
            room[..kept].copy_from_slice(&bytes[..kept]);
        }
        self.line_len += bytes.len();
    }

    /// Understands a line without its end.
    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        match self.place {
            // Empty lines before a request are skipped by everyone.
            Place::Between if line.is_empty() => {}
            Place::Between => self.request_line(line),
            Place::Head if !self.head.request_line => self.request_line(line),
            Place::Head if line.is_empty() => {
                self.place = match self.head {
                    Head { chunked: true, .. } => Place::ChunkSize,
                    Head { length: Some(1..), .. } => Place::Body(self.head.length.unwrap_or(0)),
                    _ => self.after_message(),
                };
            }
            Place::Head => self.head.header(line)?,
            Place::ChunkSize => {
                self.place = match chunk_size(line)? {
                    0 => Place::Trailers,
                    // The line feed and carriage return after a chunk belong to it.
                    size => Place::Chunk(size + 2),
                };
            }
            Place::Trailers if line.is_empty() => self.place = self.after_message(),
            Place::Trailers | Place::Body(_) | Place::Chunk(_) | Place::Undecided | Place::Opaque => {}
        }
        Ok(())
    }

    fn request_line(&mut self, line: &[u8]) {
        self.place = Place::Head;
        self.head = Head { leaves: line.starts_with(b"CONNECT "), request_line: true, ..Head::default() };
    }

    fn after_message(&mut self) -> Place {
        let leaves = self.head.leaves;
        self.head = Head::default();
        if leaves { Place::Undecided } else { Place::Between }
    }
}

impl Head {
    fn header(&mut self, line: &[u8]) -> Result<(), &'static str> {
        // Most names begin with another letter and cost one comparison.
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'c') if is_named(line, b"content-length") => {
                within(line)?;
                let length = number(value(line)).ok_or("a content-length that is not a number")?;
                if self.chunked {
                    return Err("both transfer-encoding and content-length");
                }
                if self.length.is_some_and(|other| other != length) {
                    return Err("two content-lengths that differ");
                }
                self.length = Some(length);
            }
            Some(b't') if is_named(line, b"transfer-encoding") => {
                within(line)?;
                if self.length.is_some() {
                    return Err("both content-length and transfer-encoding");
                }
                if self.chunked || !value(line).eq_ignore_ascii_case(b"chunked") {
                    return Err("a transfer-encoding other than one `chunked`");
                }
                self.chunked = true;
            }
            Some(b'u') if is_named(line, b"upgrade") => self.leaves = true,
            _ => {}
        }
        Ok(())
    }
}

fn take(bytes: &[u8], left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (taken, left - taken as u64)
}

fn within(line: &[u8]) -> Result<(), &'static str> {
    if line.len() > LONGEST { Err("a length in a line that is too long") } else { Ok(()) }
}

fn is_named(line: &[u8], name: &[u8]) -> bool {
    line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name)
}

fn value(line: &[u8]) -> &[u8] {
    let colon = memchr(b':', line).map_or(0, |colon| colon + 1);
    line[colon..].trim_ascii()
}

fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.len() <= MOST_DIGITS && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let ends = line.get(digits).is_none_or(|byte| matches!(byte, b';' | b' ' | b'\t'));
    if !(1..=MOST_DIGITS - 3).contains(&digits) || !ends {
        return Err("a chunk length that is not a number");
    }
    Ok(line[..digits].iter().fold(0, |size, digit| {
        let digit = (*digit as char).to_digit(16).map_or(0, u64::from);
        size * 16 + digit
    }))
}

#[cfg(test)]
mod tests;
