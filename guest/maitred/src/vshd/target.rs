//! What a session runs and as whom, worked out from its setup and the container's own files.

use std::collections::BTreeMap;
use std::path::Path;

use wire::proto::{VshSetup, VshWindow};
use wire::{ContainerName, Fault, Kind};

use super::locale;
use crate::container::{Account, Config, Containers, Live, Rootfs};
use crate::fault::OrFault;

/// Arguments, variables and their bytes that a host may send: below the kernel's own limits, far above use.
const WORDS_MAX: usize = 4096;
const WORD_MAX: usize = 128 << 10;

/// What every distribution has its programs in.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where containers find our programs, after all of their own.
const OUR_PATH: &str = "/opt/testudo/bin";

/// The name of the socket of Wayland clients in the runtime directory.
pub(super) const WAYLAND_SOCKET: &str = "wayland-0";

/// A command ready to be started.
#[derive(Debug)]
pub(super) struct Target {
    /// The container to start it in, with the id in the VM of the container's id 0; `None` for the VM itself.
    pub(super) container: Option<(Live, u32)>,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) program: String,
    /// The first word is what the program is told that it is called.
    pub(super) words: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) directory: Directory,
    /// Set: on a terminal of this size.
    pub(super) window: Option<VshWindow>,
    /// It is the person that the container is for, whose windows the host shows.
    pub(super) has_desktop: bool,
}

/// Where the command starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Directory {
    /// The host said so; it must be there.
    Wanted(String),
    /// Home; `/` when there is none.
    Home(String),
}

impl Target {
    /// Works out what `setup` means.
    pub(super) fn of(setup: VshSetup, containers: &Containers) -> Result<Self, Fault> {
        check(&setup)?;
        if setup.container.is_empty() {
            return Self::in_vm(setup);
        }
        let name: ContainerName = setup.container.parse().map_err(|error| {
            Fault::new(Kind::Invalid, "E-NAME", "the container's name is not one").because(&error)
        })?;
        let home = containers.home(&name);
        if !home.exists() {
            return Err(crate::container::missing(&name));
        }
        let live = Live::find(&home).ok_or_else(|| {
            let message = format!("container {name} is not running");
            Fault::new(Kind::Busy, "E-CONTAINER-STOPPED", message)
                .hint(format!("testudo start {name}"))
        })?;
        let config = home.config()?;
        let unreadable = || format!("cannot look into container {name}");
        let rootfs = Rootfs::open(&live.root()).or_fault("E-SESSION", unreadable)?;
        let first_id = config.first_id();
        let target = Self::in_rootfs(setup, &config, &rootfs)?;
        Ok(Self {
            container: Some((live, first_id)),
            ..target
        })
    }

    fn in_vm(setup: VshSetup) -> Result<Self, Fault> {
        let root = Rootfs::open(Path::new("/"))
            .or_fault("E-SESSION", || "cannot look at the VM's files".to_owned())?;
        let account = find(
            &root,
            if setup.user.is_empty() {
                "root"
            } else {
                &setup.user
            },
        )?;
        let groups = account.groups(&root);
        let environment = basics(&account);
        Ok(Self::new(setup, account, groups, environment))
    }

    fn in_rootfs(mut setup: VshSetup, config: &Config, rootfs: &Rootfs) -> Result<Self, Fault> {
        let own = config
            .user
            .as_ref()
            .map_or("root", |user| user.name.as_str());
        let account = find(
            rootfs,
            if setup.user.is_empty() {
                own
            } else {
                &setup.user
            },
        )?;
        let groups = account.groups(rootfs);
        let mut environment = basics(&account);
        environment.insert("PATH".to_owned(), format!("{PATH}:{OUR_PATH}"));
        environment.extend(desktop(account.uid));
        environment.extend(config.environment.iter().cloned());
        environment.extend(locale::known(rootfs, std::mem::take(&mut setup.locale)));
        let has_desktop = account.uid == config.user.as_ref().map_or(0, |user| user.uid);
        let target = Self::new(setup, account, groups, environment);
        Ok(Self {
            has_desktop,
            ..target
        })
    }

    fn new(
        setup: VshSetup,
        account: Account,
        groups: Vec<u32>,
        mut environment: BTreeMap<String, String>,
    ) -> Self {
        let (program, words) = match setup.argv.first() {
            Some(program) => (program.clone(), setup.argv),
            None => {
                let name = account.shell.rsplit('/').next().unwrap_or_default();
                // By this name a shell knows that it is a login shell (bash(1), dash(1)).
                let name = format!("-{name}");
                (account.shell, vec![name])
            }
        };
        let directory = if setup.directory.is_empty() {
            Directory::Home(account.home)
        } else {
            Directory::Wanted(setup.directory)
        };
        environment.extend(setup.environment);
        let (uid, gid) = (account.uid, account.gid);
        let window = setup.window;
        let container = None;
        Self {
            container,
            uid,
            gid,
            groups,
            program,
            words,
            environment,
            directory,
            window,
            has_desktop: false,
        }
    }
}

/// Refuses what the kernel could not take anyway.
fn check(setup: &VshSetup) -> Result<(), Fault> {
    let variables = setup.environment.iter().chain(&setup.locale);
    let named = variables
        .clone()
        .all(|(name, _)| !name.is_empty() && !name.contains('='));
    let mut words: Vec<&String> = setup.argv.iter().collect();
    words.extend(variables.flat_map(|(name, value)| [name, value]));
    words.extend([&setup.directory, &setup.user]);
    let fits = words.len() <= WORDS_MAX;
    let whole = words
        .iter()
        .all(|word| word.len() < WORD_MAX && !word.contains('\0'));
    let program = setup.argv.first().is_none_or(|program| !program.is_empty());
    if named && fits && whole && program {
        return Ok(());
    }
    let message = "the session's words or variables cannot be passed to a program";
    Err(Fault::new(Kind::Invalid, "E-SESSION", message))
}

