use super::*;
use crate::device::open::open;
use crate::op::examples;
use crate::sweep::{Source, Sweep};

/// Its operator is to be filled in.
const SWEEP: &str = "
name = 'w'
question = 'Is it the same in a process?'
[axes]
T = [20, 33]
dtype = 'bf16'
[[group]]
op = 'OP'
causal = true
kernels = '*.sm80'
heads = { Hq = 1, Hkv = 1 }
";

fn cases(registry: &Registry) -> Vec<Case> {
    let text = SWEEP.replace("OP", examples::full().name());
    let sweep = Sweep::parse(Source::new("w.toml", text)).expect("a sweep");
    let plan = sweep.plan(registry, None, None).expect("a plan");
    plan.runnable().cloned().collect()
}

fn site() -> Site {
    Site {
        device: "emulator".into(),
        place: None,
        sweep: "w".into(),
        command: "crossover run w.toml".into(),
        limits: Limits::default(),
        energy: false,
        sample: ShareRule::Ctas(3),
    }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// What is asked and what is answered come through whole.
#[test]
fn a_process_measures_as_this_one_does() {
    let registry = Registry::embedded().expect("the embedded kernels");
    let cases = cases(&registry);
    let mut lines = vec![serde_json::to_string(&site()).expect("JSON")];
    lines.extend(cases.iter().map(|c| serde_json::to_string(c).expect("JSON")));
    let mut said = Vec::new();
    serve(&registry, open, lines.into_iter().map(Ok), &mut said).expect("served");
    let said = String::from_utf8(said).expect("text");
    let said: Vec<Said> =
        said.lines().map(|l| serde_json::from_str(l).expect("an answer")).collect();
    assert!(matches!(said[0], Said::Ready));
    let device = open("emulator").expect("the emulator");
    let mut bench = site().bench(&registry, device.as_ref());
    let records: Vec<&Record> = said
        .iter()
        .filter_map(|s| match s {
            Said::Record(record) => Some(record.as_ref()),
            _ => None,
        })
        .collect();
    assert_eq!(records.len(), 2);
    for (case, came) in cases.iter().zip(records) {
        let here = bench.measure(case).expect("a record");
        let mut came = came.clone();
        (came.time, came.build) = (here.time.clone(), here.build.clone());
        assert_eq!(came, here);
        assert_eq!(came.status, Status::Ok, "{:?}", came.reason);
    }
    let steps = |s: &Said| matches!(s, Said::At(Step::Load | Step::Run | Step::Verify));
    assert!(said.iter().filter(|s| steps(s)).count() >= 6);
}

#[test]
fn a_process_that_dies_or_hangs_costs_its_case() {
    let registry = Registry::embedded().expect("the embedded kernels");
    let case = &cases(&registry)[0];
    let came = |script: &str| {
        let script = format!("read site; echo '\"ready\"'; read case; {script}");
        let mut worker = Worker::start(shell(&script), &site()).expect("a process");
        assert!(worker.is_fresh());
        worker.longest = Some(Duration::from_millis(200));
        let came = worker.measure(case);
        assert!(!worker.is_fresh());
        match came {
            Came::Died(status, why) => (status, why),
            other => panic!("{other:?}"),
        }
    };
    let (status, why) = came("echo '{\"at\":\"run\"}'; kill -9 $$");
    assert_eq!(status, Status::LaunchFailed);
    assert!(why.contains("while it ran") && why.contains("signal: 9"), "{why}");
    let (status, why) = came("echo '{\"at\":\"time\"}'; exec sleep 100");
    assert_eq!(status, Status::Timeout);
    assert!(why.contains("while it was timed") && why.contains("did not answer"), "{why}");
    let (status, why) = came("echo Hello");
    assert_eq!(status, Status::LaunchFailed);
    assert!(why.contains("means nothing"), "{why}");
}

#[test]
fn a_device_that_does_not_open_says_why() {
    let refused = shell("read site; echo '{\"refused\":\"no such GPU\"}'");
    assert_eq!(Worker::start(refused, &site()).expect_err("refused"), "no such GPU");
    let e = Worker::start(shell("exit 3"), &site()).expect_err("ended");
    assert!(e.contains("exit status: 3"), "{e}");
    let registry = Registry::embedded().expect("the embedded kernels");
    let wrong = serde_json::to_string(&Site { device: "tpu".into(), ..site() }).expect("JSON");
    let mut said = Vec::new();
    serve(&registry, open, std::iter::once(Ok(wrong)), &mut said).expect("served");
    assert!(String::from_utf8(said).expect("text").contains("tpu"));
}
