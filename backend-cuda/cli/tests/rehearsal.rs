//! `k2k-gpu check` on a GPU that is none: a driver whose device is the PTX executor (tests/fake/executor.rs), well or ill. What one
//! hang, crash or kill costs is to be known before a GPU is at hand for half an hour.
#![cfg(feature = "emulated")]

use core::time::Duration;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;
use tempfile::TempDir;

/// The folder with the driver. Cargo builds it with the other examples; if it has been told to build this test alone, it is
/// told once more.
fn driver() -> &'static Path {
    static DRIVER: OnceLock<PathBuf> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let program = std::env::current_exe().unwrap();
        let profile = program.parent().and_then(Path::parent).unwrap();
        let library = profile.join("examples/libfake_cuda.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake/executor.rs");
        let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
        if changed(&library) < changed(&source) {
            let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
            cargo.args(["build", "--quiet", "--package", "k2k-gpu", "--example", "fake_cuda"]);
            cargo.arg("--target-dir").arg(profile.parent().unwrap());
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success(), "the driver does not compile");
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rehearsal");
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["libcuda.so", "libcuda.so.1"] {
            // A whole one at any time: another test program may use it.
            let new = folder.join(format!("{name}.{}", std::process::id()));
            std::fs::copy(&library, &new).unwrap();
            std::fs::rename(&new, folder.join(name)).unwrap();
        }
        folder
    })
}

/// A run, and where it leaves things.
struct Run {
    folder: TempDir,
    wrong: String,
}

struct Done {
    code: Option<i32>,
    /// Standard output and standard error.
    said: String,
    record: Value,
    took: Duration,
}

impl Run {
    /// With a driver of which that is wrong; launches are counted.
    fn new(wrong: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let wrong = format!("{wrong} count={}", folder.path().join("launches").display());
        Self { folder, wrong }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let out = std::fs::File::options().create(true).append(true).open(self.path("said")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_k2k-gpu"));
        command.args(["check", "--messages", "50", "--json"]).arg(self.path("record.json")).args(arguments);
        command.env("LD_LIBRARY_PATH", driver()).env("FAKE_CUDA", &self.wrong).env("PATH", self.tools());
        command.env_remove("CUDA_DEVICE_MAX_CONNECTIONS").env_remove("CUDA_LAUNCH_BLOCKING");
        command.stdin(Stdio::null()).stderr(out.try_clone().unwrap()).stdout(out).spawn().unwrap()
    }

    /// A place in front of PATH, with a program that says what `nvidia-smi` would.
    fn tools(&self) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let tool = self.path("nvidia-smi");
        std::fs::write(&tool, "#!/bin/sh\necho 1980, 2619, 1980, 5, 31, 71.25, 0x0000000000000000\n").unwrap();
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap_or_default())
    }

    fn go(&self, arguments: &[&str]) -> Done {
        let began = Instant::now();
        let code = self.start(arguments).wait().unwrap().code();
        Done { code, said: self.said(), record: self.record(), took: began.elapsed() }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.path("said")).unwrap()
    }

    fn record(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path("record.json")).unwrap()).unwrap()
    }
}

impl Done {
    /// How each item ended, in order.
    fn items(&self) -> Vec<(String, String)> {
        let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
        let all = self.record["items"].as_array().unwrap().iter();
        all.map(|item| (text(item, "item"), text(item, "ended"))).collect()
    }

    /// Names of the checks that did not pass, with their pass and what they say.
    fn failures(&self) -> Vec<(String, String)> {
        let all = self.record["checks"].as_array().unwrap().iter().filter(|check| check["passed"] == false);
        let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
        all.map(|check| (format!("{} {}", text(check, "pass"), text(check, "name")), text(check, "text"))).collect()
    }

    fn unfinished(&self) -> Vec<&str> {
        self.record["unfinished"].as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
    }
}

const DEVICE: &str = "device: open and describe";

