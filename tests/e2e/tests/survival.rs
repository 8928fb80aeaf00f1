//! What is written stays: through stop, the sudden end of everything, and start.
//!
//! Method: files written with and without a sync, then the VM ends in each way. End to end, because a write crosses the
//! guest's btrfs, virtio, the block daemon and the host's file.

use fixture::{Home, walk};

walk!(
    files_survive_a_stop,
    synced_files_survive_the_death_of_everything,
    a_package_database_survives_the_death_of_everything,
    the_file_system_is_clean_after_all_that,
);

fn files_survive_a_stop(home: &mut Home) {
    let _ = home.shell("echo stopped > ~/stopped; mkdir ~/folder; head -c 5000000 /dev/urandom > ~/folder/random; sha256sum ~/folder/random > ~/sum").ok();
    let _ = home.run("vmc", &["stop", "termina"]).ok();
    assert_eq!(
        home.shell("cat ~/stopped; sha256sum --check --status ~/sum")
            .ok()
            .text(),
        "stopped"
    );
}

fn synced_files_survive_the_death_of_everything(home: &mut Home) {
    for round in 0..3 {
        let _ = home.shell(&format!("echo {round} > ~/round; head -c 3000000 /dev/urandom > ~/big; sha256sum ~/big > ~/bigsum; sync; nohup sh -c 'while :; do date >> ~/noise; done' >/dev/null 2>&1 &")).ok();
        home.kill_everything();
        let done = home
            .shell("cat ~/round; sha256sum --check --status ~/bigsum")
            .ok();
        assert_eq!(done.text(), round.to_string());
    }
}

fn a_package_database_survives_the_death_of_everything(home: &mut Home) {
    let _ = home
        .shell("sudo dpkg --audit; dpkg-query -W | wc -l > ~/packages; sync")
        .ok();
    home.kill_everything();
    let _ = home
        .shell("sudo dpkg --audit; dpkg-query -W | wc -l | diff - ~/packages")
        .ok();
}

fn the_file_system_is_clean_after_all_that(home: &mut Home) {
    let list = home.info();
    assert_eq!(list["figures"]["disk_errors"], 0, "{list}");
}
