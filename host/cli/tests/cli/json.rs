//! docs/json.md shows what `--json` prints: each of its examples is run here and compared.

use std::path::Path;

use serde_json::Value;

use crate::desk::Desk;

/// A command of the page and the lines that it is said to print.
struct Example {
    command: Vec<String>,
    lines: Vec<Value>,
}

/// Returns the examples: code blocks that begin with `$ ` and a command.
fn examples(page: &str) -> Vec<Example> {
    let blocks = page.split("```").skip(1).step_by(2);
    let examples = blocks.filter_map(|block| {
        let (command, output) = block.split_once("$ ")?.1.split_once('\n')?;
        let lines = output
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        Some(Example {
            command: command.split_whitespace().map(str::to_owned).collect(),
            lines: lines.collect(),
        })
    });
    examples.collect()
}

#[test]
fn the_pages_examples_are_what_is_printed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md");
    let page = std::fs::read_to_string(path).unwrap();
    let examples = examples(&page);
    assert!(examples.len() >= 12, "the page has lost its examples");
    for Example { command, lines } in examples {
        let desk = Desk::new();
        let arguments: Vec<_> = command[1..].iter().map(String::as_str).collect();
        let shown = desk.run(&command[0], &arguments);
        let printed = if shown.stdout.is_empty() {
            &shown.stderr
        } else {
            shown.text()
        };
        let printed: Vec<Value> = printed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(printed, lines, "{command:?}");
    }
}

#[test]
fn every_line_says_its_version_and_type() {
    let desk = Desk::new();
    for arguments in [
        &["testudo", "list"][..],
        &["testudo", "top", "--once"],
        &["testudo", "doctor"],
        &["testudo", "default"],
        &["testudo", "version"],
        &["testudo", "start", "dev"],
        &["testudo", "info", "gone"],
        &["vmc", "set", "lab", "cpus=1"],
        &["vmc", "stop", "termina"],
    ] {
        let shown = desk.run(arguments[0], &[&arguments[1..], &["--json"]].concat());
        let lines = shown.text().lines().chain(shown.stderr.lines());
        let lines: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(!lines.is_empty(), "{arguments:?} printed nothing");
        for line in lines {
            assert!(
                line["version"] == 1 && line["type"].is_string(),
                "{arguments:?}: {line}"
            );
        }
    }
}
