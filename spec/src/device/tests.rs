//! What a daemon's message accepts and refuses.

use super::*;

fn read(json: &str) -> Result<DeviceMessage, MessageError> {
    DeviceMessage::read(json.as_bytes())
}

fn refused(json: &str) -> String {
    let error = read(json).unwrap_err();
    match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[test]
fn every_kind_is_read_and_written_alike() {
    for (kind, json) in [
        ("rng", r#"{"vhost":{"connected":4},"device":"rng"}"#),
        (
            "vsock",
            r#"{"vhost":{"listening":4},"device":{"vsock":{"listener":5,"directory":6,"guest_cid":3}}}"#,
        ),
        (
            "block",
            r#"{"vhost":{"listening":4},"device":{"block":{"image":5,"format":"raw","backing":[],"read_only":true,"serial":"root","queues":2}}}"#,
        ),
        (
            "net",
            r#"{"vhost":{"connected":4},"device":{"net":{"backend":{"tap":5},"mac":"52:54:00:12:34:56","mtu":null}}}"#,
        ),
        (
            "net",
            r#"{"vhost":{"listening":4},"device":{"net":{"backend":{"stream":5},"mac":"52:54:00:12:34:56","mtu":1500}}}"#,
        ),
    ] {
        let message = read(json).unwrap();
        assert_eq!(message.device.kind(), kind);
        assert_eq!(serde_json::to_string(&message).unwrap(), json);
    }
}

#[test]
fn only_a_qcow2_image_lies_upon_others_and_each_is_named_once() {
    let json = |format: &str, below: &str| {
        format!(
            r#"{{"vhost":{{"connected":4}},"device":{{"block":{{"image":5,"format":"{format}","backing":[{below}]}}}}}}"#
        )
    };
    let message = read(&json(
        "qcow2",
        r#"{"image":6,"format":"qcow2"},{"image":7}"#,
    ))
    .unwrap();
    assert_eq!(message.descriptors().len(), 4);
    assert!(refused(&json("raw", r#"{"image":6}"#)).contains("a raw image none"));
    assert_eq!(
        refused(&json("qcow2", r#"{"image":5}"#)),
        "descriptor 5 is named twice"
    );
    let nine: Vec<String> = (6..15).map(|fd| format!(r#"{{"image":{fd}}}"#)).collect();
    assert!(refused(&json("qcow2", &nine.join(","))).contains("9 images below"));
}

#[test]
fn unknown_field_is_refused() {
    let error = refused(r#"{"vhost":{"connected":4},"device":"rng","path":"/etc"}"#);
    assert!(error.contains("unknown field `path`"), "{error}");
}

#[test]
fn unknown_device_is_refused() {
    let error = refused(r#"{"vhost":{"connected":4},"device":"floppy"}"#);
    assert!(error.contains("unknown variant `floppy`"), "{error}");
}

#[test]
fn descriptor_with_two_duties_is_refused() {
    let json = r#"{"vhost":{"connected":4},"device":{"block":{"image":4}}}"#;
    assert_eq!(refused(json), "descriptor 4 is named twice");
}

#[test]
fn reserved_cid_is_refused() {
    let json = r#"{"vhost":{"connected":4},"device":{"vsock":{"listener":5,"directory":6,"guest_cid":2}}}"#;
    assert_eq!(refused(json), "guest CID 2 is reserved");
}

#[test]
fn group_address_is_refused() {
    let json = r#"{"vhost":{"connected":4},"device":{"net":{"backend":{"stream":5},"mac":"01:00:00:00:00:00"}}}"#;
    assert!(refused(json).contains("is not a unicast Ethernet address"));
}

#[test]
fn short_and_long_addresses_are_refused() {
    for mac in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "52:54:00:12:34:+6",
    ] {
        assert!(MacAddress::try_from(mac.to_owned()).is_err(), "{mac}");
    }
}

#[test]
fn disk_without_a_queue_is_refused() {
    let json = r#"{"vhost":{"connected":4},"device":{"block":{"image":5,"queues":0}}}"#;
    assert_eq!(refused(json), "a disk cannot have 0 queues: 1 to 64");
}

#[test]
fn long_serial_is_refused() {
    let json = r#"{"vhost":{"connected":4},"device":{"block":{"image":5,"serial":"123456789012345678901"}}}"#;
    assert!(refused(json).starts_with("serial"));
}

#[test]
fn endless_message_is_refused() {
    assert!(matches!(
        DeviceMessage::read(std::io::repeat(b' ')),
        Err(MessageError::TooLong)
    ));
}
