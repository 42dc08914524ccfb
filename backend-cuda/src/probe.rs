//! What a device can do, and where things are therefore put.

use crate::error::{PlacementError, Version};
use core::fmt;

/// The least compute capability: the first with acquire, release and independent threads.
pub const OLDEST: Version = Version(7, 0);

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its name.
    pub name: String,
    /// Whether it is a GPU; if not, PTX is interpreted on the CPU.
    pub is_gpu: bool,
    /// Compute capability.
    pub capability: Version,
    /// Version of CUDA that the driver is for; of the emulated device, the latest whose PTX it reads.
    pub driver: Version,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Lanes of a warp.
    pub warp_size: u32,
    /// Memory of the device, bytes.
    pub memory: u64,
    /// Whether a read-modify-write of the device on host memory is atomic with the CPU's. On x86 with PCIe it is not;
    /// K2K uses none there.
    pub host_atomics: bool,
    /// Whether the device can see host memory.
    pub mapped_memory: bool,
    /// Whether an address means the same to host and device.
    pub unified_addresses: bool,
    /// Whether a grid can be launched so that all its blocks run at once or not at all.
    pub cooperative_launch: bool,
    /// Whether the system ends kernels that run for some seconds, because the device also drives a display.
    pub time_limit: bool,
    /// Where the device is: `0000:65:00.0`.
    pub pci: Option<String>,
    /// The NUMA node that it is closest to. Host threads that talk to it do so fastest from there.
    pub numa_node: Option<u32>,
    /// The library of a profiler or a checker that the driver loads into this process (`CUDA_INJECTION64_PATH`). Such tools may let
    /// one grid wait for another: a session of several grids then never begins.
    pub watched_by: Option<String>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |yes| if yes { "yes" } else { "no" };
        writeln!(f, "{}", self.name)?;
        writeln!(f, "  compute capability        {}", self.capability)?;
        writeln!(f, "  driver                    for CUDA {}", self.driver)?;
        writeln!(f, "  multiprocessors           {}, warps of {}", self.multiprocessors, self.warp_size)?;
        writeln!(f, "  memory                    {} MiB", self.memory >> 20)?;
        writeln!(f, "  maps host memory          {}", yes(self.mapped_memory))?;
        writeln!(f, "  atomic with the CPU       {}", yes(self.host_atomics))?;
        writeln!(f, "  cooperative launch        {}", yes(self.cooperative_launch))?;
        writeln!(f, "  time limit on kernels     {}", if self.time_limit { "yes: it drives a display" } else { "no" })?;
        write!(f, "  PCI, NUMA node            {}", self.pci.as_deref().unwrap_or("none"))?;
        self.numa_node.map_or(Ok(()), |node| write!(f, ", {node}"))?;
        self.watched_by.as_ref().map_or(Ok(()), |tool| {
            write!(f, "\n  watched by                {tool}: it may let one grid wait for another; use one grid, or none of it")
        })
    }
}

/// The memory that something lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The device's own.
    Device,
    /// The host's: pinned, mapped into the device's addresses, cached by the CPU.
    MappedHost,
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device memory",
            Self::MappedHost => "pinned host memory that the device maps",
        })
    }
}

/// Where things are put for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The fabric of the device's kernels: they poll it, so it lies where they are.
    pub fabric: Where,
    /// Rings between host and device: the device's writes cross the bus by themselves, and the CPU polls its own
    /// cache.
    pub links: Where,
}

impl Placement {
    /// Chooses.
    ///
    /// # Errors
    /// [`PlacementError`] if the device is not one that kernels can run on.
    pub fn choose(probe: &Probe) -> Result<Self, PlacementError> {
        let device = || probe.name.clone();
        if probe.capability < OLDEST {
            return Err(PlacementError::OldDevice { device: device(), found: probe.capability, needed: OLDEST });
        }
        if !probe.mapped_memory {
            return Err(PlacementError::NoMappedMemory { device: device() });
        }
        if !probe.unified_addresses {
            return Err(PlacementError::NoUnifiedAddresses { device: device() });
        }
        Ok(Self { fabric: Where::Device, links: Where::MappedHost })
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fabric in {}, links in {}", self.fabric, self.links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe {
            name: "Test 1".to_owned(),
            is_gpu: true,
            capability: Version(9, 0),
            driver: Version(12, 4),
            multiprocessors: 132,
            warp_size: 32,
            memory: 80 << 30,
            host_atomics: false,
            mapped_memory: true,
            unified_addresses: true,
            cooperative_launch: true,
            time_limit: false,
            pci: Some("0000:65:00.0".to_owned()),
            numa_node: Some(1),
            watched_by: None,
        }
    }

    #[test]
    fn a_device_is_used_or_refused_with_a_reason() {
        assert_eq!(Placement::choose(&probe()), Ok(Placement { fabric: Where::Device, links: Where::MappedHost }));
        for (probe, expected) in [
            (
                Probe { capability: Version(6, 1), ..probe() },
                "Test 1 has compute capability 6.1; kernels need 7.0 or later (Volta, 2017), the first with acquire \
                 and release",
            ),
            (
                Probe { mapped_memory: false, ..probe() },
                "Test 1 cannot map host memory, which is where links to the host lie: use a device that can, or none",
            ),
            (
                Probe { unified_addresses: false, ..probe() },
                "Test 1 has addresses of its own for host memory: use a 64-bit system and a device with unified \
                 addressing",
            ),
        ] {
            assert_eq!(Placement::choose(&probe).unwrap_err().to_string(), expected);
        }
    }
}
