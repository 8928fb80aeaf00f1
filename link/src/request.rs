//! What every request carries beside its message: an id made by the client, the wire's version, and, in calls
//! that concierge forwards, the VM.

use std::sync::atomic::{AtomicU32, Ordering};

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};
use wire::{Fault, Kind, PROTOCOL, PROTOCOL_METADATA, REQUEST_METADATA, VM_METADATA, VmName};

/// Adds the metadata to each outgoing request.
#[derive(Debug, Clone)]
pub struct Tag {
    id: MetadataValue<Ascii>,
    vm: Option<MetadataValue<Ascii>>,
}

impl Tag {
    /// Returns a tag with a new id: unique on this machine for as long as its logs are kept.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let seconds = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_secs();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{seconds:x}-{:x}-{count:x}", std::process::id());
        Self {
            id: id.parse().expect("hexadecimal is ASCII"),
            vm: None,
        }
    }

    /// Names the VM that the forwarded calls are for.
    #[must_use]
    pub fn vm(mut self, vm: &VmName) -> Self {
        self.vm = Some(vm.as_str().parse().expect("a VM name is ASCII"));
        self
    }

    /// Keeps the id of the request that this one is made for.
    #[must_use]
    pub fn following(mut self, cause: &MetadataMap) -> Self {
        if let Some(id) = cause.get(REQUEST_METADATA) {
            self.id = id.clone();
        }
        self
    }
}

impl Default for Tag {
    fn default() -> Self {
        Self::new()
    }
}

impl Interceptor for Tag {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(REQUEST_METADATA, self.id.clone());
        metadata.insert(PROTOCOL_METADATA, PROTOCOL.into());
        if let Some(vm) = &self.vm {
            metadata.insert(VM_METADATA, vm.clone());
        }
        Ok(request)
    }
}

/// Returns the request's id for a span field; `-` when the peer sent none.
#[must_use]
pub fn id(metadata: &MetadataMap) -> &str {
    metadata
        .get(REQUEST_METADATA)
        .and_then(|id| id.to_str().ok())
        .unwrap_or("-")
}

/// Returns the VM named in the metadata.
///
/// # Errors
/// When it is missing or not a name.
pub fn vm(metadata: &MetadataMap) -> Result<VmName, Fault> {
    let name = metadata
        .get(VM_METADATA)
        .and_then(|name| name.to_str().ok())
        .unwrap_or_default();
    name.parse().map_err(|error| {
        Fault::new(Kind::Invalid, "E-NAME", "the call names no VM").because(&error)
    })
}

/// Refuses a request of another wire version; for servers, as an interceptor.
///
/// # Errors
/// When the versions differ, saying which side is older.
pub fn same_protocol(request: Request<()>) -> Result<Request<()>, Status> {
    let theirs = request
        .metadata()
        .get(PROTOCOL_METADATA)
        .and_then(|v| v.to_str().ok()?.parse::<u32>().ok());
    match theirs {
        Some(PROTOCOL) => Ok(request),
        Some(theirs) => {
            let (older, hint) = if theirs < PROTOCOL {
                (
                    "client",
                    "use the testudo that was installed with the daemon",
                )
            } else {
                ("daemon", "restart it: testudo shutdown")
            };
            Err(Fault::new(
                Kind::Invalid,
                "E-VERSION",
                format!("client speaks wire version {theirs}, daemon {PROTOCOL}"),
            )
            .cause(format!("the {older} is older"))
            .hint(hint)
            .into())
        }
        None => Err(Fault::new(
            Kind::Invalid,
            "E-VERSION",
            "the request says no wire version",
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_reaches_the_peer_and_is_kept_on_the_next_hop() {
        let first = Tag::new()
            .vm(&VmName::termina())
            .call(Request::new(()))
            .unwrap();
        assert_eq!(vm(first.metadata()).unwrap(), VmName::termina());
        let second = Tag::new()
            .following(first.metadata())
            .call(Request::new(()))
            .unwrap();
        assert_eq!(id(first.metadata()), id(second.metadata()));
        assert!(same_protocol(second).is_ok());
    }

    #[test]
    fn another_version_is_refused_with_the_older_side_named() {
        let mut request = Request::new(());
        request
            .metadata_mut()
            .insert(PROTOCOL_METADATA, (PROTOCOL + 1).into());
        let fault = Fault::from(same_protocol(request).unwrap_err());
        assert_eq!(fault.parts().causes, ["the daemon is older"]);
    }
}
