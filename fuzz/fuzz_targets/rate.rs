//! Any text, read as a rate.
#![cfg_attr(fuzzing, no_main)]

use tidegate_core::{MAX_PERIOD, Rate};

fn rate(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<Rate>() {
        Ok(rate) => {
            assert!(rate.period() <= MAX_PERIOD && !rate.period().is_zero());
            assert_eq!(rate.to_string().parse(), Ok(rate), "{text:?} prints as {rate}");
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

tidegate_fuzz::target!(rate);
