//! What a counter is kept per: a keyed hash of the parts, never the parts themselves.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::LazyLock,
};

/// The name of a counter: 128 bits of a hash with a [`Seed`], which is random in each process unless it is given.
///
/// Two different keys share a counter once in 2¹²⁸ pairs, and nobody who does not know the seed can find such a pair.
///
/// ```
/// # use tidegate::throttle::{Key, KeyHasher};
/// let mut hasher = KeyHasher::new();
/// hasher.part(b"GET").part(b"/orders");
/// assert_eq!(hasher.finish(), KeyHasher::new().part(b"GET").part(b"/orders").finish());
/// assert_ne!(hasher.finish(), Key::of(b"GET/orders"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Key {
    /// Finds the two buckets.
    pub(super) place: u64,
    /// Finds the shard and the tag.
    pub(super) check: u64,
}

impl Key {
    /// The key of a limit with one counter for all.
    pub const ALL: Self = Self { place: 0, check: 0 };

    /// Hashes a key of one part.
    pub fn of(part: &[u8]) -> Self {
        KeyHasher::new().part(part).finish()
    }

    /// The key as a number, for whoever stores it under a name.
    pub const fn bits(self) -> u128 {
        (self.place as u128) << 64 | self.check as u128
    }

    /// The key of a number that [`bits`](Self::bits) gave.
    pub const fn from_bits(bits: u128) -> Self {
        Self { place: (bits >> 64) as u64, check: bits as u64 }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x}{:016x})", self.place, self.check)
    }
}

/// What makes one process, or one fleet, hash the same parts to the same keys.
///
/// The seed of [`KeyHasher::new`] is random in each process. Processes that share counters must share a seed, made
/// [`of`](Self::of) something that all of them know. Whoever knows it too can look for two keys that share a counter,
/// and use up the quota of a key that is not theirs; they never get more than a quota. Where clients choose the parts of
/// keys, make the seed of a secret and not of a public name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed([u64; 2]);

impl Seed {
    /// Makes the seed of a secret or a name. Equal bytes give equal seeds in every process and version.
    pub fn of(secret: &[u8]) -> Self {
        // Which words does not matter, as long as they never change.
        let Key { place, check } = KeyHasher::seeded(Self([0x7469_6465_6761_7465, 1])).part(secret).finish();
        Self([place, check])
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

static SEED: LazyLock<Seed> = LazyLock::new(|| {
    let random = || RandomState::new().build_hasher().finish();
    Seed([random(), random()])
});

/// Hashes the parts of a key one by one, without allocating. Where one part ends and the next begins matters.
#[derive(Clone, Debug)]
pub struct KeyHasher(Sip<1, 3>);

impl Default for KeyHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyHasher {
    /// Begins a key that means something in this process only.
    pub fn new() -> Self {
        Self::seeded(*SEED)
    }

    /// Begins a key that means the same in every process with this seed.
    pub const fn seeded(seed: Seed) -> Self {
        Self(Sip::new(seed.0))
    }

    /// Adds a part.
    #[inline]
    pub fn part(&mut self, part: &[u8]) -> &mut Self {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            self.0.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            self.0.word(padded(rest));
        }
        // The length last: read backwards, no two lists of parts give the same words.
        self.0.word(part.len() as u64);
        self
    }

    /// Adds that a part is missing, which differs from an empty one.
    #[inline]
    pub fn absent(&mut self) -> &mut Self {
        self.0.word(u64::MAX);
        self
    }

    /// The key of the parts so far.
    pub fn finish(&self) -> Key {
        let [place, check] = self.0.clone().finish();
        Key { place, check }
    }
}

/// One to seven bytes as a word, without a call to copy them.
#[inline]
fn padded(rest: &[u8]) -> u64 {
    let last = rest.len() - 1;
    match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(first), Some(second)) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*second)) << (8 * (last - 3))
        }
        _ => [0, last / 2, last].into_iter().fold(0, |word, at| word | u64::from(rest[at]) << (8 * at)),
    }
}

