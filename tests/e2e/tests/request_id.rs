//! A request id's way: made in the client, a field in every process that the request reaches, one story in the logs.
//!
//! Method: one start is told apart from another by its id in the daemon's and the agent's log. End to end, because each hop has
//! to pass it on.

use fixture::{Home, walk};

walk!(one_request_is_one_story, two_requests_have_two_ids);

/// Returns the ids in the daemon's and the agent's lines, in order.
fn ids(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for part in text.split("request=").skip(1) {
        let id: String = part
            .trim_start_matches('"')
            .chars()
            .take_while(|c| c.is_ascii_hexdigit() || *c == '-')
            .collect();
        if id.len() > 1 && !found.contains(&id) {
            found.push(id);
        }
    }
    found
}

fn logs(home: &Home, options: &[&str]) -> String {
    let mut arguments = vec!["logs", "termina"];
    arguments.extend(options);
    home.run("vmc", &arguments).ok().text()
}

fn one_request_is_one_story(home: &mut Home) {
    let _ = home.testudo(&["run", "--", "true"]).ok();
    let daemon = ids(&logs(home, &[]));
    let agent = ids(&logs(home, &["--agent"]));
    let shared = daemon.iter().find(|id| agent.contains(id));
    assert!(
        shared.is_some(),
        "no request is in both logs: {daemon:?}, {agent:?}"
    );
}

fn two_requests_have_two_ids(home: &mut Home) {
    let before = ids(&logs(home, &["--agent"])).len();
    let _ = home.testudo(&["stop", "penguin"]).ok();
    let _ = home.testudo(&["start", "penguin"]).ok();
    let after = ids(&logs(home, &["--agent"])).len();
    assert!(
        after >= before + 2,
        "{before} ids before, {after} after two requests"
    );
}
