use super::*;
use crate::device::emulator::Emulator;
use crate::device::model::DeviceModel;
use crate::op::Family;
use crate::verify::suite;
use crate::verify::trial::Ending;

fn registry() -> Registry {
    Registry::embedded().expect("the embedded kernels")
}

/// So many small cases of a kernel.
fn work(registry: &Registry, n: usize) -> Vec<(&Kernel, Subject)> {
    let kernel = registry.kernels().first().expect("a kernel");
    let case = |i: usize| {
        let problem = kernel.problem(&format!("T={}", 5 + i)).expect("a problem");
        let tile = kernel.default_tile(&problem).expect("a tile");
        let case = suite::case(kernel, &tile, problem, Family::default(), 1);
        (
            kernel,
            Subject { case, prefix: false, multiprocessors: Some(3), most_steps: Some(1000000) },
        )
    };
    (0..n).map(case).collect()
}

fn ended(work: Work, crew: Crew) -> (Vec<Option<Trial>>, Result<(), DeviceError>) {
    let mut trials = vec![None; work.len()];
    let result = run(work, crew, |event| {
        if let Event::Ended(i, trial) = event {
            assert!(trials[i].replace(*trial).is_none(), "case {i} twice");
        }
        ControlFlow::Continue(())
    });
    (trials, result)
}

fn shell(script: &'static str) -> impl Fn() -> Command + Sync {
    move || {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }
}

/// A process that dies takes its case along and no other.
#[test]
fn a_process_that_dies_costs_its_case() {
    let registry = registry();
    let work = work(&registry, 5);
    let start = shell("echo '\"ready\"'; read case; exit 7");
    let (trials, result) = ended(&work, Crew::Processes { count: 2, start: &start });
    assert!(result.is_ok());
    for trial in trials {
        let trial = trial.expect("an end");
        let words = &trial.faults[0].message;
        assert!(trial.ending == Ending::Failed && words.contains("ended before the case did"));
        assert!(words.contains("exit status: 7"), "{words}");
    }
}

#[test]
fn no_process_at_all_is_an_error() {
    let registry = registry();
    let work = work(&registry, 3);
    let start = shell("echo '{\"refused\":\"no such GPU\"}'");
    let (_, result) = ended(&work, Crew::Processes { count: 2, start: &start });
    assert_eq!(result.unwrap_err().to_string(), "no such GPU");
    let start = || Command::new("/no/such/program");
    let (_, result) = ended(&work, Crew::Processes { count: 2, start: &start });
    assert!(result.unwrap_err().to_string().contains("/no/such/program"));
}

#[test]
fn nothing_is_begun_after_a_break() {
    let registry = registry();
    let work = work(&registry, 50);
    let device = || {
        let model = DeviceModel::named("h200")?;
        Ok(Box::new(Emulator::new(model)) as Box<dyn Device>)
    };
    let mut seen = 0;
    let crew = Crew::Threads { count: 2, device: &device, against: None };
    run(&work, crew, |event| match event {
        Event::Tick => ControlFlow::Continue(()),
        Event::Ended(..) => {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    })
    .expect("an end");
    assert_eq!(seen, 3);
}

/// What a process is asked and what it answers come through whole.
#[test]
fn cases_and_answers_round_trip() {
    let registry = registry();
    let work = work(&registry, 2);
    let asked: Vec<String> =
        work.iter().map(|(_, s)| serde_json::to_string(&Message::of(s)).expect("JSON")).collect();
    let device = || {
        let model = DeviceModel::named("h200")?;
        Ok(Box::new(Emulator::new(model)) as Box<dyn Device>)
    };
    let mut said = Vec::new();
    let input = asked.iter().cloned().map(Ok);
    serve(&registry, &device, None, input, &mut said).expect("answers");
    let said = String::from_utf8(said).expect("text");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "\"ready\""));
    for (line, (_, subject)) in lines[1..].iter().zip(&work) {
        let Ok(Answer::Trial(trial)) = serde_json::from_str(line) else { panic!("{line}") };
        assert_eq!(trial.ending, Ending::Passed, "{:?}", trial.faults);
        let again: Message = serde_json::from_str(&asked[0]).expect("a case");
        assert_eq!(again.subject().case, work[0].1.case);
        assert_eq!(Message::of(subject).subject().label(), subject.label());
    }
}