/// SipHash-C-D over whole words (Aumasson and Bernstein 2012), with the two halves of its output unfolded: their xor
/// is the hash of the paper. That fold hides the state from those who see hashes, and nobody sees these.
#[derive(Clone, Debug)]
struct Sip<const C: usize, const D: usize> {
    state: [u64; 4],
}

impl<const C: usize, const D: usize> Sip<C, D> {
    const fn new([k0, k1]: [u64; 2]) -> Self {
        let state = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self { state }
    }

    #[inline]
    fn word(&mut self, word: u64) {
        self.state[3] ^= word;
        self.rounds::<C>();
        self.state[0] ^= word;
    }

    /// The last word was a length, of the input or of its last part.
    #[inline]
    fn finish(mut self) -> [u64; 2] {
        self.state[2] ^= 0xff;
        self.rounds::<D>();
        let [a, b, c, d] = self.state;
        [a ^ b, c ^ d]
    }

    #[inline]
    fn rounds<const N: usize>(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.state;
        for _ in 0..N {
            a = a.wrapping_add(b);
            b = b.rotate_left(13) ^ a;
            a = a.rotate_left(32);
            c = c.wrapping_add(d);
            d = d.rotate_left(16) ^ c;
            a = a.wrapping_add(d);
            d = d.rotate_left(21) ^ a;
            c = c.wrapping_add(b);
            b = b.rotate_left(17) ^ c;
            c = c.rotate_left(32);
        }
        self.state = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_hash_is_siphash() {
        // vectors_sip64 of the reference code: key 00 01 … 0f, no input, and input 00 01 … 07.
        let seed = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let mut empty = Sip::<2, 4>::new(seed);
        empty.word(0);
        let mut eight = Sip::<2, 4>::new(seed);
        eight.word(0x0706_0504_0302_0100);
        eight.word(8 << 56);
        let folded = [empty, eight].map(|sip| sip.finish().into_iter().fold(0, |all, half| all ^ half));
        assert_eq!(folded, [0x726f_db47_dd0e_0e31, 0x93f5_f579_9a93_2462]);
    }

    #[test]
    fn a_rest_is_padded_with_zeros() {
        let bytes = [0xf1, 2, 0xf3, 4, 0xf5, 6, 0xf7];
        for length in 1..=7 {
            let mut word = [0; 8];
            word[..length].copy_from_slice(&bytes[..length]);
            assert_eq!(padded(&bytes[..length]), u64::from_le_bytes(word));
        }
    }

    #[test]
    fn a_seed_makes_keys_that_never_change() {
        let key = |secret: &[u8]| KeyHasher::seeded(Seed::of(secret)).part(b"alice").finish();
        // Counters in a store are named so: another value here would forget them all.
        assert_eq!(format!("{:032x}", key(b"prod").bits()), "f8d76c2c9b66bf716ee99eded8b6aa20");
        assert_ne!(key(b"prod"), key(b"staging"));
        assert_ne!(key(b"prod"), Key::of(b"alice"), "the seed of the process is another one");
        assert_eq!(Key::from_bits(key(b"prod").bits()), key(b"prod"));
        assert_eq!(format!("{:?}", Seed::of(b"prod")), "Seed(..)");
    }

    #[test]
    fn where_a_part_ends_matters() {
        let keys: [&[&[u8]]; 8] = [
            &[b"ab", b"c"],
            &[b"a", b"bc"],
            &[b"abc"],
            &[b"abc", b""],
            &[b"", b"abc"],
            &[b"abc\0"],
            &[b"abc\0\0\0\0\0", b"\x03"],
            &[],
        ];
        let hashed: HashSet<_> = keys
            .iter()
            .map(|parts| {
                parts
                    .iter()
                    .fold(KeyHasher::new(), |mut hasher, part| {
                        hasher.part(part);
                        hasher
                    })
                    .finish()
            })
            .collect();
        assert_eq!(hashed.len(), keys.len());
        assert_ne!(KeyHasher::new().absent().finish(), KeyHasher::new().part(b"").finish());
    }
}
