//! The error that users see, made where the thing failed and carried unchanged to the terminal.

use std::error::Error as StdError;
use std::fmt;

use prost::Message;
use tonic::{Code, Status};

use crate::proto;
pub use crate::proto::FaultKind as Kind;

/// A failed act with its causes and one thing to do. Displays as its message only; the chain is printed once,
/// by the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault(Box<proto::Fault>);

impl Fault {
    /// Returns a fault of `kind` with a stable `code` (`E-…`) and the failed act as `message`.
    pub fn new(kind: Kind, code: &str, message: impl Into<String>) -> Self {
        Self(Box::new(proto::Fault {
            kind: kind.into(),
            code: code.to_owned(),
            message: message.into(),
            ..proto::Fault::default()
        }))
    }

    /// Returns an internal fault from any error, its chain becoming the causes.
    pub fn internal(error: &(dyn StdError + 'static)) -> Self {
        let mut fault = Self::new(Kind::Internal, "E-INTERNAL", error.to_string());
        if let Some(source) = error.source() {
            fault = fault.because(source);
        }
        fault
    }

    /// Adds `error` and everything behind it to the causes.
    #[must_use]
    pub fn because(mut self, error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.0.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds one cause in words.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// Puts `message` in front: what was attempted when this fault came back.
    #[must_use]
    pub fn while_doing(mut self, message: impl Into<String>) -> Self {
        let inner = std::mem::replace(&mut self.0.message, message.into());
        self.0.causes.insert(0, inner);
        self
    }

    /// Sets the one thing to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = hint.into();
        self
    }

    /// Attaches the last lines of a log and where the rest is.
    #[must_use]
    pub fn log(mut self, lines: Vec<String>, path: impl Into<String>) -> Self {
        self.0.log = lines;
        self.0.log_path = path.into();
        self
    }

    /// Returns what kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind()
    }

    /// Returns the parts, for printing and for frames that carry a fault outside gRPC.
    #[must_use]
    pub fn parts(&self) -> &proto::Fault {
        &self.0
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Fault {}

impl From<proto::Fault> for Fault {
    fn from(parts: proto::Fault) -> Self {
        Self(Box::new(parts))
    }
}

impl From<Fault> for proto::Fault {
    fn from(fault: Fault) -> Self {
        *fault.0
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let code = match fault.kind() {
            Kind::Internal => Code::Internal,
            Kind::Invalid => Code::InvalidArgument,
            Kind::NotFound => Code::NotFound,
            Kind::Exists => Code::AlreadyExists,
            Kind::Busy => Code::FailedPrecondition,
            Kind::Unreachable => Code::Unavailable,
            Kind::Denied => Code::PermissionDenied,
            Kind::Exhausted => Code::ResourceExhausted,
        };
        Self::with_details(
            code,
            fault.0.message.clone(),
            fault.0.encode_to_vec().into(),
        )
    }
}

impl From<Status> for Fault {
    /// Unpacks the fault that travelled in the details; a status made by gRPC itself becomes one of its kind.
    fn from(status: Status) -> Self {
        if !status.details().is_empty()
            && let Ok(parts) = proto::Fault::decode(status.details())
        {
            return parts.into();
        }
        // A status with an error behind it was made on this side: the other one did not answer at all.
        if let Some(source) = status.source() {
            let message = "the connection to the other side broke off";
            return Self::new(Kind::Unreachable, "E-UNREACHABLE", message).because(source);
        }
        let (kind, code) = match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                (Kind::Unreachable, "E-UNREACHABLE")
            }
            Code::InvalidArgument | Code::OutOfRange => (Kind::Invalid, "E-INVALID"),
            Code::Unimplemented => (Kind::Invalid, "E-UNKNOWN-CALL"),
            Code::ResourceExhausted => (Kind::Exhausted, "E-LIMIT"),
            _ => (Kind::Internal, "E-INTERNAL"),
        };
        Self::new(kind, code, status.message().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_the_wire() {
        let io = std::io::Error::other("disk on fire");
        let fault = Fault::new(
            Kind::Exhausted,
            "E-DISK-FULL",
            "cannot create disk of termina",
        )
        .because(&io)
        .while_doing("cannot start termina")
        .hint("free some space")
        .log(vec!["last words".to_owned()], "/log");
        let back = Fault::from(Status::from(fault.clone()));
        assert_eq!(back, fault);
        assert_eq!(
            back.parts().causes,
            ["cannot create disk of termina", "disk on fire"]
        );
        assert_eq!(back.kind(), Kind::Exhausted);
    }

    #[test]
    fn a_plain_status_becomes_a_fault() {
        let fault = Fault::from(Status::unavailable("gone"));
        assert_eq!(
            (fault.kind(), fault.parts().code.as_str()),
            (Kind::Unreachable, "E-UNREACHABLE")
        );
    }

    #[test]
    fn a_status_that_no_server_sent_is_a_broken_connection() {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let fault = Fault::from(Status::from_error(Box::new(reset)));
        assert_eq!(fault.kind(), Kind::Unreachable);
        assert_eq!(fault.parts().causes, ["connection reset"]);
    }
}
