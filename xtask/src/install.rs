//! `cargo xtask install`: programs, names, manual pages, completion, user units and the image into the user's own folders, or
//! into a tree as a distribution's package has it.
//!
//! Nothing is enabled: where systemd's user manager runs, the socket unit can be started by whoever wants it; without it the
//! clients start the daemon themselves. Every file is written under a temporary name and renamed, so a running program is
//! never half replaced.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::progress::line;
use crate::{build, command, image};

/// Starts the daemon when a client connects.
const SOCKET_UNIT: &str = "testudo-concierge.socket";

/// The daemon, with the manager's own cgroup to put its children in.
const SERVICE_UNIT: &str = "testudo-concierge.service";

/// Shells that have a folder for completions of their own, and their names for the files there. One script knows all
/// programs: bash and fish look for it under the name that is being typed, zsh in the first line of every file.
const SHELLS: [(&str, &[&str]); 3] = [
    (
        "bash",
        &[
            "bash-completion/completions/testudo",
            "bash-completion/completions/vmc",
            "bash-completion/completions/vsh",
            "bash-completion/completions/crosh",
        ],
    ),
    ("zsh", &["zsh/site-functions/_testudo"]),
    (
        "fish",
        &[
            "fish/vendor_completions.d/testudo.fish",
            "fish/vendor_completions.d/vmc.fish",
            "fish/vendor_completions.d/vsh.fish",
            "fish/vendor_completions.d/crosh.fish",
        ],
    ),
];

/// Where the programs are, as the units of a user's own installation say it.
const USERS: &str = "%h/.local";

/// Installs programs, image, manual pages, completion and user units below ~/.local.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install for all users, below this folder's usr, as a distribution's package does
    #[arg(long, value_name = "FOLDER")]
    destdir: Option<PathBuf>,
}

/// Where an installation lies.
pub(crate) struct Prefix {
    /// `~/.local`, or `usr` of a package's tree.
    root: PathBuf,
    /// The root, as it will be called where the programs run.
    called: &'static str,
    /// `$XDG_DATA_HOME`.
    data: PathBuf,
    /// systemd's folder of user units.
    units: PathBuf,
}

impl Prefix {
    /// Returns the folders of the user that runs this.
    ///
    /// # Errors
    /// Without a home folder.
    pub(crate) fn of_user() -> Result<Self> {
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = absolute("HOME").context("HOME is not set")?;
        let root = home.join(".local");
        Ok(Self {
            called: USERS,
            data: absolute("XDG_DATA_HOME").unwrap_or_else(|| root.join("share")),
            units: absolute("XDG_CONFIG_HOME")
                .unwrap_or_else(|| home.join(".config"))
                .join("systemd/user"),
            root,
        })
    }

    /// Returns the folders of all users below `destdir`.
    fn packaged(destdir: &Path) -> Self {
        let root = destdir.join("usr");
        Self {
            called: "/usr",
            data: root.join("share"),
            units: root.join("lib/systemd/user"),
            root,
        }
    }

    /// Returns the same folders below `stage`, as an archive has them that is unpacked below `~/.local`.
    pub(crate) fn staged(stage: &Path) -> Self {
        let data = stage.join("share");
        Self {
            root: stage.to_owned(),
            called: USERS,
            units: data.join("systemd/user"),
            data,
        }
    }

    /// Returns the folder of the names that people type.
    pub(crate) fn names(&self) -> PathBuf {
        self.root.join("bin")
    }

    fn programs(&self) -> PathBuf {
        self.root.join("lib/testudo")
    }

    /// Returns where the image goes.
    pub(crate) fn image(&self) -> PathBuf {
        self.data.join("testudo/image")
    }
}

