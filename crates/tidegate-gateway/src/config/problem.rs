//! What is wrong with a configuration, and where, as one line each.

use std::{fmt, ops::Range, sync::Arc};

use tidegate::redacted_url;

/// Most problems that are shown. Default: 50.
pub(super) const MOST_SHOWN: usize = 50;

/// Whether a problem keeps the gateway from taking the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is refused.
    Error,
    /// It is taken.
    Warning,
}

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where, as bytes of the text; none when it is about the whole.
    pub span: Option<Range<usize>>,
    /// The setting, like `upstreams.orders.timeout`; empty for the whole.
    pub setting: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do; may be empty.
    pub remedy: String,
    /// A second place that explains the first.
    pub related: Option<(Range<usize>, &'static str)>,
}

impl Problem {
    /// Makes an error.
    pub(super) fn error(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span: None,
            setting: String::new(),
            message: message.into(),
            remedy: remedy.into(),
            related: None,
        }
    }

    /// Makes a warning.
    pub(super) fn warning(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message, remedy) }
    }

    /// Says where it is.
    pub(super) fn at(self, span: &Range<usize>) -> Self {
        Self { span: Some(span.clone()), ..self }
    }

    /// Says which setting it is about.
    pub(super) fn of(self, setting: impl Into<String>) -> Self {
        Self { setting: setting.into(), ..self }
    }

    /// Points at a second place.
    pub(super) fn see(self, span: &Range<usize>, why: &'static str) -> Self {
        Self { related: Some((span.clone(), why)), ..self }
    }
}

/// Everything wrong with one text, in the order of the text.
///
/// `Display` prints one line each: `file:line:column: setting: message; remedy`.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    pub(super) origin: String,
    pub(super) text: Arc<str>,
    list: Vec<Problem>,
}

impl Problems {
    /// Takes what is wrong with the text `text` that came from `origin`.
    pub(super) fn new(origin: &str, text: &str, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.span.as_ref().map_or((0, 0), |span| (span.start, span.end)));
        list.dedup();
        Self { origin: origin.to_owned(), text: text.into(), list }
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// How many are warnings.
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }

    /// The line and column of a place, both counted from 1, the column in characters.
    pub fn line_and_column(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(at.min(self.text.len()))];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.list.iter().take(MOST_SHOWN).enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.origin)?;
            if let Some(span) = &problem.span {
                let (line, column) = self.line_and_column(span.start);
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(match problem.severity {
                Severity::Error => " ",
                Severity::Warning => " warning: ",
            })?;
            if !problem.setting.is_empty() {
                write!(f, "{}: ", problem.setting)?;
            }
            f.write_str(&problem.message)?;
            if !problem.remedy.is_empty() {
                write!(f, "; {}", problem.remedy)?;
            }
        }
        match self.list.len().checked_sub(MOST_SHOWN) {
            Some(more) if more > 0 => write!(f, "\n{}: and {more} more", self.origin),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Problems {}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A value in backticks, at most 60 characters of it, with control characters escaped and passwords of URLs masked.
pub(super) fn quoted(text: &str) -> String {
    let text = redacted_url(text);
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push_str("...");
    }
    // A quotation mark needs no escape between backticks.
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
}
