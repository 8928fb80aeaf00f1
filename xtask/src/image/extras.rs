//! The extras image: Incus's files that Termina's root has not, to be laid over /usr in the guest
//! when someone first uses it.

use anyhow::{Context as _, Result};

use super::root::{self, Packing};
use super::store::Work;
use super::tools::Tools;
use super::tree::{Kind, Tree};

/// Where the certificates of ca-certificates lie.
const CERTIFICATES: &str = "usr/share/ca-certificates/mozilla/";

/// The one file that programs read them from; the root's /etc/ssl/certs leads to it.
const BUNDLE: &str = "usr/share/ca-certificates/bundle.crt";

/// The extras change seldom and are sent to the guest once: small counts, speed does not.
const COMPRESSION: &str = "zstd";

/// Makes `incus.erofs` from a tree of Incus's files.
///
/// # Errors
/// When it lacks certificates or cannot be packed.
pub(super) fn build(mut tree: Tree, tools: &Tools, work: &Work<'_>) -> Result<()> {
    bundle(&mut tree)?;
    tree.put("usr/bin/lxc", 0o777, Kind::Link("incus".to_owned()));
    let packing = Packing {
        name: "incus.erofs",
        compression: Some(COMPRESSION),
    };
    root::pack(&tree, &packing, tools, work)
}

/// Replaces the single certificates by one file, as update-ca-certificates does on a Debian.
fn bundle(tree: &mut Tree) -> Result<()> {
    let mut text = Vec::new();
    for node in tree
        .0
        .iter()
        .filter(|(path, _)| path.starts_with(CERTIFICATES))
        .map(|(_, node)| node)
    {
        if let Kind::File(certificate) = &node.kind {
            text.extend_from_slice(certificate);
        }
    }
    (!text.is_empty())
        .then_some(())
        .context("there are no certificates")?;
    tree.0.retain(|path, _| !path.starts_with(CERTIFICATES));
    tree.put(BUNDLE, 0o644, Kind::File(text));
    Ok(())
}
