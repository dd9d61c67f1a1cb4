//! Where the frames of a WebSocket begin (RFC 6455 §5.2), so that one of ours can be put between two of them.

/// The longest head of a frame.
const LONGEST_HEAD: usize = 14;
/// Policy violation (RFC 6455 §7.4.1): whoever listens has to log in.
const POLICY: u16 = 1008;

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; LONGEST_HEAD],
    /// Bytes of the head that went by.
    headed: usize,
    /// Bytes of the payload that are still to come.
    left: u64,
}

impl Frames {
    /// Lets bytes go by.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= skipped as u64;
            bytes = &bytes[skipped..];
            let Some((first, rest)) = bytes.split_first() else { return };
            bytes = rest;
            self.head[self.headed] = *first;
            self.headed += 1;
            if self.headed >= 2 && self.headed == self.head_bytes() {
                self.left = self.payload();
                self.headed = 0;
            }
        }
    }

    /// Whether the last frame is through, and the next one has not begun.
    pub(super) const fn are_whole(&self) -> bool {
        self.headed == 0 && self.left == 0
    }

    fn head_bytes(&self) -> usize {
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn payload(&self) -> u64 {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        match self.head[1] & 0x7f {
            126 => number(&self.head[2..4]),
            127 => number(&self.head[2..10]),
            short => short.into(),
        }
    }
}

/// A frame of a server's that ends a WebSocket and says why.
pub(super) fn close(why: &str) -> Vec<u8> {
    let why = &why.as_bytes()[..why.len().min(100)];
    let length = u8::try_from(2 + why.len()).expect("it was cut to 100 bytes");
    [&[0x88, length][..], &POLICY.to_be_bytes(), why].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x82];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..65536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(if masked { &[1, 2, 3, 4][..] } else { &[] });
        bytes.extend(std::iter::repeat_n(0x88, length));
        bytes
    }

    #[test]
    fn frames_are_whole_between_them_and_nowhere_else_however_they_are_cut() {
        let lengths = [(0, false), (5, true), (125, false), (126, false), (300, true), (70_000, false)];
        let all: Vec<Vec<u8>> = lengths.iter().map(|(length, masked)| frame(*length, *masked)).collect();
        let stream = all.concat();
        let mut ends: Vec<usize> = vec![0];
        for frame in &all {
            ends.push(ends.last().unwrap() + frame.len());
        }
        for piece in [1, 3, 1000] {
            let (mut frames, mut at) = (Frames::default(), 0);
            assert!(frames.are_whole());
            for bytes in stream.chunks(piece) {
                frames.pass(bytes);
                at += bytes.len();
                assert_eq!(frames.are_whole(), ends.contains(&at), "at {at} by {piece}");
            }
        }
    }

    #[test]
    fn a_close_is_one_frame_with_its_code() {
        let bytes = close("log in again");
        let mut frames = Frames::default();
        frames.pass(&bytes);
        assert!(frames.are_whole());
        assert_eq!(&bytes[..4], &[0x88, 14, 0x03, 0xf0]);
        assert_eq!(close(&"x".repeat(500)).len(), 104);
    }
}
