//! Reads a scalar as what the schema wants: a text of some format, a number, true or false.

use serde_json::Value as Json;

use super::{
    formats::{Wrong, check_of},
    problem::quoted,
    wanted::Kind,
};

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Plain,
    Quoted,
}

impl Kind<'_> {
    /// Reads a scalar as this kind; an error without a problem when it can not be a scalar at all.
    pub(super) fn read(&self, text: &str, written: Written) -> Result<Json, Option<Wrong>> {
        match self {
            Self::Text { format } => match format.and_then(check_of) {
                None => Ok(text.into()),
                Some(check) => match check(text) {
                    Ok(()) => Ok(text.into()),
                    Err(wrong) => Err(Some(wrong)),
                },
            },
            Self::Integer { min, max } | Self::Number { min, max } => {
                let whole = matches!(self, Self::Integer { .. });
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                let number = number.filter(|number| !whole || (number.fract() == 0.0 && is_digits(text)));
                let (name, between) = match (whole, max) {
                    (true, Some(max)) => ("a whole number", format!("write one from {min} to {max}")),
                    (true, None) => ("a whole number", format!("write one from {min} up")),
                    (false, Some(max)) => ("a number", format!("write one from {min} to {max}")),
                    (false, None) => ("a number", format!("write one from {min} up")),
                };
                match number {
                    Some(_) if written == Written::Quoted => Err(Some(Wrong::new(
                        format!("\"{text}\" is a text"),
                        format!("write {text} without quotes"),
                    ))),
                    None => Err(Some(Wrong::new(format!("{} is not {name}", quoted(text)), between))),
                    Some(number) if number < *min => {
                        Err(Some(Wrong::new(format!("{} is too small", quoted(text)), between)))
                    }
                    Some(number) if max.is_some_and(|max| number > max) => {
                        Err(Some(Wrong::new(format!("{} is too large", quoted(text)), between)))
                    }
                    Some(number) if whole => Ok((number as u64).into()),
                    Some(number) => Ok(number.into()),
                }
            }
            Self::Truth => match (written, text) {
                (Written::Plain, "true" | "True" | "TRUE") => Ok(true.into()),
                (Written::Plain, "false" | "False" | "FALSE") => Ok(false.into()),
                _ => {
                    let meant = match text.to_ascii_lowercase().as_str() {
                        "yes" | "on" | "y" | "1" | "true" => "write true",
                        "no" | "off" | "n" | "0" | "false" => "write false",
                        _ => "write true or false",
                    };
                    Err(Some(Wrong::new(format!("{} is not true or false", quoted(text)), meant)))
                }
            },
            Self::List(_) | Self::Map(_) | Self::Section(_) => Err(None),
        }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.strip_prefix('-').unwrap_or(text).bytes().all(|b| b.is_ascii_digit())
}
