//! Which known word was most likely meant.

/// The one of `known` that is nearest to `given`, if one is near.
pub(super) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(given);
    let bound = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .take(MOST_COMPARED)
        .filter(|word| word.len() <= 4 * folded.len() + 4)
        .map(|word| (distance(&folded, &fold(word)), word))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// What to do about an unknown word: the one that was meant, or all there are.
pub(super) fn remedy<'a>(
    given: &str,
    what: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    if let Some(meant) = nearest(given, known.clone()) {
        return format!("did you mean `{meant}`?");
    }
    let all: Vec<&str> = known.into_iter().take(MOST_LISTED + 1).collect();
    match all.as_slice() {
        [] => format!("there is no {what}"),
        [only] => format!("the only {what} is {only}"),
        _ if all.len() > MOST_LISTED => {
            format!("write one of the {what}s: {}, ...", all[..MOST_LISTED].join(", "))
        }
        _ => format!("write one of the {what}s: {}", all.join(", ")),
    }
}

/// Most problems for which a word is suggested: more are not read, and each costs a comparison with all words.
/// Default: 200.
pub(super) const MOST_SUGGESTED: usize = 200;
/// Most words that are compared with one. Default: 1000.
const MOST_COMPARED: usize = 1000;
/// Most words that a remedy lists.
const MOST_LISTED: usize = 20;
/// Longest word that is compared.
const MOST_CHARS: usize = 40;

/// Without what people get wrong most: capitals, and `-` for `_`.
fn fold(word: &str) -> Vec<char> {
    word.chars().take(MOST_CHARS).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_was_meant_is_found() {
        let known = ["in_flight", "endpoints", "breaker", "timeout"];
        for (given, meant) in [
            ("in-flight", Some("in_flight")),
            ("inFlight", Some("in_flight")),
            ("endpoint", Some("endpoints")),
            ("braeker", Some("breaker")),
            ("timout", Some("timeout")),
            ("retries", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(given, known), meant, "{given}");
        }
    }
}
