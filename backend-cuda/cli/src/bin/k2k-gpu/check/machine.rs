//! What the machine says of itself: all that may explain a figure. Nothing here asks the CUDA driver's library.

use core::time::Duration;
use serde_json::{Map, Value, json};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// How long `nvidia-smi` may take: beside a GPU that hangs it may, too.
const LIMIT: Duration = Duration::from_secs(5);

/// What stands in a file, without spaces around it; `None` for nothing.
fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A line `name : value` of /proc/cpuinfo.
fn cpu(name: &str) -> Option<String> {
    let text = text("/proc/cpuinfo")?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Whether this is a virtual machine, and whose, as far as the system says.
fn hypervisor() -> Value {
    let flag = cpu("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let dmi = |name| text(format!("/sys/class/dmi/id/{name}"));
    json!({
        "present": flag,
        "type": text("/sys/hypervisor/type"),
        "vendor": dmi("sys_vendor"),
        "product": dmi("product_name"),
    })
}

/// The host.
pub(super) fn host() -> Value {
    json!({
        "processor": cpu("model name"),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "kernel": text("/proc/sys/kernel/osrelease"),
        "hypervisor": hypervisor(),
        // The version's number: 580.95.05. CUDA's, in "device", is that of its interface.
        "nvidia_driver": driver(),
        // With it, a GPU's memory can be mapped into a process of the host.
        "gdrdrv": Path::new("/dev/gdrdrv").exists(),
        "environment": environment(),
    })
}

fn driver() -> Option<String> {
    text("/sys/module/nvidia/version").or_else(|| {
        let text = text("/proc/driver/nvidia/version")?;
        Some(text.lines().next()?.split_once(':')?.1.trim().to_owned())
    })
}

/// Variables that change what the driver does.
fn environment() -> Value {
    let all = std::env::vars().filter(|(name, _)| name.starts_with("CUDA_") || name.starts_with("NVIDIA_"));
    Value::Object(all.map(|(name, value)| (name, json!(value))).collect())
}

/// The bus that a device is on.
pub(super) fn bus(pci: &str) -> Value {
    let of = |name: &str| text(format!("/sys/bus/pci/devices/{pci}/{name}"));
    json!({
        "speed": of("current_link_speed"),
        "width": of("current_link_width"),
        "greatest_speed": of("max_link_speed"),
        "greatest_width": of("max_link_width"),
    })
}

/// Clocks, temperature, power and what holds the clocks down at this moment; `null` without `nvidia-smi`.
pub(super) fn clocks(pci: &str) -> Value {
    const ASKED: [&str; 7] = [
        "clocks.sm",
        "clocks.mem",
        "clocks.max.sm",
        "pcie.link.gen.current",
        "temperature.gpu",
        "power.draw",
        "clocks_event_reasons.active",
    ];
    let asked = format!("--query-gpu={}", ASKED.join(","));
    let answer = output(Command::new("nvidia-smi").args([&asked, "--format=csv,noheader,nounits", "-i", pci]));
    let Some(answer) = answer else { return Value::Null };
    let values = answer.trim().split(',').map(|value| {
        let value = value.trim();
        value.parse::<f64>().map_or_else(|_| json!(value), |number| json!(number))
    });
    Value::Object(ASKED.into_iter().map(str::to_owned).zip(values).collect::<Map<_, _>>())
}

/// What a program prints, if it ends well and in time. It is ended if not.
fn output(command: &mut Command) -> Option<String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.ok()?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                return None;
            }
        }
    };
    let mut text = String::new();
    // Little enough for a pipe to hold.
    child.stdout?.read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}
