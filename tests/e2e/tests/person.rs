//! The person at the host is the person in the container: name, number, home, language and time zone, and packages that
//! install from where the host's do.
//!
//! Method: what programs in the container say of their user, and of dates and names in the host's locale before and after that
//! locale is installed there as a user would. End to end, because client, daemon and agent each carry a part.

use fixture::{Home, walk};

walk!(
    the_time_zone_is_the_host_s,
    name_number_and_home_are_a_person_s,
    a_locale_that_is_missing_is_not_spoken_of,
    packages_install_from_the_host_s_mirrors,
    a_locale_that_is_there_is_used,
);

/// A zone that no machine of CI is in, with summer time.
const ZONE: &str = "Asia/Tehran";

const LOCALE: (&str, &str) = ("LANG", "de_DE.UTF-8");

/// The first call starts the daemon, in this person's zone, and makes the container.
fn the_time_zone_is_the_host_s(home: &mut Home) {
    let line = "readlink /etc/localtime; cat /etc/timezone; date --date=2024-07-01T00:00Z +%H:%M";
    let said = home.shell_with(&[("TZ", ZONE)], line).ok().text();
    assert_eq!(said, format!("/usr/share/zoneinfo/{ZONE}\n{ZONE}\n03:30"));
}

fn name_number_and_home_are_a_person_s(home: &mut Home) {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").expect("it is readable");
    let is_mine = |line: &&str| line.split(':').nth(2) == Some(uid.to_string().as_str());
    let line = passwd.lines().find(is_mine).expect("this user has a line");
    let name = line.split(':').next().expect("the first field");
    let said = home
        .shell("id -un; id -u; pwd; stat -c '%U %a' ~; echo $USER; sudo -n id -un; touch f; stat -c %U f")
        .ok()
        .text();
    let expected = format!("{name}\n1000\n/home/{name}\n{name} 700\n{name}\nroot\n{name}");
    assert_eq!(said, expected);
}

fn a_locale_that_is_missing_is_not_spoken_of(home: &mut Home) {
    let done = home.shell_with(
        &[LOCALE, ("LC_TIME", "en_DK.UTF-8")],
        "perl -e 1; locale charmap; echo $LANG $LC_TIME",
    );
    assert_eq!(
        (done.text().as_str(), done.errors().as_str()),
        ("UTF-8\nC.UTF-8", ""),
        "{done}"
    );
}

fn packages_install_from_the_host_s_mirrors(home: &mut Home) {
    let done = home.shell("sudo apt-get update 2>&1").ok();
    assert!(!done.text().contains("Err:"), "{done}");
    let line = "sudo DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends locales 2>&1";
    let _ = home.shell(line).ok();
    let version = home
        .shell("dpkg-query -W -f '${db:Status-Abbrev}' locales")
        .ok()
        .text();
    assert_eq!(version, "ii ");
}

fn a_locale_that_is_there_is_used(home: &mut Home) {
    let _ = home
        .shell("sudo localedef -i de_DE -f UTF-8 de_DE.UTF-8")
        .ok();
    let done = home.shell_with(&[LOCALE], "date --date=2024-03-01 +%B; echo $LANG");
    assert_eq!(done.ok().text(), "März\nde_DE.UTF-8");
    // Who says nothing gets what every container has.
    let done = home.shell_with(&[("LANG", "C.UTF-8")], "date --date=2024-03-01 +%B");
    assert_eq!(done.ok().text(), "March");
}
