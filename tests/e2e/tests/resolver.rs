//! Names are looked up as the host looks them up now: a change of its resolv.conf reaches the guest without a restart.
//!
//! Method: the daemon runs in a mount and network namespace of its own, whose resolv.conf is ours and whose two resolvers
//! answer differently; nothing of the real network is used. End to end, because a question passes the container's stub, the
//! VM's, vsock and the daemon.

use fixture::{Cell, Home, walk};

walk!(
    a_name_is_looked_up_at_the_host_s_resolver,
    a_changed_resolv_conf_counts_at_once,
    a_resolver_that_is_silent_is_not_waited_for_alone,
    without_any_resolver_the_answer_is_a_failure_and_not_a_hang,
    the_daemon_in_the_cell_ends,
);

const LOOK_UP: &str = "timeout 20 getent ahostsv4 name.test | cut -d' ' -f1 | sort -u";

fn hosts_resolvers(home: &Home, text: &str) {
    // In place: the daemon's file is this very one, bound over its own.
    std::fs::write(home.path("resolv.conf"), text).expect("the folder is ours");
}

fn a_name_is_looked_up_at_the_host_s_resolver(home: &mut Home) {
    hosts_resolvers(home, "nameserver 127.0.0.2\n");
    let cell = Cell {
        resolv_conf: Some(home.path("resolv.conf")),
        own_network: true,
        ..Cell::default()
    };
    home.start_daemon_in(&cell);
    assert_eq!(home.shell(LOOK_UP).ok().text(), "192.0.2.2");
    assert_eq!(home.vm_shell(LOOK_UP).ok().text(), "192.0.2.2");
}

fn a_changed_resolv_conf_counts_at_once(home: &mut Home) {
    hosts_resolvers(home, "# a VPN came up\nnameserver 127.0.0.3\nsearch test\n");
    assert_eq!(home.shell(LOOK_UP).ok().text(), "192.0.2.3");
    hosts_resolvers(home, "nameserver 127.0.0.2\n");
    assert_eq!(home.shell(LOOK_UP).ok().text(), "192.0.2.2");
}

fn a_resolver_that_is_silent_is_not_waited_for_alone(home: &mut Home) {
    hosts_resolvers(home, "nameserver 127.0.0.4\nnameserver 127.0.0.3\n");
    assert_eq!(home.shell(LOOK_UP).ok().text(), "192.0.2.3");
}

fn without_any_resolver_the_answer_is_a_failure_and_not_a_hang(home: &mut Home) {
    hosts_resolvers(home, "");
    let done = home.shell("timeout 20 getent ahostsv4 name.test");
    assert!(done.code != 0 && done.code != 124, "{done}");
}

fn the_daemon_in_the_cell_ends(home: &mut Home) {
    home.shut_down();
}
