//! Counters by status code in a fixed array: a known code has its own place, every other shares its class.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The registered status codes, and nginx's 499 for a client that went away.
const KNOWN: [u16; 64] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307,
    308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422,
    423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511, 520,
    529,
];
/// What a code is counted under when it is not registered.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];
const SLOTS: usize = KNOWN.len() + CLASSES.len();
const SLOT_OF: [u8; 1000] = slot_of();

const fn slot_of() -> [u8; 1000] {
    let mut slots = [0; 1000];
    let mut code = 0;
    while code < slots.len() {
        let class = code / 100;
        slots[code] = (KNOWN.len() + if 1 <= class && class <= 5 { class - 1 } else { 5 }) as u8;
        code += 1;
    }
    let mut slot = 0;
    while slot < KNOWN.len() {
        slots[KNOWN[slot] as usize] = slot as u8;
        slot += 1;
    }
    slots
}

/// One thread's counters by status code.
#[derive(Debug)]
pub(super) struct Codes([AtomicU64; SLOTS]);

impl Default for Codes {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; SLOTS])
    }
}

impl Codes {
    pub(super) fn count(&self, code: u16) {
        let slot = SLOT_OF.get(usize::from(code)).map_or(SLOTS - 1, |slot| usize::from(*slot));
        self.0[slot].fetch_add(1, Relaxed);
    }

    /// The codes that occurred, as label values, with how often they did.
    pub(super) fn sum<'a>(copies: impl Iterator<Item = &'a Self>) -> Vec<(String, u64)> {
        let mut totals = [0u64; SLOTS];
        for copy in copies {
            totals.iter_mut().zip(&copy.0).for_each(|(total, count)| *total += count.load(Relaxed));
        }
        let names = KNOWN.iter().map(u16::to_string).chain(CLASSES.map(str::to_owned));
        names.zip(totals).filter(|(_, total)| *total > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_an_upstream_answers_the_label_values_are_bounded() {
        let codes = Codes::default();
        (0..=u16::MAX).for_each(|code| codes.count(code));
        let sums = Codes::sum([&codes].into_iter());
        assert_eq!(sums.len(), SLOTS);
        assert_eq!(sums.iter().map(|(_, total)| total).sum::<u64>(), 1 << 16);
    }

    #[test]
    fn a_known_code_has_a_place_of_its_own_and_others_share_their_class() {
        let codes = Codes::default();
        [200, 429, 429, 299, 298, 999].into_iter().for_each(|code| codes.count(code));
        let sums = Codes::sum([&codes].into_iter());
        let expected = [("200", 1), ("429", 2), ("2xx", 2), ("other", 1)];
        assert_eq!(sums, expected.map(|(name, total)| (name.to_owned(), total)));
    }
}
