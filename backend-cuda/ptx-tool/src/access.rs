//! What an instruction does to memory that others see: kind, order, scope.

use core::fmt;

/// What kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `ld`.
    Load,
    /// `st`.
    Store,
    /// `atom`: a read-modify-write that returns what it found.
    Atomic,
    /// `red`: one that returns nothing.
    Reduction,
    /// `fence`, and `membar`, its name of old.
    Fence,
}

/// How an access is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// `.volatile`: relaxed at system scope, and slow.
    Volatile,
    /// `.relaxed`
    Relaxed,
    /// `.acquire`
    Acquire,
    /// `.release`
    Release,
    /// `.acq_rel`
    AcqRel,
    /// `.sc`
    Sc,
}

/// Among whom it is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The threads of a block.
    Cta,
    /// Those of a cluster of blocks.
    Cluster,
    /// Those of one GPU.
    Gpu,
    /// Those of all GPUs, and the host's.
    Sys,
}

/// Where it goes, as far as the instruction says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Any: the address tells.
    Generic,
    /// Device or host memory.
    Global,
    /// A block's own.
    Shared,
    /// A thread's own.
    Local,
    /// Parameters and constants.
    Constant,
}

/// One access to memory, or a fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// What kind.
    pub kind: Kind,
    /// Its order; `None` is weak, or where a fence or a read-modify-write leaves it out.
    pub order: Option<Order>,
    /// Its scope, if it says one.
    pub scope: Option<Scope>,
    /// Where it goes.
    pub space: Space,
    /// The operation of a read-modify-write, such as `cas`; the kind of a fence's `proxy`.
    pub operation: Option<String>,
    /// How many bytes it moves; 0 for a fence.
    pub bytes: usize,
}

impl Access {
    /// Reads a mnemonic with its modifiers; `None` if it is neither an access nor a fence.
    #[must_use]
    pub fn of(opcode: &str) -> Option<Self> {
        let mut parts = opcode.split('.');
        let name = parts.next()?;
        let kind = match name {
            "ld" | "ldu" => Kind::Load,
            "st" => Kind::Store,
            "atom" => Kind::Atomic,
            "red" => Kind::Reduction,
            "fence" | "membar" => Kind::Fence,
            _ => return None,
        };
        let mut access = Self { kind, order: None, scope: None, space: Space::Generic, operation: None, bytes: 0 };
        let mut elements = 1;
        let mut proxy = false;
        for part in parts {
            if let Some(order) = Order::of(part) {
                access.order = Some(order);
            } else if let Some(scope) = Scope::of(part, name == "membar") {
                access.scope = Some(scope);
            } else if let Some(space) = Space::of(part) {
                access.space = space;
            } else if let Some(count) = vector(part) {
                elements = count;
            } else if let Some(bytes) = width(part) {
                access.bytes = bytes;
            } else if kind == Kind::Fence && (part == "proxy" || proxy) {
                proxy = true;
                access.operation = Some(part.to_owned());
            } else if matches!(kind, Kind::Atomic | Kind::Reduction) && access.operation.is_none() && is_operation(part)
            {
                access.operation = Some(part.to_owned());
            }
        }
        access.bytes *= elements;
        Some(access)
    }

    /// Whether the contract counts it: everything that is there for others to see. Not so are weak loads and stores.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        self.order.is_some() || !matches!(self.kind, Kind::Load | Kind::Store)
    }

    /// Whether it publishes what was written before it.
    #[must_use]
    pub fn releases(&self) -> bool {
        self.kind != Kind::Fence && matches!(self.order, Some(Order::Release | Order::AcqRel))
    }

    /// Whether it sees what was published.
    #[must_use]
    pub fn acquires(&self) -> bool {
        self.kind != Kind::Fence && matches!(self.order, Some(Order::Acquire | Order::AcqRel))
    }
}

