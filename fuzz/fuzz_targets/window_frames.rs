//! What a guest sends on its window connection: frames, and pools behind them.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use wayland::frame::{Frame, HEADER_LEN, parse_header};
use wayland::pool::{Budget, PoolStore};

/// Small, so that its limit is met.
const BUDGET: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let budget: Arc<Budget> = Budget::new(BUDGET);
    let mut pools = PoolStore::new(budget);
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_LEN>() {
        let Ok((len, kind)) = parse_header(*header) else { return };
        let Some((payload, after)) = after.split_at_checked(len) else { return };
        rest = after;
        let Ok(frame) = Frame::parse(kind, payload) else { return };
        let mut written = Vec::new();
        frame.write(&mut written);
        assert_eq!(&written[HEADER_LEN..], payload, "a frame is written as it was read");
        let _ = match frame {
            Frame::Pool { id, size } => pools.set(id, size.min(1 << 22)),
            Frame::DropPool(id) => pools.remove(id),
            Frame::Discard { id, offset, len } => pools.discard(id, offset, len),
            Frame::Rows(head, packed) => pools.write(&head, packed),
            _ => Ok(()),
        };
    }
});
