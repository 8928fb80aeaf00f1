//! Disks made, grown, exported, imported and spoiled in a temporary folder.

use std::os::unix::fs::FileExt;

use super::*;

const SETTINGS_OF_TEST: Settings = Settings {
    cpus: 2,
    memory: Mib(512),
    created_s: 7,
    clipboard: Modes {
        to_guest: spec::windows::Mode::OnFocus,
        to_host: spec::windows::Mode::Off,
    },
};

struct Place {
    root: tempfile::TempDir,
    template: File,
}

impl Place {
    /// A template of 64 MiB with data at its start, in its middle and at its end.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("template");
        let mut options = OpenOptions::new();
        let template = options
            .create_new(true)
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        template.set_len(64 << 20).unwrap();
        for offset in [0, 32 << 20, (64 << 20) - 4096] {
            template.write_all_at(&[7; 4096], offset).unwrap();
        }
        Self { root, template }
    }

    fn folder(&self, name: &str) -> Folder {
        Folder::new(self.root.path().join("vms"), name.parse().unwrap())
    }

    fn created(&self, name: &str) -> Folder {
        let folder = self.folder(name);
        folder
            .create(&self.template, Bytes(2 << 30), &SETTINGS_OF_TEST)
            .unwrap();
        folder
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.root.path().join("vms"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn exported(folder: &Folder) -> Vec<u8> {
    let mut file = Vec::new();
    let disk = folder.disk().unwrap();
    export::write(
        &disk,
        folder.name.clone(),
        SETTINGS_OF_TEST,
        "build".into(),
        &mut file,
    )
    .unwrap();
    file
}

fn import_of(folder: &Folder, file: &[u8]) -> Result<(), Fault> {
    import::read(folder, file, |_, _| {}).map_err(|error| error.fault(folder))
}

#[test]
fn a_created_disk_has_the_templates_data_and_the_wanted_size() {
    let place = Place::new();
    let folder = place.created("one");
    let (size, on_host) = folder.sizes();
    assert_eq!(size, Bytes(2 << 30));
    assert!(on_host.0 < 1 << 20, "{on_host} are taken on the host");
    let mut block = [0; 4096];
    folder
        .disk()
        .unwrap()
        .read_exact_at(&mut block, 32 << 20)
        .unwrap();
    assert_eq!(block, [7; 4096]);
    assert_eq!(folder.settings().unwrap(), SETTINGS_OF_TEST);
    assert_eq!(place.names(), ["one"]);
}

#[test]
fn creating_twice_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let folder = place.created("one");
    let again = folder.create(&place.template, Bytes(2 << 30), &SETTINGS_OF_TEST);
    assert_eq!(again.unwrap_err().parts().code, "E-VM-EXISTS");
    assert_eq!(place.names(), ["one"]);
}

#[test]
fn sizes_that_no_disk_has_are_refused() {
    let place = Place::new();
    let folder = place.created("one");
    for (size, code) in [
        (1 << 20, "E-DISK-SIZE"),
        (u64::MAX, "E-DISK-SIZE"),
        ((3 << 30) + 1, "E-DISK-SIZE"),
    ] {
        assert_eq!(folder.grow(Bytes(size)).unwrap_err().parts().code, code);
    }
    let shrunk = folder.grow(Bytes(1 << 30)).unwrap_err();
    assert_eq!(shrunk.parts().causes, ["it is 2G now, and disks only grow"]);
    folder.grow(Bytes(3 << 30)).unwrap();
    assert_eq!(folder.sizes().0, Bytes(3 << 30));
}

#[test]
fn space_that_is_not_there_is_refused_with_figures() {
    let place = Place::new();
    let fault = place.folder("one").check_space(Bytes(1 << 60)).unwrap_err();
    assert_eq!(fault.parts().code, "E-HOST-DISK-FULL");
    assert!(
        fault.parts().causes[0].contains("are free in"),
        "{:?}",
        fault.parts().causes
    );
}

#[test]
fn a_lock_is_held_by_one() {
    let place = Place::new();
    let folder = place.created("one");
    let first = folder.lock().unwrap();
    assert_eq!(folder.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(first);
    folder.lock().unwrap();
}

#[test]
fn what_was_left_unfinished_is_swept() {
    let place = Place::new();
    place.created("one");
    let vms = place.root.path().join("vms");
    std::fs::create_dir(vms.join(".new-two")).unwrap();
    std::fs::create_dir(vms.join(".gone-three")).unwrap();
    assert_eq!(sweep(&vms), ["one".parse().unwrap()]);
    assert_eq!(place.names(), ["one"]);
}

#[test]
fn a_destroyed_vm_leaves_nothing() {
    let place = Place::new();
    let folder = place.created("one");
    folder.destroy().unwrap();
    assert!(!folder.exists());
    assert!(place.names().is_empty());
}

#[test]
fn an_export_comes_back_bit_for_bit() {
    let place = Place::new();
    let folder = place.created("one");
    let file = exported(&folder);
    assert!(
        file.len() < 8192,
        "holes were written: {} bytes",
        file.len()
    );
    let copy = place.folder("two");
    import_of(&copy, &file).unwrap();
    assert_eq!(copy.sizes().0, folder.sizes().0);
    let (one, two) = (folder.disk().unwrap(), copy.disk().unwrap());
    let ranges = extents(&one, 2 << 30).unwrap();
    assert_eq!(extents(&two, 2 << 30).unwrap(), ranges);
    for range in ranges {
        let count = usize::try_from(range.end - range.start).unwrap();
        let (mut left, mut right) = (vec![0; count], vec![0; count]);
        one.read_exact_at(&mut left, range.start).unwrap();
        two.read_exact_at(&mut right, range.start).unwrap();
        assert_eq!(left, right);
    }
    assert_eq!(copy.settings().unwrap().memory, Mib(512));
}

#[test]
fn a_truncated_export_is_refused_wherever_it_ends() {
    let place = Place::new();
    let file = exported(&place.created("one"));
    for length in (0..file.len()).step_by(61).chain([file.len() - 1]) {
        let fault = import_of(&place.folder("two"), &file[..length]).unwrap_err();
        assert_eq!(fault.parts().code, "E-IMPORT-DAMAGED", "cut at {length}");
        assert_eq!(place.names(), ["one"], "cut at {length}");
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let place = Place::new();
    let file = exported(&place.created("one"));
    for at in (0..file.len()).step_by(37) {
        let mut spoilt = file.clone();
        spoilt[at] ^= 0x10;
        if let Err(fault) = import_of(&place.folder("two"), &spoilt) {
            assert!(
                matches!(fault.kind(), Kind::Invalid | Kind::Exhausted),
                "bit in {at}: {fault}"
            );
            assert_eq!(place.names(), ["one"], "bit in {at}");
        } else {
            // Only bits that zstd itself ignores may pass, and then nothing has changed.
            let again = exported(&place.folder("two"));
            assert_eq!(again.len(), file.len(), "bit in {at} changed the disk");
            place.folder("two").destroy().unwrap();
        }
    }
}

#[test]
fn pieces_outside_the_disk_are_refused() {
    let place = Place::new();
    let manifest = export::Manifest {
        format: export::FORMAT,
        vm: "one".parse().unwrap(),
        disk_bytes: Bytes(1 << 30),
        data_bytes: Bytes(4096),
        settings: SETTINGS_OF_TEST,
        image_build: String::new(),
    };
    for name in [
        "disk/000000003fffffff",
        "disk/ffffffffffffffff",
        "disk/../../x",
        "x",
        "disk/+000000000000000",
    ] {
        let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
        for (name, bytes) in [
            ("manifest.json", serde_json::to_vec(&manifest).unwrap()),
            (name, vec![1; 4096]),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            // The name is put in raw: the library refuses to write some of these.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, bytes.as_slice()).unwrap();
        }
        let file = archive.into_inner().unwrap().finish().unwrap();
        let fault = import_of(&place.folder("two"), &file).unwrap_err();
        assert_eq!(fault.parts().code, "E-IMPORT-DAMAGED", "{name} was written");
    }
}
