//! Thins a tree to what its list keeps, and closes it: what links lead to, the interpreters of
//! scripts and the libraries of programs stay too. Anything missing is an error here, not a surprise
//! in the guest.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _};
use object::{Endianness, elf};

use super::list::{List, matches};
use super::tree::{Kind, Tree};

/// Where the dynamic linker of Debian's amd64 looks for libraries without being told.
const LIBRARY_FOLDERS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "usr/lib"];

/// Returns the part of `tree` that `list` keeps and whatever that needs. What `below` holds already
/// (a file system that this one will be laid over) counts as there and is not repeated.
///
/// # Errors
/// When a pattern keeps nothing, or a kept program needs something that is nowhere.
pub(super) fn thin(tree: &Tree, list: &List, below: &Tree) -> Result<Tree> {
    for pattern in &list.keep {
        if !tree.0.keys().any(|path| matches(pattern, path)) {
            bail!("`keep /{pattern}` keeps nothing");
        }
    }
    let mut wanted: Vec<String> = tree
        .0
        .keys()
        .filter(|path| list.keeps(path))
        .cloned()
        .collect();
    let mut kept = BTreeSet::new();
    while let Some(path) = wanted.pop() {
        if kept.contains(&path) {
            continue;
        }
        wanted.extend(needs(tree, below, &path).with_context(|| format!("/{path} cannot stay"))?);
        kept.insert(path);
    }
    let mut thinned = Tree::default();
    for path in kept {
        let node = &tree.0[&path];
        if below.0.get(&path) == Some(node) {
            continue;
        }
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if let Some(node) = tree.0.get(folder) {
                thinned
                    .0
                    .entry(folder.to_owned())
                    .or_insert_with(|| node.clone());
            }
        }
        thinned.put(&path, node.mode, node.kind.clone());
        thinned.0.insert(path, node.clone());
    }
    Ok(thinned)
}

