//! `k2k doctor`: the parts of K2K supported by this machine, and the missing requirements.

mod device;
mod host;
mod try_out;

use crate::args::DoctorArgs;
use core::error::Error;
use core::fmt::Write as _;
use serde::Serialize;
use std::process::ExitCode;

/// Result of a single check.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    /// Whether the requirement is met.
    ok: bool,
    /// The thing found or missing, in words.
    found: String,
    needed_for: &'static str,
    /// How to meet the requirement; `null` if met already, or if there is no remedy.
    remedy: Option<String>,
    /// Whether kernels on the host need this to work.
    required: bool,
}

impl Check {
    fn ok(name: &'static str, needed_for: &'static str, found: impl Into<String>) -> Self {
        Self { name, ok: true, found: found.into(), needed_for, remedy: None, required: false }
    }

    fn missing(
        name: &'static str,
        needed_for: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, ok: false, found: found.into(), needed_for, remedy: Some(remedy.into()), required: false }
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

#[derive(Debug, Serialize)]
struct Diagnosis {
    /// Kernels on host threads and in host processes can run here.
    host_works: bool,
    /// A GPU can be used from here.
    gpu_works: bool,
    /// Device code can be compiled here. Use needs no compiler: device code comes compiled.
    device_code_can_be_built: bool,
    host: Vec<Check>,
    gpu: Vec<Check>,
    device_toolchain: Vec<Check>,
}

/// The command's name in messages.
const NAME: &str = "k2k doctor";

/// Checks, prints, and reports by the exit status whether the host part works.
pub(crate) fn main(args: &DoctorArgs) -> ExitCode {
    k2k_command::end(NAME, 1, run(args))
}

fn run(args: &DoctorArgs) -> Result<ExitCode, Box<dyn Error>> {
    let diagnosis = Diagnosis::new();
    let text = if args.json { serde_json::to_string_pretty(&diagnosis)? + "\n" } else { diagnosis.render() };
    k2k_command::print(text)?;
    Ok(if diagnosis.host_works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Diagnosis {
    fn new() -> Self {
        let (host, gpu, device_toolchain) = (host::checks(), device::gpu(), device::toolchain());
        Self {
            host_works: host.iter().all(|check| check.ok || !check.required),
            gpu_works: gpu.iter().all(|check| check.ok),
            device_code_can_be_built: device_toolchain.iter().all(|check| check.ok),
            host,
            gpu,
            device_toolchain,
        }
    }

    fn render(&self) -> String {
        let mut text = String::new();
        let sections = [("Host", &self.host), ("GPU", &self.gpu), ("Compiling device code", &self.device_toolchain)];
        let names = sections.iter().flat_map(|(_, checks)| checks.iter()).map(|check| check.name.len()).max();
        let width = names.unwrap_or(0);
        for (title, checks) in sections {
            let _ = writeln!(text, "{title}");
            for check in checks {
                let mark = if check.ok { "ok     " } else { "missing" };
                let _ = write!(text, "  {mark}  {:width$}  {}", check.name, check.found);
                if check.ok {
                    let _ = writeln!(text, "  [{}]", check.needed_for);
                    continue;
                }
                let _ = writeln!(text, "\n  {:7}  {:width$}  needed for: {}", "", "", check.needed_for);
                if let Some(remedy) = &check.remedy {
                    let _ = writeln!(text, "  {:7}  {:width$}  to get it: {remedy}", "", "");
                }
            }
            text.push('\n');
        }
        let works = |yes: bool| if yes { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "Kernels on the host: {}   kernels on a GPU: {}   compiling device code: {}",
            works(self.host_works),
            works(self.gpu_works),
            works(self.device_code_can_be_built)
        );
        if self.gpu_works {
            let _ = writeln!(text, "To try the GPU out, and for more about it: k2k-gpu doctor (package k2k-gpu)");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_thing_says_what_for_and_what_to_do() {
        let gpu = vec![Check::missing("driver", "kernels on a GPU", "no libcuda.so.1", "install the NVIDIA driver")];
        let host = vec![Check::ok("cores", "threads", "8").required()];
        let diagnosis = Diagnosis {
            host_works: true,
            gpu_works: false,
            device_code_can_be_built: true,
            host,
            gpu,
            device_toolchain: Vec::new(),
        };
        let text = diagnosis.render();
        for line in [
            "  ok       cores   8  [threads]",
            "  missing  driver  no libcuda.so.1",
            "                   needed for: kernels on a GPU",
            "                   to get it: install the NVIDIA driver",
            "Kernels on the host: yes   kernels on a GPU: no   compiling device code: yes",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
        }
    }
}
