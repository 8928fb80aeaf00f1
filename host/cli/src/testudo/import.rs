//! `testudo import`: a container from what export wrote.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use wire::proto::ContainerSource;
use wire::{ContainerName, Fault, Kind};

use super::Call;
use crate::boot::{self, Missing};
use crate::create::{self, Source};
use crate::options;
use crate::suggest;
use crate::ui::Stages;

/// Make a container from a file that export wrote
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  testudo import penguin.tar.zst\n  ssh backup cat dev.tar.zst | testudo import - dev"
)]
pub(super) struct Import {
    /// The file, `-` for stdin
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The container's name (default: the file's)
    #[arg(value_parser = options::container)]
    name: Option<ContainerName>,
}

impl Import {
    pub(super) async fn carry_out(self, call: &Call<'_>) -> Result<(), Fault> {
        let vm = call.vm()?;
        let name = self.name.map_or_else(|| from_file(&self.file), Ok)?;
        let source = Source::open(ContainerSource::Export, vec![self.file])?;
        let mut header = create::header(&name, &source);
        // Its users come with it.
        header.user = None;
        let client = call.client().await?;
        let mut stages = Stages::new(call.ui);
        boot::vm(&client, &vm, Missing::Create, &mut stages).await?;
        create::container(&client, &vm, header, source, &mut stages).await?;
        stages.finish("imported");
        call.ui.note(&format!("created container {name}"));
        call.ui.next(&format!("testudo shell {name}"));
        Ok(())
    }
}

/// Returns the name that the part of the file's name before the first full stop spells.
fn from_file(file: &Path) -> Result<ContainerName, Fault> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    suggest::spelling(stem).parse().map_err(|_| {
        Fault::new(Kind::Invalid, "E-NAME", "the new container has no name")
            .hint(format!("name it: testudo import {} NAME", file.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_the_container() {
        let name = |file: &str| from_file(Path::new(file)).map(String::from);
        assert_eq!(name("/b/Penguin_2.tar.zst").unwrap(), "penguin-2");
        assert_eq!(name("-").unwrap_err().parts().code, "E-NAME");
    }
}
