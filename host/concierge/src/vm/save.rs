//! Puts a running VM away on the host: its machine goes into a file, its processes end, and the next start goes on from there.

use wire::{Bytes, Fault, Kind};

use super::machine::Machine;
use super::work::{self, Order};
use crate::log::Log;

/// Saves `machine` and ends it.
///
/// # Errors
/// Why it was not saved, with the machine, which goes on.
pub(super) async fn run(
    mut machine: Machine,
    order: &Order,
    log: &Log,
) -> Result<(), (Box<Machine>, Fault)> {
    let stage = order.audience.stage("save");
    log.line("concierge: saving");
    let saved = tokio::select! {
        saved = write(&mut machine, order) => saved,
        () = order.cancel.cancelled() => Err(ended()),
    };
    if let Err(fault) = saved {
        log.line(&format!("concierge: {fault}: {:?}", fault.parts().causes));
        let fault = fault.while_doing(format!("cannot save {}", order.name));
        return Err((Box::new(machine), fault));
    }
    machine.kill().await;
    log.line("concierge: saved");
    stage.done();
    Ok(())
}

async fn write(machine: &mut Machine, order: &Order) -> Result<(), Fault> {
    let engine = &machine.chosen.engine;
    if !engine.takes_new_daemons() {
        let message = format!("the engine {} cannot save a VM", engine.name());
        return Err(Fault::new(Kind::Invalid, "E-SAVE-ENGINE", message)
            .hint("vmc stop keeps what is on its disk; see testudo doctor for the engine"));
    }
    let folder = order.world.folder(&order.name);
    let traits = machine.traits.clone();
    let memory = Bytes(u64::from(traits.memory.0) << 20);
    let begun = work::blocking(move || {
        folder.check_space(memory)?;
        let unfinished = folder.begin_saving()?;
        let file = unfinished.machine()?;
        Ok((unfinished, file))
    });
    let (unfinished, file) = begun.await?;
    let failed = |error: &std::io::Error| {
        Fault::new(
            Kind::Internal,
            "E-SAVE",
            "the engine cannot write the machine",
        )
        .because(error)
    };
    let theirs = file.try_clone().map_err(|error| failed(&error))?;
    machine.save(theirs).await.map_err(|error| failed(&error))?;
    work::blocking(move || unfinished.finish(&file, &traits)).await
}

/// Returns the fault of work that another request ended.
fn ended() -> Fault {
    Fault::new(Kind::Busy, "E-SAVE-ENDED", "another request ended the save")
}
