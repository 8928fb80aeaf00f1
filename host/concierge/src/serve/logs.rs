//! Logs to clients, on the host: from the files, or asked of the guest's agent.

use tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};
use wire::proto::{Chunk, VmLogs};

use super::Replies;
use crate::guest::agent::{Agent, faithful};
use crate::log::{Log, Position};
use link::request::Tag;

/// Read from a file at once.
const BLOCK: usize = 64 << 10;

/// Returns what is in `log`, and with `follow` also what will be, until the client goes away.
pub(crate) fn of_file(log: Log, follow: bool) -> Replies<Chunk> {
    let state = (log.changes(), log, Position::default());
    Box::pin(futures_util::stream::try_unfold(
        state,
        move |(mut changes, log, mut position)| async move {
            loop {
                // Before the file is looked at, so that nothing written meanwhile is missed.
                changes.borrow_and_update();
                let mut block = vec![0; BLOCK];
                let count = log
                    .read_after(&mut position, &mut block)
                    .map_err(|error| Status::from(wire::Fault::internal(&error)))?;
                if count > 0 {
                    block.truncate(count);
                    return Ok(Some((Chunk { data: block }, (changes, log, position))));
                }
                if !follow || changes.changed().await.is_err() {
                    return Ok(None);
                }
            }
        },
    ))
}

/// Returns the agent's own log.
///
/// # Errors
/// When the agent does not answer.
pub(crate) async fn of_agent(
    agent: &Agent,
    metadata: &MetadataMap,
    follow: bool,
) -> Result<Response<Replies<Chunk>>, Status> {
    let mut client = agent.maitred(Tag::new().following(metadata))?;
    let chunks = client
        .logs(VmLogs { follow })
        .await
        .map_err(faithful)?
        .into_inner();
    Ok(Response::new(Box::pin(chunks.map(|chunk| {
        chunk.map_err(|status| faithful(status).into())
    }))))
}
