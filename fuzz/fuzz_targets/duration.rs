//! Any text, read as a duration, a size and a rate.
#![cfg_attr(fuzzing, no_main)]

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use tidegate_core::Rate;
use tidegate_gateway::config::{ByteSize, HumanDuration};

fn duration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    reads_back::<HumanDuration>(text);
    reads_back::<ByteSize>(text);
    reads_back::<Rate>(text);
}

fn reads_back<T: FromStr<Err: Display> + Display + Debug + PartialEq>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let printed = value.to_string();
            assert_eq!(printed.parse().ok(), Some(value), "{text:?} prints as {printed}");
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

tidegate_fuzz::target!(duration);
