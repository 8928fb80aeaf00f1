//! The network as the container has it: the world can be reached, names are found, the host's own loopback can't.
//!
//! Method: the distribution's own package tools go through the mirrors that the host is configured with; a listener on the
//! host's loopback is tried from inside at every address that could mean the host. End to end, because address translation
//! happens in three places.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::Duration;

use fixture::{Home, walk};

walk!(
    the_addresses_and_routes_are_there,
    apt_get_update_works_through_the_host_s_mirrors,
    packages_install_and_full_screen_programs_run,
    the_host_s_loopback_is_not_reachable,
    nor_by_a_vm_that_routes_loopback_outwards,
    the_vm_and_the_container_reach_each_other,
);

fn the_addresses_and_routes_are_there(home: &mut Home) {
    let routes = home
        .shell("ip -4 route show default; ip -4 -brief address show scope global")
        .ok()
        .text();
    assert!(
        routes.contains("default via") && routes.contains("100.115.93."),
        "{routes}"
    );
    let routes = home
        .vm_shell("ip -4 route show default; ip -4 -brief address show scope global")
        .ok()
        .text();
    assert!(
        routes.contains("default via") && routes.contains("100.115.92."),
        "{routes}"
    );
}

fn apt_get_update_works_through_the_host_s_mirrors(home: &mut Home) {
    let done = home.shell("sudo apt-get update 2>&1").ok();
    assert!(!done.text().contains("Err:"), "{done}");
}

fn packages_install_and_full_screen_programs_run(home: &mut Home) {
    let _ = home.shell("sudo DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends vim-tiny htop 2>&1").ok();
    let mut editor = home.terminal("testudo", &["run", "--", "vim.tiny", "-u", "NONE", "note"]);
    editor.see("note");
    editor.type_in("ihello from vim\x1b:wq\r");
    assert_eq!(editor.end(), 0);
    assert_eq!(home.shell("cat note").ok().text(), "hello from vim");
    let mut htop = home.terminal("testudo", &["run", "--", "htop"]);
    htop.see("Load average");
    htop.resize(120, 40);
    std::thread::sleep(Duration::from_secs(1));
    htop.type_in("q");
    assert_eq!(htop.end(), 0);
}

fn the_host_s_loopback_is_not_reachable(home: &mut Home) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback is there");
    let port = listener.local_addr().expect("it is bound").port();
    let second = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
    listener.set_nonblocking(true).expect("sockets can");
    let gateways = home
        .vm_shell("ip -4 route show default; ip -6 route show default")
        .ok()
        .text();
    let gateways: Vec<_> = gateways
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    assert!(!gateways.is_empty(), "the VM has no gateway");
    let inside = home.shell("ip -4 route show default").ok().text();
    let inside = inside
        .split_whitespace()
        .nth(2)
        .unwrap_or_default()
        .to_owned();
    for address in gateways
        .into_iter()
        .chain(["127.0.0.1", "::1", inside.as_str()])
    {
        let line = format!("timeout 5 bash -c 'echo > /dev/tcp/{address}/{port}' 2>/dev/null");
        assert_ne!(home.shell(&line).code, 0, "the container reaches {address}");
        assert_ne!(home.vm_shell(&line).code, 0, "the VM reaches {address}");
    }
    assert!(listener.accept().is_err(), "somebody connected");
    if let Ok(second) = second {
        second.set_nonblocking(true).expect("sockets can");
        assert!(second.accept().is_err(), "somebody connected");
    }
    // The method can succeed: a listener inside is reached the same way.
    let _ = home.shell(&format!("perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(Listen=>1,LocalPort=>{port}) or die; system(\"timeout 5 bash -c \\\"echo > /dev/tcp/127.0.0.1/{port}\\\"\")==0 or exit 1'")).ok();
}

/// A hostile root in the VM sends frames for 127.0.0.1 to the gateway; the kernel there would never do so by itself.
fn nor_by_a_vm_that_routes_loopback_outwards(home: &mut Home) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback is there");
    let port = listener.local_addr().expect("it is bound").port();
    listener.set_nonblocking(true).expect("sockets can");
    let line = format!(
        "card=$(ip -4 route show default | sed 's/.* dev \\([^ ]*\\).*/\\1/'); gateway=$(ip -4 route show default | cut -d' ' -f3)
        for name in all $card; do echo 1 > /proc/sys/net/ipv4/conf/$name/route_localnet; done
        ip route del local 127.0.0.1 table local; ip route del local 127.0.0.0/8 table local
        ip route add 127.0.0.0/8 via $gateway dev $card src 100.115.92.2
        ip route get 127.0.0.1 | grep -q \"dev $card\" || exit 9
        timeout 5 bash -c 'echo > /dev/tcp/127.0.0.1/{port}' && exit 8; exit 0"
    );
    let done = home.vm_shell(&line);
    // Routes of this boot are spoilt now.
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    assert_eq!(
        done.code, 0,
        "9: the frames would not have left; 8: the host answered: {done}"
    );
    assert!(listener.accept().is_err(), "somebody connected");
}

fn the_vm_and_the_container_reach_each_other(home: &mut Home) {
    let _ = home
        .shell("ping -c 1 -W 5 $(ip -4 route show default | cut -d' ' -f3) || getent hosts penguin")
        .ok();
    assert_eq!(
        home.shell("getent hosts penguin | grep -c .").ok().text(),
        "1"
    );
}