/// Builds what is missing and installs everything.
///
/// # Errors
/// When a step fails; what was installed before stays usable.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let prefix = match &arguments.destdir {
        Some(folder) => Prefix::packaged(folder),
        None => Prefix::of_user()?,
    };
    image::build(&image::Arguments::to(prefix.image()))?;
    install(&prefix, &build::programs()?)?;
    if arguments.destdir.is_none() {
        say_path(&prefix.names());
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs the programs in `built` below `prefix`; the image is put in place by its own chore.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn install(prefix: &Prefix, built: &Path) -> Result<()> {
    let programs = prefix.programs();
    for program in build::PROGRAMS {
        place(&built.join(program), &programs.join(program))?;
    }
    for name in ["testudo"].iter().chain(build::NAMES) {
        link(
            Path::new("../lib/testudo/testudo"),
            &prefix.names().join(name),
        )?;
    }
    install_pages(prefix, &programs.join("testudo"))?;
    install_units(prefix)?;
    line(&format!("installed in {}", prefix.names().display()));
    Ok(())
}

/// Says so where the names are not found by a shell.
pub(crate) fn say_path(names: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder == names) {
        line(&format!(
            "{} is not in PATH; add it to type `testudo` anywhere",
            names.display()
        ));
    }
}

fn install_pages(prefix: &Prefix, testudo: &Path) -> Result<()> {
    let pages = prefix.root.join("share/man/man1");
    make(&pages)?;
    command::output(Command::new(testudo).arg("man").arg(&pages))
        .context("cannot write the manual pages")?;
    for (shell, paths) in SHELLS {
        let script = command::output(Command::new(testudo).args(["completions", shell]))
            .with_context(|| format!("cannot make the completion for {shell}"))?;
        for path in paths {
            write(&prefix.data.join(path), &script)?;
        }
    }
    Ok(())
}

fn install_units(prefix: &Prefix) -> Result<()> {
    let socket = include_str!("install/testudo-concierge.socket");
    write(&prefix.units.join(SOCKET_UNIT), socket)?;
    let service = include_str!("install/testudo-concierge.service");
    let service = service.replace(USERS, prefix.called);
    write(&prefix.units.join(SERVICE_UNIT), &service)
}

/// Puts a copy of `from` at `to`, whole or not at all.
fn place(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file lies in a folder")?;
    make(folder)?;
    let new = with_ending(to, ".new");
    command::output(
        Command::new("cp")
            .args(["--sparse=always", "--reflink=auto", "--force"])
            .arg(from)
            .arg(&new),
    )
    .with_context(|| format!("cannot copy {}", from.display()))?;
    fs::rename(&new, to).with_context(|| format!("cannot put {} in place", to.display()))
}

fn write(to: &Path, text: &str) -> Result<()> {
    make(to.parent().context("a file lies in a folder")?)?;
    let new = with_ending(to, ".new");
    fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, to).with_context(|| format!("cannot put {} in place", to.display()))
}

fn link(target: &Path, name: &Path) -> Result<()> {
    make(name.parent().context("a link lies in a folder")?)?;
    let new = with_ending(name, ".new");
    // One may be left from an interrupted run; that it is missing is the usual case.
    let _ = fs::remove_file(&new);
    symlink(target, &new).with_context(|| format!("cannot link {}", new.display()))?;
    fs::rename(&new, name).with_context(|| format!("cannot put {} in place", name.display()))
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_name_the_programs_where_they_will_be() {
        let folder = tempfile::tempdir().unwrap();
        let prefixes = [
            (
                Prefix::packaged(folder.path()),
                "usr/lib/systemd/user",
                "/usr",
            ),
            (
                Prefix::staged(folder.path()),
                "share/systemd/user",
                "%h/.local",
            ),
        ];
        for (prefix, units, root) in prefixes {
            install_units(&prefix).unwrap();
            let unit = folder.path().join(units).join(SERVICE_UNIT);
            let text = fs::read_to_string(unit).unwrap();
            assert!(
                text.contains(&format!("\nExecStart={root}/lib/testudo/concierge\n")),
                "{text}"
            );
        }
    }
}
