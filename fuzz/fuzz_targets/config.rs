//! No text makes the loader panic; what is refused says why; what is taken reads back from what `/config` shows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_gateway::config::{self, Source, Style};

fn load(text: &str) -> Result<config::Loaded, config::Problems> {
    config::load(&Source::Text { name: "fuzz.yaml".into(), text: text.into() })
}

fuzz_target!(|text: &str| {
    match load(text) {
        Ok(loaded) => {
            loaded.warnings.render(Style::Plain);
            let shown = config::redacted_yaml(&loaded.config);
            // A redacted URL may make two names one.
            if let Err(problems) = load(&shown) {
                assert!(text.contains('@'), "{problems}\n{shown}");
            }
        }
        Err(problems) => {
            assert!(problems.errors() > 0);
            assert!(!problems.to_string().is_empty() && !problems.render(Style::Coloured).is_empty());
        }
    }
});