fn find(rootfs: &Rootfs, name: &str) -> Result<Account, Fault> {
    Account::find(rootfs, name).ok_or_else(|| {
        Fault::new(
            Kind::NotFound,
            "E-USER-NOTFOUND",
            format!("there is no user {name:?}"),
        )
    })
}

/// What login(1) would set.
fn basics(account: &Account) -> BTreeMap<String, String> {
    let pairs = [
        ("HOME", account.home.as_str()),
        ("USER", &account.name),
        ("LOGNAME", &account.name),
        ("SHELL", &account.shell),
        ("PATH", PATH),
        ("LANG", "C.UTF-8"),
        ("TERM", "xterm-256color"),
    ];
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Where a desktop program finds its sockets, and what toolkits must be told. The names are fixed, so they are right before
/// anyone serves them.
fn desktop(uid: u32) -> [(String, String); 8] {
    let runtime = format!("/run/user/{uid}");
    let bus = format!("unix:path={runtime}/bus");
    [
        ("DBUS_SESSION_BUS_ADDRESS", bus.as_str()),
        ("XDG_RUNTIME_DIR", &runtime),
        ("WAYLAND_DISPLAY", WAYLAND_SOCKET),
        ("DISPLAY", ":0"),
        ("container", "lxc"),
        // Java draws into nothing under window managers that do not reparent, unless told.
        ("_JAVA_AWT_WM_NONREPARENTING", "1"),
        // GTK and Electron then speak text-input-v3 to the host's input method themselves.
        ("GTK_IM_MODULE", "wayland"),
        ("ELECTRON_OZONE_PLATFORM_HINT", "auto"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rootfs() -> (tempfile::TempDir, Rootfs) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/usr/bin/zsh\n";
        std::fs::write(folder.path().join("etc/passwd"), passwd).unwrap();
        let rootfs = Rootfs::open(folder.path()).unwrap();
        (folder, rootfs)
    }

    fn config() -> Config {
        let json = r#"{"number":10,"user":{"name":"ada","uid":1000,"gid":1000},"created_s":0,
            "start_on_boot":false,"environment":[["PATH","/opt/go"]],"subvolumes":[]}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn nothing_asked_for_is_a_login_shell_of_the_containers_user() {
        let (_folder, rootfs) = rootfs();
        let target = Target::in_rootfs(VshSetup::default(), &config(), &rootfs).unwrap();
        assert_eq!(
            (target.uid, target.program.as_str()),
            (1000, "/usr/bin/zsh")
        );
        assert_eq!(target.words, ["-zsh"]);
        assert_eq!(target.directory, Directory::Home("/home/ada".to_owned()));
        let variable = |name: &str| target.environment[name].as_str();
        assert_eq!(variable("XDG_RUNTIME_DIR"), "/run/user/1000");
        assert_eq!(
            variable("DBUS_SESSION_BUS_ADDRESS"),
            "unix:path=/run/user/1000/bus"
        );
        assert_eq!((variable("USER"), variable("DISPLAY")), ("ada", ":0"));
        assert!(target.has_desktop);
        assert_eq!(variable("PATH"), "/opt/go");
    }

    #[test]
    fn what_the_host_sets_wins() {
        let (_folder, rootfs) = rootfs();
        let setup = VshSetup {
            user: "root".to_owned(),
            argv: vec!["id".to_owned(), "-u".to_owned()],
            environment: [("PATH".to_owned(), "/bin".to_owned())].into(),
            directory: "/srv".to_owned(),
            ..VshSetup::default()
        };
        let target = Target::in_rootfs(setup, &config(), &rootfs).unwrap();
        assert_eq!((target.uid, target.program.as_str()), (0, "id"));
        assert!(!target.has_desktop);
        assert_eq!(target.words, ["id", "-u"]);
        assert_eq!(target.environment["PATH"], "/bin");
        assert_eq!(target.directory, Directory::Wanted("/srv".to_owned()));
    }

    #[test]
    fn words_that_no_program_could_get_are_refused() {
        let argv = |word: &str| VshSetup {
            argv: vec![word.to_owned()],
            ..VshSetup::default()
        };
        let variable = |name: &str| VshSetup {
            environment: [(name.to_owned(), String::new())].into(),
            ..VshSetup::default()
        };
        let many = VshSetup {
            argv: vec!["x".to_owned(); WORDS_MAX + 1],
            ..VshSetup::default()
        };
        for bad in [argv("a\0b"), argv(""), argv(&"x".repeat(WORD_MAX)), many] {
            assert!(check(&bad).is_err());
        }
        assert!(check(&variable("A=B")).is_err() && check(&variable("")).is_err());
        assert!(check(&argv("ok")).is_ok() && check(&variable("A")).is_ok());
    }

    #[test]
    fn an_unknown_user_is_said() {
        let (_folder, rootfs) = rootfs();
        let setup = VshSetup {
            user: "eve".to_owned(),
            ..VshSetup::default()
        };
        let fault = Target::in_rootfs(setup, &config(), &rootfs).unwrap_err();
        assert_eq!(fault.parts().code, "E-USER-NOTFOUND");
    }
}
