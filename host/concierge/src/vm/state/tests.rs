//! Random requests and ends of work against the table.

use proptest::prelude::*;

use super::*;

const VERBS: [Verb; 12] = [
    Verb::Create,
    Verb::Import,
    Verb::Start { create: false },
    Verb::Start { create: true },
    Verb::Save,
    Verb::Stop,
    Verb::Kill,
    Verb::Destroy { force: false },
    Verb::Destroy { force: true },
    Verb::Resize,
    Verb::Export,
    Verb::Set,
];

const STATES: [State; 8] = [
    State::Absent,
    State::Stopped,
    State::Starting,
    State::Running,
    State::Stopping,
    State::Saving,
    State::DiskBusy,
    State::Changing,
];

/// The owner without its processes: what is there, what is under way, who waits.
#[derive(Debug, Default)]
struct Model {
    engine: bool,
    disk: bool,
    work: Option<(State, Verb)>,
    waiting: Vec<Verb>,
    answered: usize,
    joined: usize,
}

impl Model {
    fn state(&self) -> State {
        self.work
            .map_or(State::settled(self.engine, self.disk), |(state, _)| state)
    }

    fn ask(&mut self, verb: Verb) {
        match self.state().react(verb) {
            Reaction::Begin(state) => {
                assert!(self.work.is_none(), "{verb:?} began while {:?}", self.work);
                self.work = Some((state, verb));
            }
            Reaction::Join => self.joined += 1,
            Reaction::Nothing | Reaction::Refuse(_) => self.answered += 1,
            Reaction::Later => {
                assert!(self.work.is_some(), "{verb:?} waits for nothing");
                self.waiting.push(verb);
            }
            Reaction::Abort => {
                self.waiting.insert(0, verb);
                self.engine = false;
                self.end(false);
            }
        }
    }

    /// Ends the work under way.
    fn end(&mut self, succeeded: bool) {
        if let Some((state, verb)) = self.work.take() {
            self.answered += 1 + std::mem::take(&mut self.joined);
            match (state, verb) {
                (State::Starting, _) => {
                    self.disk = self.disk || succeeded;
                    self.engine = succeeded;
                }
                (State::Stopping, _) => self.engine = false,
                // A machine that was not saved goes on.
                (State::Saving, _) => self.engine = self.engine && !succeeded,
                (_, Verb::Create | Verb::Import) => self.disk = succeeded,
                (_, Verb::Destroy { .. }) => self.disk = self.disk && !succeeded,
                _ => {}
            }
        }
        for verb in std::mem::take(&mut self.waiting) {
            self.ask(verb);
        }
    }
}

proptest! {
    #[test]
    fn every_request_is_answered_once(
        steps in prop::collection::vec(prop::option::weighted(0.7, prop::sample::select(&VERBS[..])), 0..80),
        outcomes in prop::collection::vec(any::<bool>(), 80),
    ) {
        let mut model = Model::default();
        let mut asked = 0;
        for (step, succeeded) in steps.iter().zip(&outcomes) {
            match step {
                Some(verb) => {
                    asked += 1;
                    model.ask(*verb);
                }
                None => model.end(*succeeded),
            }
            prop_assert!(!model.engine || model.disk, "an engine runs without a disk");
        }
        let mut ends = 0;
        while model.work.is_some() || !model.waiting.is_empty() {
            model.end(true);
            ends += 1;
            prop_assert!(ends <= 2 * asked + 2, "requests wait for ever: {model:?}");
        }
        prop_assert_eq!(model.answered, asked);
    }
}

#[test]
fn at_rest_nothing_waits_and_an_abort_leads_to_an_answer() {
    for state in [State::Absent, State::Stopped, State::Running] {
        for verb in VERBS {
            let reaction = state.react(verb);
            assert!(
                !matches!(reaction, Reaction::Join | Reaction::Later),
                "{verb:?} when {state:?}: {reaction:?}"
            );
            if reaction == Reaction::Abort {
                let after = State::Stopped.react(verb);
                assert!(
                    matches!(after, Reaction::Nothing | Reaction::Begin(_)),
                    "{verb:?} after its abort: {after:?}"
                );
            }
        }
    }
}

#[test]
fn during_work_no_other_work_begins() {
    for state in [
        State::Starting,
        State::Stopping,
        State::DiskBusy,
        State::Changing,
    ] {
        for verb in VERBS {
            let reaction = state.react(verb);
            assert!(
                !matches!(reaction, Reaction::Begin(_)),
                "{verb:?} when {state:?}"
            );
        }
    }
}

#[test]
fn what_does_not_exist_is_only_created() {
    for verb in VERBS {
        let creates = matches!(
            verb,
            Verb::Create | Verb::Import | Verb::Start { create: true }
        );
        let refused = State::Absent.react(verb) == Reaction::Refuse(Refusal::NotFound);
        assert_eq!(creates, !refused, "{verb:?}");
    }
}

#[test]
fn kill_is_never_refused_where_something_runs() {
    for state in STATES {
        let reaction = state.react(Verb::Kill);
        let expected = match state {
            State::Absent => Reaction::Refuse(Refusal::NotFound),
            State::Stopped | State::DiskBusy => Reaction::Nothing,
            _ => Reaction::Abort,
        };
        assert_eq!(reaction, expected, "{state:?}");
    }
}
