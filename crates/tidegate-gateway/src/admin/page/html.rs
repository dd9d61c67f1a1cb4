//! HTML as it is written: markup is `'static`, everything else is escaped.

use std::fmt::{Display, Write};

#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup of our own.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// A text, whatever it is.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        let mut escaped = Escaped(&mut self.0);
        write!(escaped, "{text}").expect("writing to a string does not fail");
        self
    }

    /// A bar of `part` in `whole`, which turns warm at three quarters and full at the whole.
    pub(super) fn bar(&mut self, part: u64, whole: u64) -> &mut Self {
        let percent = part.saturating_mul(100).checked_div(whole).unwrap_or(0).min(100);
        // A little is shown, and is not nothing.
        let width = if part > 0 { percent.max(1) } else { 0 };
        let class = match percent {
            0..75 => "bar",
            75..100 => "bar warm",
            _ => "bar full",
        };
        self.raw("<div class=\"").raw(class).raw("\"><i style=\"width:").text(width).raw("%\"></i></div>")
    }

    pub(super) fn pill(&mut self, class: &'static str, text: impl Display) -> &mut Self {
        self.raw("<span class=\"pill ").raw(class).raw("\">").text(text).raw("</span>")
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                _ => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// A count with thin spaces between thousands, which neither locale nor copying breaks.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// A span of time in the unit that suits it.
pub(crate) fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    match seconds {
        ..=0.0 => "0".into(),
        ..0.001 => format!("{:.0} µs", seconds * 1e6),
        ..0.1 => format!("{:.1} ms", seconds * 1e3),
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        ..60.0 => format!("{seconds:.1} s"),
        ..3600.0 => format!("{} m {} s", whole / 60, whole % 60),
        ..86_400.0 => format!("{} h {} m", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

/// Bytes in the unit that suits them.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(
            (count(0), count(999), count(1_234_567)),
            ("0".into(), "999".into(), "1\u{2009}234\u{2009}567".into())
        );
        for (seconds, text) in [
            (0.0, "0"),
            (0.000_25, "250 µs"),
            (0.003_1, "3.1 ms"),
            (0.25, "250 ms"),
            (1.5, "1.5 s"),
            (61.0, "1 m 1 s"),
            (7_260.0, "2 h 1 m"),
            (93_784.0, "1 d 2 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(
            (bytes(512), bytes(1536), bytes(5 << 30)),
            ("512 B".into(), "1.5 KiB".into(), "5.0 GiB".into())
        );
    }

    #[test]
    fn texts_cannot_become_markup() {
        let mut html = Html::default();
        html.text("<script>\"&'</script>");
        assert_eq!(html.finish(), "&lt;script&gt;&quot;&amp;&#39;&lt;/script&gt;");
    }
}
