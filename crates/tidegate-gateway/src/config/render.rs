//! How problems are shown to people: the line, a caret under the text, the remedy, as compilers do.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{
    mask::masked,
    problem::{MOST_SHOWN, Problem, Problems, Severity},
};

/// Whether a rendering may use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// ANSI colours.
    Coloured,
}

/// A place to show and what to say about it.
struct Mark<'a> {
    kind: AnnotationKind,
    span: &'a Range<usize>,
    label: &'a str,
}

impl Problems {
    /// Shows every problem with the line it stands on, a caret under the text and the remedy. Secrets are masked.
    pub fn render(&self, style: Style) -> String {
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        };
        let text = masked(&self.text);
        let mut shown = String::new();
        for problem in self.iter().take(MOST_SHOWN) {
            shown.push_str(&renderer.render(&[self.group(problem, &text)]));
            shown.push_str("\n\n");
        }
        if let Some(more) = self.iter().len().checked_sub(MOST_SHOWN).filter(|more| *more > 0) {
            shown.push_str(&format!("and {more} more\n\n"));
        }
        shown
    }

    fn group<'a>(&'a self, problem: &'a Problem, text: &'a str) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.message.as_str());
        let group = match &problem.span {
            None => title.element(Origin::path(self.origin.as_str())),
            Some(span) => {
                let mut marks = vec![Mark { kind: AnnotationKind::Primary, span, label: &problem.setting }];
                marks.extend(problem.related.as_ref().map(|(span, label)| Mark {
                    kind: AnnotationKind::Context,
                    span,
                    label,
                }));
                title.element(snippet(text, &marks).path(self.origin.as_str()))
            }
        };
        match problem.remedy.as_str() {
            "" => group,
            remedy => group.element(Level::HELP.message(remedy)),
        }
    }
}

/// Shows the lines of `marks`. A mark that goes on over several lines ends with its first.
fn snippet<'a>(text: &'a str, marks: &[Mark<'a>]) -> Snippet<'a, Annotation<'a>> {
    let lines = marks.iter().map(|mark| line_of(text, mark.span.start));
    let shown = lines.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or_default();
    let annotations = marks.iter().map(|mark| {
        let line = line_of(text, mark.span.start);
        let start = text.floor_char_boundary(mark.span.start).clamp(line.start, line.end);
        let end = text.floor_char_boundary(mark.span.end).clamp(start, line.end);
        let end = start + text[start..end].trim_end().len();
        mark.kind.span(start - shown.start..end - shown.start).label(mark.label)
    });
    Snippet::source(&text[shown.clone()])
        .line_start(text[..shown.start].matches('\n').count() + 1)
        .annotations(annotations)
}

/// The line that holds `at`, without its end.
fn line_of(text: &str, at: usize) -> Range<usize> {
    let at = text.floor_char_boundary(at);
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    start..start + text[start..end].trim_end_matches('\r').len()
}
