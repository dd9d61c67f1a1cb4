//! What fuzz targets share: a `main` that replays seeds where there is no fuzzer.

use std::time::{Duration, Instant};

/// Makes a fuzz target of a function: libFuzzer's entry point under cargo-fuzz, else a `main` that replays.
#[macro_export]
macro_rules! target {
    ($function:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $function(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            $crate::replay(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/", env!("CARGO_BIN_NAME")), $function)
        }
    };
}

/// Runs `target` on the files named on the command line, or else on each seed and on mutations of the seeds: as many as the
/// number on the command line says (100 000), or for as many seconds as `-max_total_time=` says.
///
/// # Errors
/// When a file cannot be read.
pub fn replay(seeds: &str, target: fn(&[u8])) -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let told = match arguments.as_slice() {
        [] => Some((100_000, None)),
        [one] => match one.strip_prefix("-max_total_time=") {
            Some(seconds) => {
                seconds.parse().ok().map(|seconds| (u64::MAX, Some(Duration::from_secs(seconds))))
            }
            None => one.parse().ok().map(|runs| (runs, None)),
        },
        _ => None,
    };
    let Some((most, time)) = told else {
        for file in arguments {
            target(&std::fs::read(file)?);
        }
        return Ok(());
    };
    let mut files: Vec<_> =
        std::fs::read_dir(seeds)?.map(|file| file.map(|file| file.path())).collect::<Result<_, _>>()?;
    files.sort();
    let seeds: Vec<Vec<u8>> = files.into_iter().map(std::fs::read).collect::<Result<_, _>>()?;
    seeds.iter().for_each(|seed| target(seed));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (began, mut runs) = (Instant::now(), 0);
    while runs < most && time.is_none_or(|time| began.elapsed() < time) {
        runs += 1;
        let mut input = seeds[dice.below(seeds.len())].clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut input, &seeds, &mut dice);
        }
        target(&input);
    }
    println!("{} seeds and {runs} mutations of them: nothing broke", seeds.len());
    Ok(())
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    match dice.below(6) {
        0 => input.truncate(at),
        1 => input.insert(at, dice.next() as u8),
        2 => input.extend_from_slice(&seeds[dice.below(seeds.len())]),
        3 if at < input.len() => drop(input.remove(at)),
        4 if at < input.len() => input[at] ^= 1 << dice.below(8),
        _ if at < input.len() => input[at] = dice.next() as u8,
        _ => input.push(dice.next() as u8),
    }
}

/// Xorshift: the same throws every time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
