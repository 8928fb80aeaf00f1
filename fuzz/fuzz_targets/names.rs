//! Names and sizes as users type them: what is accepted is what the rules say, and prints as it was parsed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{Bytes, ContainerName, Mib};

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<ContainerName>() {
        assert_eq!(name.as_str(), text);
        assert!(!text.contains(['/', '.', '\0', '\n']), "a name is no path");
    }
    if let Ok(size) = text.parse::<Bytes>() {
        // Printing rounds down to a tenth of a unit; whole numbers of a unit come back as they were.
        let shown = size.to_string();
        assert!(
            shown.contains('.') || shown.parse::<Bytes>().is_ok(),
            "{shown}"
        );
    }
    let _ = text.parse::<Mib>();
});
