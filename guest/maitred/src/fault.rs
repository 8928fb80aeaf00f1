//! Turns what the kernel or a program said into the [`Fault`] that travels to the user.

use std::error::Error;
use std::io;

use wire::{Fault, Kind};

/// Adds the failed act to an error.
pub(crate) trait OrFault<T> {
    /// Returns the value, or a fault with `code` and the act as `message`; a full disk gets its own kind and
    /// code, whatever was attempted.
    fn or_fault(self, code: &str, message: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T, E: Error + 'static> OrFault<T> for Result<T, E> {
    fn or_fault(self, code: &str, message: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|error| {
            let fault = if is_full(&error) {
                Fault::new(Kind::Exhausted, "E-DISK-FULL", message())
                    .hint("free space in the VM, or give it a larger disk: vmc resize")
            } else {
                Fault::new(Kind::Internal, code, message())
            };
            fault.because(&error)
        })
    }
}

/// Returns whether there is no room on a disk at the bottom of `error`.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let full = |kind| {
        matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    };
    if let Some(errno) = error.downcast_ref::<rustix::io::Errno>() {
        return full(errno.kind());
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        // What an I/O error wraps is not its source.
        let inner = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
        return full(error.kind()) || inner.is_some_and(is_full);
    }
    error.source().is_some_and(is_full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_however_deep_it_lies() {
        let full = io::Error::from(rustix::io::Errno::NOSPC);
        let wrapped: Result<(), _> = Err(io::Error::other(full));
        let fault = wrapped
            .or_fault("E-X", || "cannot write".to_owned())
            .unwrap_err();
        assert_eq!(
            (fault.kind(), fault.parts().code.as_str()),
            (Kind::Exhausted, "E-DISK-FULL")
        );
        let other: Result<(), _> = Err(rustix::io::Errno::NOENT);
        let fault = other
            .or_fault("E-X", || "cannot read".to_owned())
            .unwrap_err();
        assert_eq!(
            (fault.kind(), fault.parts().code.as_str()),
            (Kind::Internal, "E-X")
        );
    }
}
