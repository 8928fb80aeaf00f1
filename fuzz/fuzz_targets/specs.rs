//! The machine and its devices as data, on an inherited descriptor: whatever is read is refused or understood whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spec::device::DeviceMessage;
use spec::vm::VmSpec;

fuzz_target!(|bytes: &[u8]| {
    let _ = VmSpec::read(bytes);
    if let Ok(message) = serde_json::from_slice::<DeviceMessage>(bytes) {
        let again = serde_json::to_vec(&message).expect("it is data");
        assert_eq!(
            serde_json::from_slice::<DeviceMessage>(&again).expect("our own"),
            message
        );
    }
});
