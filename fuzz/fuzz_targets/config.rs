//! No text makes the loader panic; what is refused says why; what is taken reads back from what `/config` shows.
#![cfg_attr(fuzzing, no_main)]

use tidegate_gateway::config::{self, Source, Style};

fn load(text: &str) -> Result<config::Loaded, config::Problems> {
    config::load(&Source::Text { name: "fuzz.yaml".into(), text: text.into() })
}

fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match load(text) {
        Ok(loaded) => {
            loaded.warnings.render(Style::Plain);
            let shown = config::redacted_yaml(&loaded.config);
            // A redacted URL may make two names one.
            if let Err(problems) = load(&shown) {
                assert!(text.contains('@'), "{problems}\n{shown}\nis what is shown of\n{text:?}");
            }
        }
        Err(problems) => {
            assert!(problems.errors() > 0);
            assert!(!problems.to_string().is_empty() && !problems.render(Style::Coloured).is_empty());
        }
    }
}

tidegate_fuzz::target!(config);
