//! Archives of both kinds, whole and tampered with.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;

fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let me = std::fs::metadata("/proc/self").unwrap();
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(me.uid().into());
        header.set_gid(me.gid().into());
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An image layout being made.
#[derive(Default)]
struct Layout(BTreeMap<String, Vec<u8>>);

impl Layout {
    fn blob(&mut self, bytes: Vec<u8>) -> Value {
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        self.0.insert(format!("blobs/sha256/{digest}"), bytes);
        json!({ "digest": format!("sha256:{digest}") })
    }

    fn image(&mut self, mark: &str) -> Value {
        let lower = tarball(&[("etc/mark", b"lower"), ("etc/gone", b"x")]);
        let upper = tarball(&[("etc/mark", mark.as_bytes()), ("etc/.wh.gone", b"")]);
        let layers = [
            self.blob(lower),
            self.blob(zstd::encode_all(&upper[..], 1).unwrap()),
        ];
        let config = json!({ "config": { "Env": ["PATH=/opt/go/bin", "BROKEN"] } });
        let config = self.blob(config.to_string().into_bytes());
        let manifest = json!({ "config": config, "layers": layers });
        self.blob(manifest.to_string().into_bytes())
    }

    fn index(&mut self, manifests: &Value) {
        let index = json!({ "manifests": manifests });
        self.0
            .insert(INDEX.to_owned(), index.to_string().into_bytes());
    }

    fn bring(&self) -> (tempfile::TempDir, Result<Imported, Fault>) {
        let files: Vec<_> = self
            .0
            .iter()
            .map(|(p, b)| (p.as_str(), b.as_slice()))
            .collect();
        bring_bytes(&tarball(&files))
    }
}

fn bring_bytes(bytes: &[u8]) -> (tempfile::TempDir, Result<Imported, Fault>) {
    let scratch = tempfile::tempdir().unwrap();
    let rootfs = scratch.path().join("rootfs");
    std::fs::create_dir(&rootfs).unwrap();
    let done = bring(bytes, scratch.path(), &rootfs);
    (scratch, done)
}

fn mark(scratch: &tempfile::TempDir) -> String {
    assert!(!scratch.path().join("rootfs/etc/gone").exists());
    std::fs::read_to_string(scratch.path().join("rootfs/etc/mark")).unwrap()
}

#[test]
fn a_layout_is_unpacked_layer_by_layer() {
    let mut layout = Layout::default();
    let image = layout.image("upper");
    layout.index(&json!([image]));
    let (scratch, done) = layout.bring();
    assert_eq!(
        done.unwrap().environment,
        [("PATH".to_owned(), "/opt/go/bin".to_owned())]
    );
    assert_eq!(mark(&scratch), "upper");
    assert!(!scratch.path().join("archive").exists());
}

#[test]
fn the_image_for_this_machine_is_chosen_through_an_index() {
    let mut layout = Layout::default();
    let platform = |mut image: Value, architecture: &str, os: &str| {
        image["platform"] = json!({ "architecture": architecture, "os": os });
        image
    };
    let images = json!({ "manifests": [
        platform(layout.image("arm"), "arm64", "linux"),
        platform(layout.image("attestation"), "unknown", "unknown"),
        platform(layout.image("ours"), "amd64", "linux"),
    ]});
    let inner = layout.blob(images.to_string().into_bytes());
    layout.index(&json!([inner]));
    let (scratch, done) = layout.bring();
    done.unwrap();
    assert_eq!(mark(&scratch), "ours");
}

#[test]
fn what_docker_saved_is_unpacked_with_its_links() {
    let layer = tarball(&[("etc/mark", b"saved")]);
    let list = json!([{ "Config": "c.json", "Layers": ["a/layer.tar", "b/layer.tar"] }]);
    let mut builder = tar::Builder::new(tarball(&[
        (SAVED, list.to_string().as_bytes()),
        ("c.json", b"{}"),
        ("a/layer.tar", &layer),
    ]));
    // Goes on where the first tarball's end mark begins.
    let length = builder.get_ref().len() - 1024;
    builder.get_mut().truncate(length);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder
        .append_link(&mut header, "b/layer.tar", "../a/layer.tar")
        .unwrap();
    let bytes = builder.into_inner().unwrap();
    let (scratch, done) = bring_bytes(&bytes);
    done.unwrap();
    assert_eq!(mark(&scratch), "saved");
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    for tampered in ["lower", "etc/gone", "manifest"] {
        let mut layout = Layout::default();
        let image = layout.image("upper");
        layout.index(&json!([image]));
        let blob = layout.0.values_mut().find(|bytes| {
            let needle = if tampered == "manifest" {
                "\"layers\""
            } else {
                tampered
            };
            bytes
                .windows(needle.len())
                .any(|window| window == needle.as_bytes())
        });
        blob.unwrap().push(b' ');
        let (_scratch, done) = layout.bring();
        assert_eq!(done.unwrap_err().kind(), Kind::Invalid, "{tampered}");
    }
}

#[test]
fn missing_parts_wrong_machines_and_rubbish_are_refused() {
    let mut foreign = Layout::default();
    let mut image = foreign.image("x");
    image["platform"] = json!({ "architecture": "arm64", "os": "linux" });
    foreign.index(&json!([image]));
    let mut missing = Layout::default();
    let image = missing.image("x");
    missing.index(&json!([image]));
    missing
        .0
        .retain(|name, bytes| name == INDEX || bytes.len() < 1000);
    let mut wild = Layout::default();
    wild.index(&json!([{ "digest": "sha256:../../../etc/passwd" }]));
    for layout in [foreign, missing, wild, Layout::default()] {
        assert_eq!(layout.bring().1.unwrap_err().parts().code, "E-IMPORT");
    }
    for bytes in [&b""[..], b"rubbish", &[0x28, 0xb5, 0x2f, 0xfd, 0xff]] {
        assert_eq!(bring_bytes(bytes).1.unwrap_err().parts().code, "E-IMPORT");
    }
}