/// Returns the paths of `tree` that the node at `path` does not work without.
fn needs(tree: &Tree, below: &Tree, path: &str) -> Result<Vec<String>> {
    match &tree.0[path].kind {
        Kind::Folder => Ok(Vec::new()),
        // A dangling link is the package's own business: some lead to places made at run time.
        Kind::Link(_) => Ok(tree.follow(path).unwrap_or_default()),
        Kind::File(content) if content.starts_with(&elf::ELFMAG) => {
            libraries(tree, below, path, content)
        }
        Kind::File(content) if content.starts_with(b"#!") && tree.0[path].mode & 0o111 != 0 => {
            let line = content[2..]
                .split(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            let program = line.split_whitespace().next().unwrap_or_default();
            Ok(find(tree, below, program)
                .with_context(|| format!("it needs {program}"))?
                .into_iter()
                .collect())
        }
        Kind::File(_) => Ok(Vec::new()),
    }
}

/// Returns the paths of the interpreter and the libraries that an ELF file names.
fn libraries(tree: &Tree, below: &Tree, path: &str, content: &[u8]) -> Result<Vec<String>> {
    let (interpreter, names) = needed(content)?;
    let own_folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    if let Some(interpreter) = interpreter {
        found.extend(find(tree, below, &interpreter)?);
    }
    for name in names {
        let folders = LIBRARY_FOLDERS.into_iter().chain([own_folder]);
        let place = folders
            .map(|folder| format!("{folder}/{name}"))
            .find(|place| tree.resolve(place).is_some() || below.resolve(place).is_some())
            .with_context(|| format!("it needs library {name}"))?;
        found.extend(find(tree, below, &place)?);
    }
    Ok(found)
}

/// Returns the links that `path` leads over and its end, all in `tree`; nothing when `below` has it.
///
/// # Errors
/// When neither has it.
fn find(tree: &Tree, below: &Tree, path: &str) -> Result<Vec<String>> {
    if below.resolve(path).is_some() {
        return Ok(Vec::new());
    }
    tree.follow(path)
        .with_context(|| format!("nothing has {path}"))
}

/// Reads the interpreter and the needed libraries out of an ELF file.
fn needed(content: &[u8]) -> Result<(Option<String>, Vec<String>)> {
    let file = ElfFile64::<Endianness>::parse(content).context("it is a broken ELF file")?;
    let (header, endian) = (file.elf_header(), file.endian());
    let mut interpreter = None;
    let mut names = Vec::new();
    for segment in header
        .program_headers(endian, content)
        .context("broken program headers")?
    {
        use object::read::elf::ProgramHeader as _;
        if let Some(path) = segment
            .interpreter(endian, content)
            .context("broken interpreter")?
        {
            interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    let sections = header
        .sections(endian, content)
        .context("broken sections")?;
    let Some((dynamic, strings)) = sections
        .dynamic(endian, content)
        .context("broken dynamic section")?
    else {
        return Ok((interpreter, names));
    };
    let strings = sections
        .strings(endian, content, strings)
        .context("broken string table")?;
    for entry in dynamic
        .iter()
        .filter(|entry| entry.tag32(endian) == Some(elf::DT_NEEDED))
    {
        let name = entry
            .string(endian, strings)
            .context("broken library name")?;
        names.push(String::from_utf8_lossy(name).into_owned());
    }
    Ok((interpreter, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(nodes: &[(&str, u32, Kind)]) -> Tree {
        let mut tree = Tree::default();
        for (path, mode, kind) in nodes {
            tree.put(path, *mode, kind.clone());
        }
        tree
    }

    fn script() -> Kind {
        Kind::File(b"#!/bin/sh -e\n".to_vec())
    }

    fn list(text: &str) -> List {
        List::parse(text).unwrap()
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.0.keys().map(String::as_str).collect()
    }

    #[test]
    fn scripts_keep_their_interpreter_and_links_their_target() {
        let full = tree(&[
            ("usr/bin/run", 0o755, script()),
            ("usr/bin/sh", 0o777, Kind::Link("dash".to_owned())),
            ("usr/bin/dash", 0o755, Kind::File(vec![])),
            ("usr/bin/perl", 0o755, Kind::File(vec![])),
        ]);
        let thinned = thin(&full, &list("keep /usr/bin/run"), &Tree::default()).unwrap();
        assert_eq!(
            paths(&thinned),
            [
                "usr",
                "usr/bin",
                "usr/bin/dash",
                "usr/bin/run",
                "usr/bin/sh"
            ]
        );
    }

    #[test]
    fn missing_interpreter_is_refused() {
        let full = tree(&[("usr/bin/run", 0o755, script())]);
        let error = thin(&full, &list("keep /usr/bin/run"), &Tree::default()).unwrap_err();
        assert!(
            format!("{error:#}").contains("/usr/bin/run cannot stay"),
            "{error:#}"
        );
    }

    #[test]
    fn pattern_that_keeps_nothing_is_refused() {
        assert!(
            thin(
                &Tree::default(),
                &list("keep /usr/bin/gone"),
                &Tree::default()
            )
            .is_err()
        );
    }

    #[test]
    fn what_lies_below_is_not_repeated() {
        let below = tree(&[("usr/bin/sh", 0o755, Kind::File(vec![]))]);
        let full = tree(&[("usr/bin/run", 0o755, script())]);
        let thinned = thin(&full, &list("keep /usr/bin/**"), &below).unwrap();
        assert_eq!(paths(&thinned), ["usr", "usr/bin", "usr/bin/run"]);
    }

    #[test]
    fn this_machines_own_shell_names_interpreter_and_libraries() {
        let (interpreter, names) = needed(&std::fs::read("/bin/bash").unwrap()).unwrap();
        assert!(interpreter.unwrap().contains("ld-linux"));
        assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
    }

    #[test]
    fn cut_elf_file_is_an_error() {
        let whole = std::fs::read("/bin/bash").unwrap();
        assert!(needed(&whole[..40]).is_err());
    }
}
