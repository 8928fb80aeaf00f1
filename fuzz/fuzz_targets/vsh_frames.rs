//! Frames of a terminal session, as either side may send them, cut anywhere: on the host and in the guest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::proto::{VshReply, VshRequest};
use wire::vsh::{FRAME_MAX, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let mut requests = bytes.to_vec();
    while let Ok(Some(message)) = decode::<VshRequest>(&mut requests) {
        // What was understood survives being said again.
        let mut again = Vec::new();
        encode(&message, &mut again);
        if again.len() <= FRAME_MAX {
            assert_eq!(
                decode::<VshRequest>(&mut again).expect("our own frame"),
                Some(message)
            );
        }
    }
    let mut replies = bytes.to_vec();
    while let Ok(Some(_)) = decode::<VshReply>(&mut replies) {}
});
