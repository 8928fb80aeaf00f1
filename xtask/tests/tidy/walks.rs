//! The walks of docs/walks.md are true and stay short: each file exists and holds the word that the walk follows there,
//! in at most eight files.

use crate::links::in_backticks;
use crate::{none, tree};

/// What a newcomer holds in the head at once.
const FILES_MAX: usize = 8;

#[test]
fn walks_are_true_and_short() {
    let text = std::fs::read_to_string(tree::root().join("docs/walks.md")).unwrap();
    let mut offences = Vec::new();
    let mut walks = 0;
    for section in text.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        // A step is `path:word`; the text around it is for people.
        let steps: Vec<_> = in_backticks(section).into_iter().filter_map(step).collect();
        walks += 1;
        let mut files: Vec<_> = steps.iter().map(|(path, _)| path).collect();
        files.sort();
        files.dedup();
        if files.is_empty() || files.len() > FILES_MAX {
            offences.push(format!("{title}: {} files", files.len()));
        }
        for (path, word) in &steps {
            let there = std::fs::read_to_string(tree::root().join(path))
                .is_ok_and(|text| text.contains(word));
            if !there {
                offences.push(format!("{title}: {path} does not hold {word}"));
            }
        }
    }
    assert!(walks > 0, "docs/walks.md has no walk");
    none("walks are wrong or long", &offences);
}

/// Splits `path:word`; other words in backticks are no steps.
fn step(text: &str) -> Option<(&str, &str)> {
    let (path, word) = text.split_once(':')?;
    (path.ends_with(".rs") || path.ends_with(".proto")).then_some((path, word))
}
