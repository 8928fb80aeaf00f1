//! What a guest's program says to the filter: any Wayland bytes, with a compositor behind that has announced everything
//! that is allowed and some things that are not.
#![no_main]

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use wayland::direct::Direct;
use wayland::session::{Session, Side};
use wayland::socket;
use wayland_hostd::ask::Asks;
use wayland_hostd::filter::{Context, DisplayHandler};
use spec::windows::Policy;
use wayland_hostd::vm::Vm;
use wl_proxy::baseline::Baseline;
use wl_proxy::state::State;

/// Announced by the compositor, in this order.
const GLOBALS: &[(&str, u32)] = &[
    ("wl_compositor", 6),
    ("wl_shm", 2),
    ("wl_seat", 9),
    ("xdg_wm_base", 6),
    ("wl_data_device_manager", 3),
    ("zwp_primary_selection_device_manager_v1", 1),
    ("xdg_activation_v1", 1),
    ("xdg_toplevel_icon_manager_v1", 1),
    ("zwp_text_input_manager_v3", 1),
    ("wp_viewporter", 1),
    ("ext_data_control_manager_v1", 1),
    ("wp_security_context_manager_v1", 1),
];

fn word(out: &mut Vec<u8>, word: u32) {
    out.extend_from_slice(&word.to_ne_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    word(out, text.len() as u32 + 1);
    out.extend_from_slice(text.as_bytes());
    out.resize((out.len() + 1).next_multiple_of(4), 0);
}

/// `wl_registry.global` for each of [`GLOBALS`].
fn announcements() -> Vec<u8> {
    let mut all = Vec::new();
    for (number, (name, version)) in GLOBALS.iter().enumerate() {
        let mut body = Vec::new();
        word(&mut body, number as u32 + 1);
        text(&mut body, name);
        word(&mut body, *version);
        word(&mut all, 2);
        word(&mut all, (body.len() as u32 + 8) << 16);
        all.extend(body);
    }
    all
}

fuzz_target!(|bytes: &[u8]| {
    let (compositor, server) = socket::pair().expect("descriptors");
    let (guest, client) = socket::pair().expect("descriptors");
    let (server, client): (Rc<OwnedFd>, Rc<OwnedFd>) = (Rc::new(server), Rc::new(client));
    let state = State::builder(Baseline::ALL_OF_THEM).with_server_fd(&server).build().expect("a state");
    let channel = Rc::new(RefCell::new(Direct));
    let sockets = (&client, &server);
    let session = Session::new(state.clone(), sockets, channel.clone(), Side::Host).expect("a session");
    let vm = Vm::new("fuzz".to_owned(), Policy::default(), Asks::nobody());
    let display = session.client().display().clone();
    let filter = Context::new(vm, channel, display.clone());
    display.set_handler(DisplayHandler(filter.clone()));
    // get_registry as object 2, then everything is announced, then the guest talks.
    let mut hello = Vec::new();
    [1, 12 << 16 | 1, 2].into_iter().for_each(|each| word(&mut hello, each));
    socket::send_some(&guest, &hello).expect("room");
    let _ = state.dispatch_available();
    socket::send_some(&compositor, &announcements()).expect("room");
    let _ = state.dispatch_available();
    socket::send_some(&guest, bytes).expect("room");
    for _ in 0..4 {
        if state.is_destroyed() || state.dispatch_available().is_err() || filter.refused().is_some() {
            break;
        }
    }
    state.destroy();
    let mut sent = [0; 65536];
    if let Ok(socket::Read::Bytes(len)) = socket::receive(&compositor, &mut sent, &mut Vec::new()) {
        for denied in ["ext_data_control_manager_v1", "wp_security_context_manager_v1"] {
            let name = denied.as_bytes();
            assert!(!sent[..len].windows(name.len()).any(|part| part == name), "{denied} was bound");
        }
    }
});
