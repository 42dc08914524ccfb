//! Runs one model to its end and counts.

use core::any::Any;
use core::cell::Cell;
use std::env;
use std::io::Write as _;
use std::panic;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Instant;

/// Preemptions per execution that are tried unless `LOOM_MAX_PREEMPTIONS` says otherwise. Floors belong to this bound.
const DEFAULT_PREEMPTIONS: usize = 2;

/// Scheduling points of one execution. Loom's 1 000 is too few where several rings are drained in one model.
const MAX_BRANCHES: usize = 20_000;

/// Checks every execution of `f` within the preemption bound, and that there were at least `floor` of them.
///
/// A checker that silently stops trying interleavings passes every model; the floor is what notices. Record the number
/// that a run prints, or a little less. It counts only at the default preemption bound.
///
/// # Panics
/// When an execution fails, or there were too few.
pub fn model<F>(name: &str, floor: u64, f: F)
where
    F: Fn() + Sync + Send + 'static,
{
    let bound = preemptions();
    let start = Instant::now();
    let runs = Count::default();
    check(bound, runs.counting(f));
    let n = runs.get();
    let seconds = start.elapsed().as_secs_f32();
    say(format_args!(
        "model {name}: {n} iterations (floor {floor} at bound {DEFAULT_PREEMPTIONS}, bound {bound}, {seconds:.1} s)"
    ));
    // A mutant may well have fewer executions; it must fail for a better reason.
    let floor_holds = bound == DEFAULT_PREEMPTIONS && env::var_os("K2K_LOOM_NO_FLOOR").is_none();
    assert!(
        !floor_holds || n >= floor,
        "model {name}: {n} iterations, expected at least {floor}: is the patched loom in use? (loom-tests/run)"
    );
}

/// Checks that some execution of `f` fails, and returns what it failed with. Nothing of the failure is printed.
/// Loom cannot unwind out of every failure: where a destructor enters the model once more, the process aborts.
///
/// # Panics
/// When every execution passes.
pub fn must_fail<F>(name: &str, f: F) -> String
where
    F: Fn() + Sync + Send + 'static,
{
    quiet_hook();
    let bound = preemptions();
    let runs = Count::default();
    let counted = runs.counting(f);
    QUIET.set(true);
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| check(bound, counted)));
    QUIET.set(false);
    let n = runs.get();
    match outcome {
        Ok(()) => panic!("model {name}: {n} iterations, none of which found the seeded bug"),
        Err(payload) => {
            let why = message(payload.as_ref());
            let first = why.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
            say(format_args!("model {name}: bug found in iteration {n}: {first}"));
            why
        }
    }
}

fn preemptions() -> usize {
    env::var("LOOM_MAX_PREEMPTIONS")
        .map_or(DEFAULT_PREEMPTIONS, |text| text.parse().expect("LOOM_MAX_PREEMPTIONS is a number up to 255, or unset"))
}

fn check(bound: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.max_branches = builder.max_branches.max(MAX_BRANCHES);
    // Both would end the search early and green.
    builder.max_duration = None;
    builder.max_permutations = None;
    if builder.log {
        let log = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_env("LOOM_LOG"))
            .without_time()
            .finish();
        let _guard = tracing_subscriber::util::SubscriberInitExt::set_default(log);
        builder.check(f);
    } else {
        builder.check(f);
    }
}

/// Number of executions begun. An ordinary lock: loom must not schedule around it.
#[derive(Clone, Default)]
struct Count(Arc<Mutex<u64>>);

impl Count {
    fn counting(&self, f: impl Fn() + Sync + Send + 'static) -> impl Fn() + Sync + Send + 'static {
        let count = self.clone();
        move || {
            *count.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            f();
        }
    }

    fn get(&self) -> u64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Past the test harness's capture, so that the counts of passing models are seen.
fn say(line: core::fmt::Arguments<'_>) {
    // A closed pipe is no reason to fail a model.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "(a panic without a message)".to_owned(),
    }
}

std::thread_local! {
    /// Whether a panic of this thread is expected. Loom runs a model's threads as coroutines of the calling thread.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Silences expected panics only: other tests of the same process run at the same time.
fn quiet_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                default(info);
            }
        }));
    });
}
