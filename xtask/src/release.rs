//! `cargo xtask release`: one archive of what an installation consists of, to be unpacked below `~/.local`, and its checksum.
//!
//! Made of the same inputs it is the same bytes: names sorted, times and owners fixed.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::install::{self, Prefix};
use crate::packages::{self, Purpose};
use crate::progress::line;
use crate::workspace::{root, target};
use crate::{build, command, image};

/// The time of every file, in seconds since 1970: the archive says nothing about when it was made.
const TIME: &str = "@1700000000";

/// Documents that go with the programs.
const DOCUMENTS: [&str; 3] = ["LICENSE", "README.md", "CHANGELOG.md"];

/// Builds, gathers and packs everything.
///
/// # Errors
/// When a step fails; an archive is written under a temporary name first.
pub(crate) fn run() -> Result<ExitCode> {
    packages::ensure(&[Purpose::Image])?;
    let built = build::programs()?;
    let folder = target()?.join("release-archive");
    let stage = folder.join("stage");
    // A tree left by an interrupted run would be packed with this one.
    let _ = std::fs::remove_dir_all(&stage);
    let prefix = Prefix::staged(&stage);
    image::build(&image::Arguments::to(prefix.image()))?;
    install::install(&prefix, &built)?;
    let documents = stage.join("share/doc/testudo");
    std::fs::create_dir_all(&documents).context("cannot make the documents' folder")?;
    for name in DOCUMENTS {
        std::fs::copy(root().join(name), documents.join(name))
            .with_context(|| format!("cannot copy {name}"))?;
    }
    let name = format!("testudo-{}-x86_64.tar.zst", env!("CARGO_PKG_VERSION"));
    let new = folder.join(format!("{name}.new"));
    command::output(
        Command::new("tar")
            .args([
                "--zstd",
                "--sparse",
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "--mtime",
                TIME,
            ])
            .arg("--create")
            .arg("--file")
            .arg(&new)
            .arg("--directory")
            .arg(&stage)
            .arg("."),
    )
    .context("cannot pack the archive")?;
    let archive = folder.join(&name);
    std::fs::rename(&new, &archive).context("cannot name the archive")?;
    let sum = command::output(Command::new("sha256sum").arg(&name).current_dir(&folder))?;
    std::fs::write(folder.join(format!("{name}.sha256")), sum)
        .context("cannot write the checksum")?;
    line(&format!("the archive is {}", archive.display()));
    Ok(ExitCode::SUCCESS)
}