/// The name in a contract: without space, width and vector, such as `ld.acquire.sys` or `atom.acq_rel.sys.cas`.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Load => "ld",
            Kind::Store => "st",
            Kind::Atomic => "atom",
            Kind::Reduction => "red",
            Kind::Fence => "fence",
        })?;
        let parts = [self.order.map(Order::name), self.scope.map(Scope::name), self.operation.as_deref()];
        parts.iter().flatten().try_for_each(|part| write!(f, ".{part}"))
    }
}

impl Order {
    fn of(part: &str) -> Option<Self> {
        Some(match part {
            "volatile" => Self::Volatile,
            "relaxed" => Self::Relaxed,
            "acquire" => Self::Acquire,
            "release" => Self::Release,
            "acq_rel" => Self::AcqRel,
            "sc" => Self::Sc,
            _ => return None,
        })
    }

    /// As in PTX, without the dot.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Volatile => "volatile",
            Self::Relaxed => "relaxed",
            Self::Acquire => "acquire",
            Self::Release => "release",
            Self::AcqRel => "acq_rel",
            Self::Sc => "sc",
        }
    }
}

impl Scope {
    fn of(part: &str, membar: bool) -> Option<Self> {
        Some(match part {
            "cta" => Self::Cta,
            "cluster" => Self::Cluster,
            "gpu" => Self::Gpu,
            "gl" if membar => Self::Gpu,
            "sys" => Self::Sys,
            _ => return None,
        })
    }

    /// As in PTX, without the dot.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cta => "cta",
            Self::Cluster => "cluster",
            Self::Gpu => "gpu",
            Self::Sys => "sys",
        }
    }
}

impl Space {
    fn of(part: &str) -> Option<Self> {
        Some(match part.split("::").next()? {
            "global" => Self::Global,
            "shared" => Self::Shared,
            "local" => Self::Local,
            "param" | "const" => Self::Constant,
            _ => return None,
        })
    }
}

/// The elements of `.v2` and its like.
fn vector(part: &str) -> Option<usize> {
    Some(match part {
        "v2" => 2,
        "v4" => 4,
        "v8" => 8,
        _ => return None,
    })
}

/// The bytes of `.u32` and its like.
fn width(part: &str) -> Option<usize> {
    let bits = part.strip_prefix(['b', 'u', 's', 'f'])?.parse::<usize>().ok()?;
    matches!(bits, 8 | 16 | 32 | 64 | 128).then_some(bits / 8)
}

fn is_operation(part: &str) -> bool {
    matches!(part, "add" | "exch" | "cas" | "min" | "max" | "and" | "or" | "xor" | "inc" | "dec")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_all_elements() {
        for (opcode, bytes) in
            [("ld.acquire.sys.b64", 8), ("st.relaxed.gpu.v4.u32", 16), ("ld.global.nc.s8", 1), ("fence.sc.sys", 0)]
        {
            assert_eq!(Access::of(opcode).unwrap().bytes, bytes, "{opcode}");
        }
    }

    #[test]
    fn names_leave_out_space_and_width() {
        for (opcode, name) in [
            ("ld.acquire.sys.global.b64", "ld.acquire.sys"),
            ("st.release.gpu.shared::cta.v2.b32", "st.release.gpu"),
            ("atom.acq_rel.sys.global.cas.b64", "atom.acq_rel.sys.cas"),
            ("atom.global.add.u64", "atom.add"),
            ("red.relaxed.gpu.global.add.u32", "red.relaxed.gpu.add"),
            ("fence.sc.sys", "fence.sc.sys"),
            ("membar.gl", "fence.gpu"),
            ("fence.proxy.async", "fence.async"),
            ("ld.global.nc.b32", "ld"),
        ] {
            assert_eq!(Access::of(opcode).unwrap().to_string(), name, "{opcode}");
        }
        assert_eq!(Access::of("mov.u32"), None);
        assert_eq!(Access::of("stacksave.u64"), None);
    }
}
