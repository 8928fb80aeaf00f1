//! OCI images: a tar of an image layout (OCI image specification 1.1), or what `docker save` wrote before that.

mod blobs;

use std::path::Path;

use serde::Deserialize;
use wire::{Fault, Kind};

use super::unpack::{self, Take};
use super::{ENVIRONMENT_MAX, Imported, VARIABLE_MAX};
use blobs::Blobs;

/// Layers of one image: docker allows 127.
const LAYERS_MAX: usize = 512;

/// Indexes that lead to indexes: one is usual, two are not unheard of.
const DEPTH_MAX: u32 = 4;

const INDEX: &str = "index.json";
const SAVED: &str = "manifest.json";

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// An entry of `docker save`'s list.
#[derive(Debug, Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ImageConfig {
    config: Option<Runtime>,
}

#[derive(Debug, Default, Deserialize)]
struct Runtime {
    #[serde(rename = "Env")]
    environment: Option<Vec<String>>,
}

/// Fills `rootfs` from the archive `stream`, which is kept in `scratch` meanwhile.
pub(super) fn bring(
    stream: impl std::io::Read,
    scratch: &Path,
    rootfs: &Path,
) -> Result<Imported, Fault> {
    let blobs = Blobs::keep(stream, scratch)?;
    let (config, layers) = if blobs.has(INDEX) {
        layout(&blobs)?
    } else {
        saved(&blobs)?
    };
    if layers.is_empty() || layers.len() > LAYERS_MAX {
        return Err(refused(format!("the image has {} layers", layers.len())));
    }
    for layer in &layers {
        let mut content = blobs.open(layer)?;
        unpack::archive(&mut content, rootfs, &Take::Layer)?;
        content.verify()?;
    }
    blobs.discard()?;
    Ok(Imported {
        environment: environment(config),
        ..Imported::default()
    })
}

/// Follows the layout from its index to the image for this machine.
fn layout(blobs: &Blobs) -> Result<(ImageConfig, Vec<String>), Fault> {
    let mut index: Index = blobs.json(INDEX)?;
    for _ in 0..DEPTH_MAX {
        let chosen = choose(&index.manifests)
            .ok_or_else(|| refused("the image is not for Linux on x86-64".to_owned()))?;
        let path = blob(&chosen.digest)?;
        match blobs.json::<Manifest>(&path) {
            Ok(manifest) => {
                let config = blobs.json(&blob(&manifest.config.digest)?)?;
                let layers: Result<_, _> =
                    manifest.layers.iter().map(|l| blob(&l.digest)).collect();
                return Ok((config, layers?));
            }
            Err(not_a_manifest) => {
                index = blobs.json(&path).map_err(|_| not_a_manifest)?;
            }
        }
    }
    Err(refused(format!(
        "the image's indexes are more than {DEPTH_MAX} deep"
    )))
}

/// The first that says that it is for this machine, else the first that says nothing.
fn choose(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let fits = |descriptor: &&Descriptor| {
        let platform = descriptor.platform.as_ref();
        platform.is_some_and(|p| p.architecture == "amd64" && p.os == "linux")
    };
    manifests
        .iter()
        .find(fits)
        .or_else(|| manifests.iter().find(|d| d.platform.is_none()))
}

fn saved(blobs: &Blobs) -> Result<(ImageConfig, Vec<String>), Fault> {
    if !blobs.has(SAVED) {
        return Err(refused(
            "the archive has neither index.json nor manifest.json".to_owned(),
        ));
    }
    let images: Vec<Saved> = blobs.json(SAVED)?;
    let Some(image) = images.into_iter().next() else {
        return Err(refused("the archive's list of images is empty".to_owned()));
    };
    Ok((blobs.json(&image.config)?, image.layers))
}

/// Where the content with `digest` lies.
fn blob(digest: &str) -> Result<String, Fault> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    });
    hex.map(|hex| format!("blobs/sha256/{hex}"))
        .ok_or_else(|| refused(format!("{digest:?} is not a SHA-256 digest")))
}

fn environment(config: ImageConfig) -> Vec<(String, String)> {
    let all = config
        .config
        .and_then(|config| config.environment)
        .unwrap_or_default();
    let good = |(name, value): &(String, String)| {
        let fits = name.len() + value.len() <= VARIABLE_MAX;
        !name.is_empty() && fits && !name.contains('\0') && !value.contains('\0')
    };
    all.iter()
        .filter_map(|variable| variable.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .filter(good)
        .take(ENVIRONMENT_MAX)
        .collect()
}

fn refused(cause: String) -> Fault {
    Fault::new(Kind::Invalid, "E-IMPORT", "the OCI image cannot be used").cause(cause)
}

#[cfg(test)]
mod tests;