#[test]
fn each_check_has_a_process_of_its_own_and_all_is_in_the_record() {
    let run = Run::new("slow=1");
    let done = run.go(&["--only", "spsc, device to host", "--only", "rings over", "--only", "layout"]);
    assert_eq!(done.code, Some(0), "{}", done.said);
    let record = &done.record;
    assert_eq!(done.unfinished(), [""; 0]);
    assert_eq!(record.get("at"), None);
    let well: Vec<_> = done.items().into_iter().map(|(item, ended)| ended == "well" && !item.is_empty()).collect();
    assert_eq!(well, [true; 7], "{:?}", done.items());
    assert_eq!(done.items()[0].0, DEVICE);
    assert_eq!(done.items()[5].0, "long check: spsc, device to host");
    // All that explains a figure.
    assert_eq!(record["device"]["name"], "Rehearsal");
    assert_eq!(record["device"]["clocks"]["clocks.sm"], 1980.0);
    assert_eq!(record["device"]["bus"]["width"], Value::Null, "there is no such bus");
    assert_eq!(record["ptx"]["checks"]["hash"].as_str().map(str::len), Some(16));
    assert!(record["host"]["hypervisor"]["present"].is_boolean() && record["tool"].get("commit").is_some());
    let items = record["items"].as_array().unwrap();
    let benchmark = items.iter().find(|item| item["item"] == "long benchmark: rings over the chip").unwrap();
    assert_eq!(benchmark["clocks"]["after"]["temperature.gpu"], 31.0);
    assert!(benchmark["compile_seconds"].as_f64() > Some(0.0) && benchmark["seconds"].as_f64() > Some(0.0));
    for pass in ["quick", "long"] {
        let of_it = |list: &str| record[list].as_array().unwrap().iter().filter(|one| one["pass"] == pass).count();
        assert_eq!((of_it("checks"), of_it("benchmarks")), (2, 1), "{pass}");
    }
}

#[test]
fn a_driver_that_hangs_at_the_third_launch_costs_one_item() {
    let run = Run::new("hang=3");
    let looked = run.path("looked");
    let look = format!("echo $K2K_ITEM; kill -0 $K2K_PID && echo alive > {}", looked.display());
    let done = run.go(&["--only", "spsc, host", "--no-bench", "--item-limit", "3", "--on-hang", &look]);
    assert_eq!(done.code, Some(1), "{}", done.said);
    let items = done.items();
    assert_eq!(items.len(), 6, "{items:?}");
    assert!(items[0].0 == DEVICE && items[0].1.starts_with("hung, and was killed: time is up after 3 s; for "));
    assert!(items[0].1.contains("it has been at: measure the device's clock"), "{}", items[0].1);
    assert!(items[1..].iter().all(|(_, ended)| ended == "well"), "{items:?}");
    assert_eq!((done.failures(), done.unfinished()), (vec![], vec![]));
    assert_eq!(std::fs::read_to_string(looked).unwrap(), "alive\n");
    assert!(done.said.contains("device--open-and-describe\n"), "{}", done.said);
    assert!(done.took < Duration::from_secs(60), "{:?}", done.took);
}

#[test]
fn a_driver_that_dies_costs_one_check_and_its_last_words_are_kept() {
    let run = Run::new("die:k2k_warp_produce_sys");
    let done = run.go(&["--only", "the host", "--no-bench", "--quick"]);
    assert_eq!(done.code, Some(1), "{}", done.said);
    let [(name, why)] = &done.failures()[..] else { panic!("{:?}", done.failures()) };
    assert_eq!(name, "quick spsc, a warp to the host");
    assert!(why.starts_with("died of signal 6: FAKE: killed by launch "), "{why}");
    assert!(why.contains("of k2k_warp_produce_sys"), "{why}");
    // Others have been tried, and in the record what was is not what is left.
    assert!(done.items().len() > 1 && done.unfinished().is_empty(), "{:?}", done.items());
}

#[test]
fn a_kernel_that_never_begins_is_looked_at_and_its_device_given_back() {
    let run = Run::new("lose:k2k_warp_consume_sys");
    let done = run.go(&["--only", "warp", "--no-bench", "--patience", "2"]);
    assert_eq!(done.code, Some(1), "{}", done.said);
    let failures = done.failures();
    // Tried in the quick pass, and once more when all others have been.
    let names: Vec<_> = failures.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["quick spsc, host to a warp", "long spsc, host to a warp"], "{failures:?}");
    let items = done.items();
    assert_eq!(items.last().unwrap().0, "long check: spsc, host to a warp");
    assert_eq!(items.last().unwrap().1, "hung, and was killed: it left kernels that do not end");
    let well = items.iter().filter(|(_, ended)| ended == "well").count();
    assert_eq!(well, items.len() - 2, "{items:?}");
}

#[test]
fn a_run_that_is_killed_goes_on_with_what_is_left() {
    let run = Run::new("hang:k2k_spsc_produce_sys");
    let arguments = ["--only", "spsc, ", "--no-bench", "--quick", "--item-limit", "60"];
    let mut killed = run.start(&arguments);
    let began = Instant::now();
    let at = "quick check: spsc, device to host";
    // From the first look on it is whole.
    while !run.path("record.json").exists() || run.record().get("at") != Some(&Value::from(at)) {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", run.said());
        std::thread::sleep(Duration::from_millis(10));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = run.record()["unfinished"].as_array().unwrap().len();
    assert_eq!(left, 5, "{}", run.record());
    // The driver is well again.
    let run = Run { wrong: String::new(), ..run };
    let done = run.go(&[&arguments[..], &["--resume"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.said);
    let items: Vec<_> = done.items().into_iter().map(|(item, _)| item).collect();
    assert_eq!(items.len(), 7, "{items:?}");
    assert_eq!(items.iter().filter(|item| *item == "quick check: spsc, host to device").count(), 1, "{items:?}");
    assert_eq!(items.last().unwrap(), at, "what it was at when it was killed comes last");
    assert_eq!(done.record["checks"].as_array().unwrap().len(), 6);
}

#[test]
fn a_run_does_not_go_on_on_another_device() {
    let run = Run::new("");
    let arguments = ["--only", "layout", "--quick", "--resume"];
    let before = run.go(&arguments);
    assert_eq!(before.code, Some(0), "{}", before.said);
    let run = Run { wrong: "name=Other".to_owned(), ..run };
    let done = run.go(&["--only", "layout", "--resume"]);
    assert_eq!(done.code, Some(2), "{}", done.said);
    let expected = "the record is of another device, Rehearsal at ffff:ab:00.0: begin anew, without --resume";
    assert!(done.said.contains(expected), "{}", done.said);
    for key in ["device", "checks", "items"] {
        assert_eq!(done.record[key], before.record[key], "{key}");
    }
}

#[test]
fn time_is_up_for_all_of_it() {
    let run = Run::new("hang:k2k_spsc_consume_sys");
    let done = run.go(&["--only", "spsc, ", "--no-bench", "--limit", "4", "--item-limit", "60"]);
    assert_eq!(done.code, Some(4), "{}", done.said);
    let at = "quick check: spsc, host to device";
    assert_eq!(done.unfinished()[0], at);
    assert_eq!(done.unfinished().len(), 12);
    assert_eq!(done.record["at"], at, "what goes on from here comes to it last");
    assert!(done.said.contains("time is up after 4 s; for ") && done.said.contains(at), "{}", done.said);
    assert!(done.took < Duration::from_secs(20), "{:?}", done.took);
}

#[test]
fn compiling_is_no_part_of_the_limit() {
    let run = Run::new("compile=10");
    let done = run.go(&["--only", "fabric, all accounted for", "--no-bench", "--quick", "--item-limit", "3"]);
    assert_eq!(done.code, Some(0), "{}", done.said);
    let items = done.record["items"].as_array().unwrap();
    let compiling = items.last().unwrap()["compile_seconds"].as_f64().unwrap();
    assert!(compiling > 3.0, "{compiling}");
}

#[test]
fn a_driver_that_does_not_let_go_at_the_end_loses_no_result() {
    let run = Run::new("exit");
    let done = run.go(&["--only", "spsc, host to device", "--no-bench", "--quick", "--item-limit", "2"]);
    assert_eq!(done.code, Some(1), "{}", done.said);
    assert!(done.failures().is_empty() && done.record["checks"][0]["passed"] == true, "{}", done.record);
    let items = done.items();
    assert!(items.iter().all(|(_, ended)| ended.starts_with("hung, and was killed: ")), "{items:?}");
}

#[test]
fn streams_that_share_a_queue_are_named_before_all_else() {
    let run = Run::new("queues=4");
    let done = run.go(&["--only", "queues", "--quick"]);
    assert_eq!(done.code, Some(1), "{}", done.said);
    let [(name, why)] = &done.failures()[..] else { panic!("{:?}", done.failures()) };
    assert_eq!(name, "quick queues, side by side");
    assert!(why.starts_with("of 7 grids, each on a stream of its own, 4 ran at the same time; "), "{why}");
    // The pool is used from its end: the first grid is on the last stream, and the fifth on one of the same queue.
    assert!(
        why.contains("; grid 4 waited for the end of grid 0; grid 5 ") && why.contains("; a copy beside them took "),
        "{why}"
    );
    assert!(why.ends_with("CUDA_DEVICE_MAX_CONNECTIONS=32, and make no streams in it before this"), "{why}");
}

#[test]
fn entry_points_that_are_kept_apart_are_seen_and_do_no_harm() {
    let apart = Run::new("disjoint").go(&["--only", "two entry points", "--quick"]);
    assert_eq!(apart.code, Some(0), "{}", apart.said);
    let text = |done: &Done| done.record["checks"][0]["text"].as_str().unwrap().to_owned();
    assert!(text(&apart).starts_with("KEPT APART: 16 of 32 blocks at the same time; "), "{}", text(&apart));
    let together = Run::new("").go(&["--only", "two entry points", "--quick"]);
    assert!(text(&together).starts_with("32 of 32 blocks at the same time; "), "{}", text(&together));
}

#[test]
fn one_call_on_the_machine_keeps_what_a_debugger_says_of_a_hang() {
    use std::os::unix::fs::PermissionsExt as _;
    let run = Run::new("hang:k2k_spsc_produce_sys");
    let path = run.tools();
    let tool = |name: &str, does: &str| {
        let tool = run.path(name);
        std::fs::write(&tool, format!("#!/bin/sh\n{does}\n")).unwrap();
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    tool("cuda-gdb", "kill -0 $2 && echo \"(cuda-gdb) looked at $2: $*\"");
    // A compiler that makes a program of the source's place.
    tool("nvcc", "[ -s $5 ] && printf '#!/bin/sh\\necho {}\\n' > $4 && chmod +x $4");
    tool("compute-sanitizer", "shift 2; exec \"$@\"");
    let out = run.path("out");
    let call = || {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/on-gpu"));
        command.args(["run", env!("CARGO_BIN_EXE_k2k-gpu")]).arg(&out);
        command.args(["150", "--messages", "50", "--no-bench", "--only", "spsc, ", "--item-limit", "4"]);
        command.env("LD_LIBRARY_PATH", driver()).env("FAKE_CUDA", &run.wrong).env("PATH", &path);
        command.env_remove("CUDA_DEVICE_MAX_CONNECTIONS").env_remove("CUDA_LAUNCH_BLOCKING");
        let output = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    };
    let (code, said) = call();
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap_or_default();
    assert_eq!(code, Some(1), "{said}\n{}", read("said.txt"));
    assert!(said.contains("quick pass: status 1, ") && said.contains("long pass: status 1, "), "{said}");
    assert!(said.contains("spsc, device to host") && said.contains("hung, and was killed: "), "{said}");
    let hang = read("hang.txt");
    for part in
        ["=== quick-check--spsc--device-to-host, process ", "-batch -ex info cuda kernels -ex", "(cuda-gdb) looked at "]
    {
        assert!(hang.contains(part), "{part:?} is not in {hang}");
    }
    let record: Value = serde_json::from_str(&read("record.json")).unwrap();
    let checks = record["checks"].as_array().unwrap();
    assert_eq!(checks.iter().filter(|check| check["passed"] == true).count(), 10, "{checks:#?}");
    assert_eq!(record["unfinished"].as_array().unwrap().len(), 0);
    assert!(record["options"]["quick"].is_object() && record["options"]["long"].is_object(), "{}", record["options"]);
    assert_eq!(read("floors.json"), "{}\n");
    assert!(read("sanitizer.txt").contains("spsc, host to device") && read("nvidia-smi.txt").contains("1980"));
    let files = std::fs::read_dir(&out).unwrap().count();
    assert!(files <= 8 && said.len() < 6000, "{files} files; {said}");
}

#[test]
fn the_other_command_and_the_emulated_device_have_processes_as_well() {
    let (driver, folder) = (driver(), TempDir::new().unwrap());
    let record = folder.path().join("record.json");
    for arguments in [&["check", "--quick"][..], &["check", "--emulated", "--isolate", "--quick"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k2k-gpu"));
        command.args(arguments).args(["--only", "layout", "--messages", "50", "--json"]).arg(&record);
        command.env("LD_LIBRARY_PATH", driver).env_remove("FAKE_CUDA").env_remove("CUDA_LAUNCH_BLOCKING");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_str(&std::fs::read_to_string(&record).unwrap()).unwrap();
        assert_eq!(found["items"].as_array().map(Vec::len), Some(2), "{found}");
        assert_eq!(found["checks"][0]["passed"], true);
    }
}
